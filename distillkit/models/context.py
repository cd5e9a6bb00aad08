"""How many tokens a model can read at once.

Configurations name it in a dozen ways, some count positions that no token ever gets (RoBERTa's begin behind the padding
id), and some do not name it at all. So the names are asked, and the rows of the tables of positions; the smaller answer
counts. A model that brings its own code may mean anything by its names: it is tried on a text of that length.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from distillkit.models.located import LocatedModel
from distillkit.models.model_files import read_config, weight_files
from distillkit.models.safetensors_reader import StoredWeights
from distillkit.models.shape import model_shape
from distillkit.silence_libraries import silence_transformers

# In the order in which they are believed: what comes first is what the code of a model goes by, where there are several.
_NAMES = (
    "max_position_embeddings", "n_positions", "max_target_positions", "max_sequence_length", "max_seq_len",
    "max_seq_length", "seq_length", "n_ctx", "model_max_length", "max_context_length", "context_length", "context_size",
    "ctx_len", "block_size", "seq_len", "max_len", "max_positions",
)  # fmt: skip
# A "block" is the text in nanoGPT and its kin, but a part of the attention in BigBird.
_BLOCK_IS_ATTENTION = ("num_random_blocks", "attention_type")
_LEARNED_POSITIONS = ("wpe.weight", "pos_emb.weight", "pos_embed.weight", "positions_embed.weight")
# Numbers in a model that is built only to be tried.
_LARGEST_TRIED = 400_000_000
_SHORTEST_TRIED = 4


def context_length(located: LocatedModel, wanted: int, *, trust_remote_code: bool = False) -> int | None:
    """The longest input of a model in tokens, specials included; None where there is no limit, or none below `wanted`.

    Args:
        wanted: the longest text that it shall read; a model that brings its own code is tried at this length.
        trust_remote_code: whether code that the model brings may run for that.

    Raises:
        PreconditionError: config.json or a weights file is damaged.
    """
    config = read_config(located.folder)
    shape = model_shape(config)
    known = [_named(config), shape.positions if shape is not None else _stored_positions(located.folder)]
    if shape is not None and known[0] is None:
        known[0] = _named(shape.full_config)
    limit = min((limit for limit in known if limit is not None), default=None)
    if "auto_map" not in config or not trust_remote_code:
        return limit
    longest = wanted if limit is None else min(wanted, limit)
    tried = _tried(located.folder, longest)
    return limit if tried is None else tried


def _named(config: dict[str, Any]) -> int | None:
    text_config = config.get("text_config")
    values = {**config, **text_config} if isinstance(text_config, dict) else config
    for name in _NAMES:
        value = values.get(name)
        if name == "block_size" and any(other in values for other in _BLOCK_IS_ATTENTION):
            continue
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def _stored_positions(folder: Path) -> int | None:
    """The rows of the learned positions of a model that brings its own code, by their name in its files."""
    stored = StoredWeights(list(weight_files(folder)))
    rows = [
        stored.shape(name)[0]
        for name in stored
        if len(stored.shape(name)) == 2
        and (name.endswith(_LEARNED_POSITIONS) or ("position" in name and name.endswith("embeddings.weight")))
        and "relative" not in name
    ]
    return min(rows, default=None)


# --- trying it -------------------------------------------------------------------------------------------------------


def _tried(folder: Path, wanted: int) -> int | None:
    """The longest text up to `wanted` tokens that an untrained copy of the model reads; None where it reads all of it, or
    where it is too large or too peculiar to be tried."""
    if StoredWeights(list(weight_files(folder))).numbers > _LARGEST_TRIED:
        return None
    model = _untrained(folder)
    if model is None or not _reads(model, _SHORTEST_TRIED) or _reads(model, wanted):
        return None
    reads, fails = _SHORTEST_TRIED, wanted
    while fails - reads > 1:
        middle = (reads + fails) // 2
        reads, fails = (middle, fails) if _reads(model, middle) else (reads, middle)
    return reads


def _untrained(folder: Path) -> nn.Module | None:
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        with silence_transformers(), torch.random.fork_rng(devices=[]):
            config = AutoConfig.from_pretrained(str(folder), trust_remote_code=True, local_files_only=True)
            model: Any = AutoModelForCausalLM.from_config(config, trust_remote_code=True)
    except Exception:
        # Whatever is wrong with it is said when it is loaded.
        return None
    return model.eval()


def _reads(model: Any, length: int) -> bool:
    try:
        with torch.no_grad():
            ids = torch.zeros(1, length, dtype=torch.long)
            model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    except (IndexError, RuntimeError, ValueError, AssertionError, TypeError):
        return False
    return True

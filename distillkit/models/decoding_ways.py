"""How a model may be decoded: which texts share a batch, what stands for those that are read already.

Left padding in a batch is right for attention that masks it. It is wrong where positions count from the first column
(BART's kind), where a state has read the padding (RWKV), where what is read is chosen among all columns (sparse attention
with an indexer), and Mamba takes no mask after its prompt. Neither a configuration nor a signature tells all of this. So
architectures that are not known are tried: a few tokens, in each way, against the model's plain forward pass.
"""

from __future__ import annotations

import inspect
import weakref
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig

from distillkit.models.text_batch import DecodingWay, TextBatch

# What models take and give back what they remember by: its name in transformers 5.24 first, then what a repository's own
# code and older models call it.
_STATE_NAMES = ("cache", "past_key_values", "cache_params", "state", "mems", "past_buckets_states")
# Padding is masked, positions count from the first real token, and a cache holds what was read: tests/zoo compares each
# of them with the plain forward pass. The others are tried when they are loaded.
PADDED = frozenset(["arcee", "apertus", "biogpt", "bloom", "codegen", "cohere", "cohere2", "deepseek_v2", "deepseek_v3", "diffllama", "dots1", "ernie4_5", "ernie4_5_moe", "exaone", "exaone4", "falcon", "falcon_h1", "gemma", "gemma2", "gemma3", "gemma3_text", "glm", "glm4", "glm4_moe", "gpt-sw3", "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox", "gpt_oss", "gptj", "granite", "granitemoe", "granitemoeshared", "helium", "hunyuan_v1_dense", "hunyuan_v1_moe", "internlm3", "llama", "minimax_m2", "ministral3", "mistral", "mixtral", "mpt", "nemotron", "olmo", "olmo2", "olmo3", "olmoe", "opt", "persimmon", "phi", "phi3", "phimoe", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "seed_oss", "smollm3", "stablelm", "starcoder2", "xglm"])  # fmt: skip
# Of the trial: prompts of unlike lengths, and what follows each.
_ORDER = (("any", "always"), ("any", "prompt"), ("length", "prompt"), ("alone", "prompt"))  # Fastest first.
_LENGTHS, _NEW = (13, 4, 8, 4), 5
# Distance of two ways of computing the same logits, as a share of their spread: rounding, not another text.
_ROUNDING = {torch.float32: 3e-3, torch.float64: 3e-3}
_COARSE_ROUNDING = 0.05


_found: weakref.WeakKeyDictionary[nn.Module, DecodingWay] = weakref.WeakKeyDictionary()


def decoding_way(model: nn.Module, device: torch.device) -> DecodingWay:
    """The fastest way in which a model writes what its plain forward pass would, found once for each model.

    Args:
        model: in evaluation mode, on `device`.
    """
    if model not in _found:
        name = state_name(model)
        kind = getattr(getattr(model, "config", None), "model_type", None)
        known = kind in PADDED or not isinstance(getattr(model, "config", None), PreTrainedConfig)
        _found[model] = DecodingWay("any", state=name) if known else _by_trial(model, name, device)
    return _found[model]


def state_name(model: nn.Module) -> str:
    """What the model calls its cache or state."""
    accepted = inspect.signature(model.forward).parameters
    return next((name for name in _STATE_NAMES if name in accepted), "past_key_values")


def _by_trial(model: Any, name: str, device: torch.device) -> DecodingWay:
    ids = _ordinary_ids(model)
    texts = [
        [ids[(7 * row + 5 * place) % len(ids)] for place in range(length + _NEW)] for row, length in enumerate(_LENGTHS)
    ]
    with torch.inference_mode():
        plain = torch.stack([_plain_logits(model, text, device) for text in texts])
        rounding = (
            _ROUNDING.get(plain.dtype, _COARSE_ROUNDING)
            if not torch.is_autocast_enabled(device.type)
            else _COARSE_ROUNDING
        )
        for together, mask in _ORDER:
            way = DecodingWay(together, mask, name)
            try:
                logits = _logits(model, texts, way, device)
            except (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError) as error:
                # An architecture may stumble over a mask or a cache that it does not have: then this is not its way.
                if isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error):
                    raise
                continue
            # Of each text alone: padding spoils the short ones only.
            apart = (logits - plain.float()).square().mean(dim=(1, 2)).sqrt()
            if bool((apart <= rounding * plain.float().std(dim=(1, 2))).all()):
                return way
    return DecodingWay("length")


def _logits(model: Any, texts: list[list[int]], way: DecodingWay, device: torch.device) -> Tensor:
    """[texts, new, V] logits of the tokens that follow each prompt, read on in one way."""
    prompts = [text[:-_NEW] for text in texts]
    following = torch.tensor([text[-_NEW:] for text in texts], device=device)
    found: dict[int, Tensor] = {}
    for together in way.batches(prompts):
        batch = TextBatch(model, [prompts[row] for row in together], device, way)
        steps = []
        for step in range(_NEW):
            steps.append(batch.logits().float())
            batch.append(following[together, step], torch.ones(len(together), dtype=torch.bool, device=device))
        found |= dict(zip(together, torch.stack(steps, 1), strict=True))
    return torch.stack([found[row] for row in range(len(texts))])


def _ordinary_ids(model: Any) -> list[int]:
    """Some tokens that are nothing special."""
    config = model.config.get_text_config(decoder=True)
    special: set[Any] = set()
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        value = getattr(config, name, None)
        special |= set(value) if isinstance(value, (list, tuple)) else {value}
    size = int(getattr(config, "vocab_size", 0) or model.get_output_embeddings().weight.shape[0])
    step = max(1, size // 61)
    return [index for index in range(0, size, step) if index not in special] or [0]


def _plain_logits(model: Any, text: list[int], device: torch.device) -> Tensor:
    """[new, V] logits of the tokens that follow the prompt, as the model computes them for a text alone."""
    ids = torch.tensor([text], device=device)
    return model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[0, -_NEW - 1 : -1]

"""Which sizes a narrower model may have, and how its configuration says them."""

from __future__ import annotations

import re
from typing import Any

import pytest
from transformers import AutoConfig
from width_models import KINDS

from distillkit.errors import UsageError
from distillkit.models.references import WidthCut, parse_reference
from distillkit.models.shape import model_shape
from distillkit.models.width_shape import FAMILIES, narrowed_config, narrowed_sizes

# The shapes of SmolLM2-135M, Llama-3.2-1B and gpt2.
SMOL: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9,
    "num_key_value_heads": 3, "num_hidden_layers": 30, "vocab_size": 49152, "tie_word_embeddings": True,
}  # fmt: skip
LLAMA: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192, "num_attention_heads": 32,
    "num_key_value_heads": 8, "head_dim": 64,
}  # fmt: skip
GPT2: dict[str, Any] = {"model_type": "gpt2"}


def cut(text: str) -> WidthCut:
    width = parse_reference(f"teacher:{text}", role="student").width
    assert width is not None
    return width


def sizes(config: dict[str, Any], text: str) -> tuple[int, int, int]:
    values = {name: value for name, value in config.items() if name != "model_type"}
    found = narrowed_sizes(AutoConfig.for_model(config["model_type"], **values), cut(text))
    return found.ffn, found.groups, found.hidden


@pytest.mark.parametrize(
    ("config", "text", "wanted"),
    [
        (SMOL, "ffn=0.5", (768, 3, 576)),
        (SMOL, "ffn=0.33", (504, 3, 576)),  # 506.88: the nearest multiple of 8
        (SMOL, "ffn=0.0001", (8, 3, 576)),
        (SMOL, "ffn=0.9999", (1536, 3, 576)),
        (SMOL, "ffn=777", (777, 3, 576)),  # A count is what was asked for.
        (SMOL, "ffn=1", (1536, 3, 576)),
        (SMOL, "heads=0.67", (1536, 2, 576)),
        (SMOL, "heads=0.1", (1536, 1, 576)),
        (SMOL, "heads=2", (1536, 2, 576)),
        (SMOL, "hidden=0.75", (1536, 3, 432)),
        (SMOL, "hidden=0.7", (1536, 3, 432)),  # 403.2: a multiple of 8 and of the 9 query heads
        (SMOL, "hidden=0.7,heads=2", (1536, 2, 408)),  # of 8 and of 6
        (SMOL, "hidden=0.01", (1536, 3, 72)),
        (LLAMA, "heads=0.5,hidden=0.3", (8192, 4, 608)),
        (GPT2, "hidden=0.5", (3072, 6, 384)),
        (GPT2, "hidden=0.7", (3072, 8, 512)),
        (GPT2, "hidden=0.001", (3072, 1, 64)),
        (GPT2, "hidden=640,ffn=0.25", (768, 10, 640)),
        (GPT2, "heads=0.5,hidden=0.5", (3072, 6, 384)),
        (GPT2, "heads=0.7,hidden=0.65", (3072, 8, 512)),
    ],
)
def test_sizes(config: dict[str, Any], text: str, wanted: tuple[int, int, int]) -> None:
    assert sizes(config, text) == wanted


@pytest.mark.parametrize(
    ("config", "text", "said", "hint"),
    [
        (SMOL, "ffn=2000", "has 1536 neurons in each layer, so ffn=2000", "ffn=1536"),
        (SMOL, "heads=9", "has 3 key/value groups, each with its 3 query heads, so heads=9", "heads=3"),
        (SMOL, "hidden=577", "has 576 numbers in a hidden state, so hidden=577", "hidden=576"),
        (SMOL, "hidden=400", "400 cannot be divided among 9 query heads", "heads=3,hidden=396"),
        (LLAMA, "heads=0.75", "2048 cannot be divided among 24 query heads", "heads=6,hidden=2040"),
        (LLAMA, "heads=3", "2048 cannot be divided among 12 query heads", "heads=2,hidden=2048"),
        (GPT2, "heads=0.5", "6 heads of 64 numbers do not make a hidden size of 768", "heads=6,hidden=384"),
        (GPT2, "heads=0.05", "1 heads of 64", "heads=0.0833,hidden=64"),
        (GPT2, "hidden=500", "8 heads of 64 numbers do not make a hidden size of 500", "heads=8,hidden=512"),
        (GPT2, "heads=0.5,hidden=0.75", "6 heads of 64", "heads=9,hidden=576"),
        (GPT2, "heads=13,hidden=0.5", "has 12 attention heads, so heads=13", "heads=12"),
    ],
)
def test_what_cannot_be_had(config: dict[str, Any], text: str, said: str, hint: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)) as caught:
        sizes(config, text)
    assert caught.value.hint is not None
    assert hint in caught.value.hint
    for proposed in re.findall(r"heads=[\d.]*\d,hidden=\d+", caught.value.hint):
        assert sizes(config, proposed)  # It can be had.


def test_other_architectures() -> None:
    for config in ({"model_type": "gpt_neox"}, {"model_type": "gemma"}, {"model_type": "no such"}, {}):
        with pytest.raises(UsageError, match="cannot be cut") as caught:
            narrowed_config(config, WidthCut(ffn=0.5))
        assert all(kind in (caught.value.hint or "") for kind in FAMILIES)


def test_which_configurations_want_the_heads_to_divide_the_hidden_size() -> None:
    """As transformers has it: where that changes, so does what may be cut."""
    for kind, settings in KINDS.items():
        if settings["model_type"] == "gpt2":
            continue
        built = model_shape({**settings, "hidden_size": 30, "head_dim": 8})
        assert (built is None) == (settings["model_type"] == "llama"), kind


def test_a_configuration_that_leaves_things_out() -> None:
    found = narrowed_config({**SMOL, "of_the_authors": 1}, cut("hidden=0.75,ffn=0.5"))
    assert found["head_dim"] == 64
    assert found["of_the_authors"] == 1
    assert (found["hidden_size"], found["intermediate_size"]) == (432, 768)
    assert "head_dim" not in SMOL
    alias = narrowed_config({"model_type": "gpt2", "hidden_size": 768, "num_attention_heads": 12}, cut("hidden=0.5"))
    assert alias == {"model_type": "gpt2", "n_embd": 384, "n_head": 6, "n_inner": 3072}


def test_a_shape_of_a_real_model() -> None:
    """SmolLM2-135M: 134.5 million parameters, of which 30 layers x 3 matrices x 576 x 768 are cut."""
    whole, narrowed = model_shape(SMOL), model_shape(narrowed_config(SMOL, cut("ffn=0.5")))
    assert whole is not None
    assert narrowed is not None
    assert whole.parameters - narrowed.parameters == 30 * 3 * 576 * 768

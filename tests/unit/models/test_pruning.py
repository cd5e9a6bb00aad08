"""The teacher with some of its layers: an independent model that saves, loads and writes like any other."""

from __future__ import annotations

import copy
import inspect
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import tiny_model
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig

from distillkit.errors import UsageError
from distillkit.models.pruning import decoder_blocks, evenly_spaced, keep_layers

FAMILIES = ["gpt2", "llama", "qwen2", "gpt_neox"]
IDS = torch.arange(1, 13)[None]


@given(total=st.integers(1, 200), share=st.floats(0, 1))
def test_evenly_spaced(total: int, share: float) -> None:
    count = 1 + int(share * (total - 1))
    found = evenly_spaced(count, total)
    assert len(found) == count == len(set(found))
    assert found == sorted(found)
    assert found[0] == 0
    assert found[-1] == total - 1 or count == 1
    steps = [after - before for before, after in itertools.pairwise(found)]
    assert not steps or max(steps) - min(steps) <= 1


def test_evenly_spaced_known() -> None:
    assert evenly_spaced(4, 12) == [0, 4, 7, 11]
    assert evenly_spaced(10, 30)[:3] == [0, 3, 6]
    assert evenly_spaced(3, 3) == [0, 1, 2]


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS, use_cache=False).logits


def layer_weights(model: nn.Module) -> list[dict[str, torch.Tensor]]:
    return [block.state_dict() for block in decoder_blocks(model)[2]]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("layers", "kept"), [(2, [0, 4]), (3, [0, 2, 4]), ((0, 3), [0, 3]), ((1, 2, 4), [1, 2, 4]), ((2,), [2])])  # fmt: skip
def test_the_right_layers_are_kept(family: str, layers: Any, kept: list[int]) -> None:
    model = tiny_model(family, 60, layers=5)
    pruned = keep_layers(model, layers)
    for got, wanted in zip(layer_weights(pruned), [layer_weights(model)[index] for index in kept], strict=True):
        assert got.keys() == wanted.keys()
        assert all(torch.equal(got[name], wanted[name]) for name in got)
    assert pruned.get_input_embeddings().weight.equal(model.get_input_embeddings().weight)  # type: ignore[operator]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_teacher_stays_as_it_is(family: str) -> None:
    model = tiny_model(family, 60, layers=4)
    before, config, weights = logits(model), model.config.to_dict(), copy.deepcopy(model.state_dict())
    pruned = keep_layers(model, 2)
    with torch.no_grad():
        for parameter in pruned.parameters():
            parameter.add_(1.0)
    assert torch.equal(logits(model), before)
    assert model.config.to_dict() == config
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())
    assert [block.state_dict().keys() for block in decoder_blocks(model)[2]] == [
        block.state_dict().keys() for block in decoder_blocks(tiny_model(family, 60, layers=4))[2]
    ]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layers", [1, 2, (1, 3)])
def test_saved_and_loaded_again(tmp_path: Path, family: str, layers: Any) -> None:
    pruned: Any = keep_layers(tiny_model(family, 60, layers=4), layers)
    pruned.save_pretrained(tmp_path)
    again, report = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert len(decoder_blocks(again)[2]) == len(decoder_blocks(pruned)[2])
    assert torch.equal(logits(again.eval()), logits(pruned))


@pytest.mark.parametrize("family", FAMILIES)
def test_writing_with_a_cache_is_writing_without(family: str) -> None:
    pruned: Any = keep_layers(tiny_model(family, 60, layers=5), (1, 3, 4))
    written = [
        pruned.generate(IDS, attention_mask=torch.ones_like(IDS), max_new_tokens=12, do_sample=False, pad_token_id=0,
                        use_cache=cached)
        for cached in (True, False)
    ]  # fmt: skip
    assert torch.equal(*written)
    assert written[0].shape[1] == IDS.shape[1] + 12
    with torch.no_grad():
        begun = pruned(input_ids=IDS[:, :8], use_cache=True)
        # transformers 5.24 renamed it.
        name = "cache" if "cache" in inspect.signature(pruned.forward).parameters else "past_key_values"
        state = begun.get(name, begun.past_key_values)
        rest = pruned(input_ids=IDS[:, 8:], **{name: state}, use_cache=True).logits
    assert torch.allclose(rest, logits(pruned)[:, 8:], atol=1e-5)
    # One entry for each layer that is left: the others have no place in the cache.
    assert len(state) == 3


def test_all_layers_are_the_model_itself() -> None:
    model = tiny_model("gpt2", 60, layers=3)
    assert torch.equal(logits(keep_layers(model, 3)), logits(model))


def test_lists_per_layer_are_cut_too() -> None:
    kinds = ["full_attention", "sliding_attention", "full_attention", "sliding_attention"]
    model = tiny_model("qwen2", 60, layers=4, layer_types=kinds, use_sliding_window=True, sliding_window=4)
    pruned: Any = keep_layers(model, (0, 3))
    assert pruned.config.layer_types == ["full_attention", "sliding_attention"]
    assert pruned.config.num_hidden_layers == 2
    assert model.config.layer_types == kinds


@pytest.mark.parametrize("layers", [5, 1000, (0, 4), (0, 1, 2, 3, 9)])
def test_more_layers_than_there_are(layers: Any) -> None:
    model = tiny_model("llama", 60, layers=4)
    with pytest.raises(UsageError, match="has 4 layers") as caught:
        keep_layers(model, layers)
    assert ("teacher:4" if isinstance(layers, int) else "0 to 3") in (caught.value.hint or "")
    assert len(decoder_blocks(model)[2]) == 4


def test_layers_that_cannot_be_told_apart() -> None:
    model = tiny_model("llama", 60, layers=3)
    model.add_module("others", nn.ModuleList(nn.Linear(2, 2) for _ in range(3)))
    with pytest.raises(UsageError, match="cannot be told apart") as caught:
        keep_layers(model, 2)
    assert caught.value.hint
    keep_layers(tiny_model("llama", 60, layers=3), 2)


def test_a_configuration_without_a_number_of_layers() -> None:
    model = nn.Linear(2, 2)
    model.config = PreTrainedConfig()  # type: ignore[assignment]
    with pytest.raises(UsageError, match="does not say how many layers"):
        keep_layers(model, 2)

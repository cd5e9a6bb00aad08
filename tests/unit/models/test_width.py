"""Narrower students: what is cut away did nothing, what is left does most, and what is saved is what is loaded."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM
from width_models import FFN, HEAD, HIDDEN, KINDS, LAYERS, width_model

from distillkit.errors import UsageError
from distillkit.models.pruning import keep_layers
from distillkit.models.references import WidthCut
from distillkit.models.shape import model_shape
from distillkit.models.student_files import save_student
from distillkit.models.width import narrow
from distillkit.models.width_shape import family_of, narrowed_config, sizes_of

TEXTS = [torch.arange(1, 25).view(2, 12), torch.tensor([[40, 3, 3, 59, 7]])]
# Both at once where the heads together are as wide as a hidden state.
CUTS = {"ffn": WidthCut(ffn=0.5), "heads and hidden": WidthCut(heads=0.5, hidden=0.5)}
ALL = WidthCut(ffn=0.5, heads=0.5, hidden=0.5)
# The size of a head is no longer that of the hidden state divided by the heads.
COLUMNS = WidthCut(hidden=0.5)


@torch.no_grad()
def logits(model: Any) -> Tensor:
    return torch.cat([model(input_ids=text, use_cache=False).logits.flatten(0, 1) for text in TEXTS])


def half(total: int, seed: int) -> Tensor:
    return torch.randperm(total, generator=torch.Generator().manual_seed(seed))[: total // 2].sort().values


@torch.no_grad()
def silence_neurons(model: Any, layer: int, neurons: Tensor) -> None:
    """Nothing arrives at the down-projection."""
    mlp = model.get_submodule(family_of(model.config).blocks)[layer].mlp
    if hasattr(mlp, "c_fc"):
        mlp.c_fc.weight[:, neurons] = mlp.c_fc.bias[neurons] = 0
    else:
        mlp.up_proj.weight[neurons] = 0
        if mlp.up_proj.bias is not None:
            mlp.up_proj.bias[neurons] = 0


@torch.no_grad()
def silence_groups(model: Any, layer: int, groups: Tensor) -> None:
    """Their values are zero."""
    block = model.get_submodule(family_of(model.config).blocks)[layer]
    width = sizes_of(model.config).head
    numbers = torch.cat([torch.arange(group * width, (group + 1) * width) for group in groups.tolist()])
    if hasattr(block, "attn"):
        block.attn.c_attn.weight[:, 2 * HIDDEN + numbers] = block.attn.c_attn.bias[2 * HIDDEN + numbers] = 0
        return
    block.self_attn.v_proj.weight[numbers] = 0
    if block.self_attn.v_proj.bias is not None:
        block.self_attn.v_proj.bias[numbers] = 0


@torch.no_grad()
def silence_columns(model: Any, columns: Tensor) -> None:
    """Nothing writes into them; LayerNorm's mean, which they would change, is zero."""
    left = torch.tensor([column for column in range(HIDDEN) if column not in columns.tolist()])
    for name, weights in model.named_parameters():
        path = name.split(".")
        if path[-2] in ("ln_1", "ln_2", "ln_f") and path[-1] == "bias":
            weights[columns] = 0
        elif path[-2] in ("embed_tokens", "wte", "wpe") or path[-2] == "c_proj":
            weights[..., columns] = 0
            if model.config.model_type == "gpt2":
                weights[..., left] -= weights[..., left].mean(-1, keepdim=True)
        elif path[-2] in ("o_proj", "down_proj"):
            weights[columns] = 0


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_does_nothing_is_cut_and_nothing_changes(kind: str, cut: str) -> None:
    model = width_model(kind)
    sizes = sizes_of(model.config)
    silent = {layer: (half(sizes.ffn, seed=layer), half(sizes.groups, seed=10 + layer)) for layer in range(LAYERS)}
    columns = half(HIDDEN, seed=20)
    for layer, (neurons, groups) in silent.items():
        if cut == "ffn":
            silence_neurons(model, layer, neurons)
        else:
            silence_groups(model, layer, groups)
    if cut != "ffn":
        silence_columns(model, columns)
    narrowed = narrow(model, CUTS[cut], TEXTS)
    record = narrowed.record
    if cut == "ffn":
        assert narrowed.hidden_columns is None
        assert record["sizes"]["ffn"] == [sizes.ffn, sizes.ffn // 2]
        assert record["kept_importance"] == {"ffn": [1.0] * LAYERS}
    else:
        assert narrowed.hidden_columns is not None
        assert set(narrowed.hidden_columns.tolist()) == set(range(HIDDEN)) - set(columns.tolist())
        for layer, (_, groups) in silent.items():
            assert set(record["kept_groups"][layer]) == set(range(sizes.groups)) - set(groups.tolist())
        assert record["kept_importance"]["hidden"] == [1.0]
        # Half of the columns are zero, so that the others' mean square is twice that of all.
        assert record["norm_scales"] == pytest.approx([0.5**-0.5] * 2, rel=1e-4)
    assert torch.allclose(logits(narrowed.model), logits(model), atol=2e-4, rtol=1e-4)
    assert logits(model).std() > 0.1


@pytest.mark.parametrize("width", [ALL, COLUMNS])
@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded_again(tmp_path: Path, kind: str, width: WidthCut) -> None:
    model = width_model(kind)
    narrowed: Any = narrow(model, width, TEXTS).model
    narrowed.save_pretrained(tmp_path)
    again, report = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert torch.equal(logits(again.eval()), logits(narrowed))
    assert sizes_of(again.config).head == sizes_of(model.config).head
    assert not torch.allclose(logits(narrowed), logits(model), atol=0.1)


@pytest.mark.parametrize("width", [WidthCut(ffn=0.5), COLUMNS])
@pytest.mark.parametrize("kind", KINDS)
def test_saved_like_its_origin(tmp_path: Path, kind: str, width: WidthCut) -> None:
    """An origin's config.json leaves to be derived what is derived otherwise from the new sizes."""
    model = width_model(kind)
    origin, target = tmp_path / "origin", tmp_path / "saved"
    model.save_pretrained(origin)
    target.mkdir()
    config = json.loads((origin / "config.json").read_text())
    if config.get("head_dim") == HIDDEN // 4:
        del config["head_dim"]
    if config.get("n_inner", 0) is None:
        del config["n_inner"]
    (origin / "config.json").write_text(json.dumps(config))
    narrowed: Any = narrow(AutoModelForCausalLM.from_pretrained(origin), width, TEXTS).model
    save_student(target, narrowed, origin)
    again = AutoModelForCausalLM.from_pretrained(target)
    assert torch.equal(logits(again.eval()), logits(narrowed))
    written = json.loads((target / "config.json").read_text())
    assert written.keys() - config.keys() <= {"head_dim", "n_inner"}


@pytest.mark.parametrize("kind", KINDS)
def test_the_configuration_tells_the_size_without_weights(kind: str) -> None:
    model = width_model(kind)
    shape = model_shape(narrowed_config(model.config.to_dict(), ALL))
    narrowed = narrow(model, ALL, TEXTS)
    count = sum(weights.numel() for weights in narrowed.model.parameters())
    assert shape is not None
    assert narrowed.record["parameters"] == [sum(weights.numel() for weights in model.parameters()), shape.parameters]
    assert count == shape.parameters
    assert (shape.width, shape.layers) == (HIDDEN // 2, LAYERS)


@pytest.mark.parametrize("kind", KINDS)
def test_the_teacher_stays_as_it_is(kind: str) -> None:
    model = width_model(kind)
    before, config, weights = logits(model), model.config.to_dict(), copy.deepcopy(model.state_dict())
    narrowed: Any = narrow(model, WidthCut(ffn=0.5), TEXTS).model
    with torch.no_grad():
        for parameter in narrowed.parameters():
            parameter.add_(1.0)
    assert torch.equal(logits(model), before)
    assert model.config.to_dict() == config
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_tied_stays_tied(kind: str) -> None:
    model = width_model(kind)
    narrowed: Any = narrow(model, ALL, TEXTS).model
    tied = narrowed.get_output_embeddings().weight is narrowed.get_input_embeddings().weight
    assert tied == bool(model.config.tie_word_embeddings)
    assert all(weights.requires_grad for weights in narrowed.parameters())


def test_the_order_of_what_is_left() -> None:
    model = width_model("llama")
    narrowed = narrow(model, WidthCut(heads=0.5), TEXTS)
    for layer, (group,) in enumerate(narrowed.record["kept_groups"]):
        own: Any = model.model.layers[layer].self_attn
        left: Any = narrowed.model.get_submodule(f"model.layers.{layer}.self_attn")
        # Two query heads to each group.
        assert torch.equal(left.q_proj.weight, own.q_proj.weight[group * 2 * HEAD : (group + 1) * 2 * HEAD])
        assert torch.equal(left.k_proj.weight, own.k_proj.weight[group * HEAD : (group + 1) * HEAD])
        assert torch.equal(left.o_proj.weight, own.o_proj.weight[:, group * 2 * HEAD : (group + 1) * 2 * HEAD])


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2"])
def test_width_and_layers_together(tmp_path: Path, kind: str) -> None:
    both: Any = keep_layers(narrow(width_model(kind), ALL, TEXTS).model, (0, 2))
    both.save_pretrained(tmp_path)
    again: Any = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(logits(again.eval()), logits(both))
    assert (again.config.num_hidden_layers, again.config.hidden_size) == (2, HIDDEN // 2)


def test_lists_per_layer_stay() -> None:
    kinds = ["full_attention", "sliding_attention", "full_attention"]
    model = width_model("qwen2", layer_types=kinds, use_sliding_window=True, sliding_window=4)
    narrowed: Any = narrow(model, ALL, TEXTS).model
    assert narrowed.config.layer_types == kinds
    assert [layer.self_attn.sliding_window for layer in narrowed.model.layers] == [None, 4, None]
    rotated: Any = narrow(width_model("smollm3", no_rope_layers=[1, 0, 1]), ALL, TEXTS).model
    assert [layer.self_attn.use_rope for layer in rotated.model.layers] == [1, 0, 1]


def test_all_of_it_is_the_model_itself() -> None:
    model = width_model("llama")
    narrowed = narrow(model, WidthCut(ffn=1.0, hidden=1.0), TEXTS)
    assert narrowed.hidden_columns is None
    assert torch.equal(logits(narrowed.model), logits(model))
    assert narrowed.record["sizes"] == {"ffn": [FFN, FFN], "heads": [2, 2], "hidden": [HIDDEN, HIDDEN]}


def test_the_format_of_the_weights_stays() -> None:
    model = width_model("qwen3").to(torch.bfloat16)
    narrowed: Any = narrow(model, ALL, TEXTS).model
    assert {weights.dtype for weights in narrowed.parameters()} == {torch.bfloat16}


def test_nothing_to_measure_on() -> None:
    with pytest.raises(ValueError, match="there is none"):
        narrow(width_model("llama"), ALL, [])


def test_weights_of_which_nothing_is_known() -> None:
    model = width_model("gpt2", add_cross_attention=True)
    with pytest.raises(UsageError, match="crossattention"):
        narrow(model, WidthCut(ffn=0.5), TEXTS)

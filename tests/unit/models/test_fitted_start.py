"""The closed-form start, against least squares by torch.linalg.lstsq in fp64 with the whole student run anew for each layer."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import torch
from tiny_models import tiny_model
from torch import Tensor, nn
from transformers import OPTConfig, OPTForCausalLM
from zoo_models import zoo_model

from distillkit.errors import Interrupted
from distillkit.models import fitted_start
from distillkit.models.block_chain import BlockChain, NotAChainError, boundary_states
from distillkit.models.fitted_start import LayerFit, fit_to_teacher, target_places
from distillkit.models.pruning import decoder_blocks, keep_layers

LAYERS = 6
PROJECTIONS = {
    "gpt2": ("attn.c_proj", "mlp.c_proj"), "llama": ("self_attn.o_proj", "mlp.down_proj"),
    "gpt_neox": ("attention.dense", "mlp.dense_4h_to_h"),
}  # fmt: skip


def batches(seed: int = 0) -> list[Tensor]:
    generator = random.Random(seed)
    return [torch.tensor([[generator.randrange(60) for _ in range(12)] for _ in range(rows)]) for rows in (5, 5, 3)]


TEXTS = batches()


def teacher_of(family: str, **settings: Any) -> Any:
    model: Any = tiny_model(family, 60, layers=LAYERS, hidden=16, seed=5, **settings).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for block in decoder_blocks(model)[2]:
            for parameter in block.parameters():
                if parameter.dim() > 1:
                    parameter.mul_(4)
                else:
                    parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return model


def states_of(model: nn.Module, places: Any) -> list[Tensor]:
    with BlockChain(model) as chain:
        return boundary_states(chain, TEXTS, list(places))


def fitted(model: Any, kept: list[int], **settings: Any) -> tuple[Any, list[LayerFit]]:
    student = keep_layers(model, kept)
    return student, fit_to_teacher(
        student, kept, states_of(model, target_places(kept, LAYERS)), TEXTS, **{"whole": True, **settings}
    )


def noted(module: nn.Module, *, first: bool = False) -> tuple[list[Tensor], Any]:
    """The rows that a module will be given (`first`) or give, and what ends it."""
    seen: list[Tensor] = []

    def note(_module: nn.Module, values: tuple[Tensor, ...], output: Tensor) -> None:
        value = values[0] if first else output
        seen.append(value.reshape(-1, value.shape[-1]))

    return seen, module.register_forward_hook(note)


def naive_fit(model: Any, kept: list[int], projections: tuple[str, str], columns: list[int] | None = None) -> Any:
    """Layer by layer, every text alone, with a student that is run from its beginning each time: attention's and the MLP's
    projection together, of which attention's part counts, then the MLP's alone."""
    student: Any = keep_layers(model, kept)
    for place in range(len(kept)):
        if kept[: place + 2] == list(range(place + 2)):
            continue
        attention, mlp = projections
        add_change(student, place, attention, naive_change(model, student, kept, place, (attention, mlp), columns))
        add_change(student, place, mlp, naive_change(model, student, kept, place, (mlp,), columns))
    return student


def naive_change(
    model: Any, student: Any, kept: list[int], place: int, projections: tuple[str, ...], columns: list[int] | None
) -> Tensor:
    block = decoder_blocks(student)[2][place]
    layers = [block.get_submodule(projection) for projection in projections]
    inputs = [noted(layer, first=True) for layer in layers]
    outputs, hook_out = noted(block)
    wanted, hook_of_teacher = noted(decoder_blocks(model)[2][[*kept[1:], LAYERS][place] - 1])
    with torch.no_grad():
        for row in torch.cat(TEXTS):
            student(input_ids=row[None], use_cache=False)
            model(input_ids=row[None], use_cache=False)
    for hook in (hook_out, hook_of_teacher, *(hook for _, hook in inputs)):
        hook.remove()
    a = torch.cat([torch.cat(seen) for seen, _ in inputs], dim=1)
    t = torch.cat(wanted) if columns is None else torch.cat(wanted)[:, columns]
    weights = 1 / t.norm(dim=1, keepdim=True)
    a, e = a * weights, (t - torch.cat(outputs)) * weights
    ridge = 0.3 * (a**2).sum(0).mean()
    if layers[-1].bias is not None:
        a = torch.cat([a, weights], dim=1)
    held_back = math.sqrt(ridge) * torch.eye(a.shape[1], dtype=torch.double)
    if layers[-1].bias is not None:
        held_back[-1, -1] = 0
    return torch.linalg.lstsq(
        torch.cat([a, held_back]), torch.cat([e, torch.zeros(a.shape[1], e.shape[1], dtype=torch.double)])
    ).solution


def add_change(student: Any, place: int, projection: str, change: Tensor) -> None:
    """What belongs to a projection: the first rows of the change, and of one that is for it alone the bias at its end."""
    layer = decoder_blocks(student)[2][place].get_submodule(projection)
    turned = projection.endswith("c_proj")
    count = layer.weight.shape[0 if turned else 1]
    with torch.no_grad():
        layer.weight.add_(change[:count] if turned else change[:count].T)
        if layer.bias is not None and len(change) == count + 1:
            layer.bias.add_(change[-1])


@pytest.mark.parametrize("family", list(PROJECTIONS))
@pytest.mark.parametrize(("kept", "columns"), [([0, 3, 5], 256), ([1, 2], 7), ([0, 1, 4], 32), ([4], 1)])
def test_against_least_squares(family: str, kept: list[int], columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many columns of the symmetric product are made at a time."""
    monkeypatch.setattr(fitted_start, "_COLUMNS", columns)
    model = teacher_of(family)
    student, fits = fitted(model, kept)
    wanted = naive_fit(model, kept, PROJECTIONS[family]).state_dict()
    own = student.state_dict()
    cut = keep_layers(model, kept).state_dict()
    assert own.keys() == wanted.keys()
    for name, value in own.items():
        assert torch.allclose(value, wanted[name], rtol=1e-7, atol=1e-9), name
    changed = {name for name, value in own.items() if not torch.equal(value, cut[name])}
    assert changed
    assert all(any(f"{one}." in name for one in PROJECTIONS[family]) for name in changed)
    assert [fit.layer for fit in fits] == kept
    for fit in fits:
        if fit.after is not None:
            assert 0 <= fit.after < fit.before


def test_the_errors_are_those_of_the_states() -> None:
    model = teacher_of("llama")
    kept = [0, 3, 5]
    _, fits = fitted(model, kept)
    targets = states_of(model, target_places(kept, LAYERS))
    cut = keep_layers(model, kept)
    after = states_of(naive_fit(model, kept, PROJECTIONS["llama"]), range(1, 4))
    first = states_of(cut, [1])[0]
    relative = lambda out, t: float((((out - t).norm(dim=1) / t.norm(dim=1)) ** 2).mean())  # noqa: E731
    assert fits[0].before == pytest.approx(relative(first, targets[0]), rel=1e-6)
    assert [fit.after for fit in fits] == pytest.approx(
        [relative(out, t) for out, t in zip(after, targets, strict=True)], rel=1e-6
    )


def test_a_larger_sample_is_closer_to_the_teacher() -> None:
    """What is fitted holds on other texts: the fitted student's logits are closer to the teacher's than the cut one's."""
    model = teacher_of("llama")
    student, _ = fitted(model, [0, 3, 5])
    others = torch.cat(batches(seed=9))
    with torch.no_grad():
        wanted = model(input_ids=others).logits
        apart = [
            float((made(input_ids=others).logits - wanted).square().mean())
            for made in (student, keep_layers(model, [0, 3, 5]))
        ]
    assert apart[0] < apart[1]


def test_the_layers_in_front_of_the_first_gap_stay() -> None:
    model = teacher_of("llama")
    student, fits = fitted(model, [0, 1, 2, 5])
    assert [fit.after is None for fit in fits] == [True, True, False, False]
    assert fits[0].before == pytest.approx(0, abs=1e-20)
    for place in (0, 1):
        own, wanted = (decoder_blocks(one)[2][place].state_dict() for one in (student, model))
        assert all(torch.equal(own[name], wanted[name]) for name in own)


def test_hidden_numbers_that_a_narrower_student_has() -> None:
    model = teacher_of("llama")
    columns = [0, 3, 5, 7, 8, 11, 12, 15]
    narrow: Any = tiny_model("llama", 60, layers=2, hidden=8, seed=8).double()
    kept = [0, 1]
    fits = fit_to_teacher(
        narrow, kept, states_of(model, target_places(kept, LAYERS)), TEXTS, whole=False, columns=torch.tensor(columns)
    )
    assert all(fit.after is not None for fit in fits)
    targets = states_of(model, [1])[0][:, columns]
    out = states_of(narrow, [1])[0]
    assert float((((out - targets).norm(dim=1) / targets.norm(dim=1)) ** 2).mean()) == pytest.approx(
        fits[0].after, rel=1e-6
    )


class _Doubled(nn.Module):
    """A residual that is scaled behind the projection."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, hidden: Tensor) -> Tensor:
        return self.inner(hidden) * hidden.mean(-1, keepdim=True).tanh()


def test_blocks_that_are_not_linear_in_their_last_projection() -> None:
    settings = {
        "vocab_size": 60, "hidden_size": 16, "num_hidden_layers": LAYERS, "ffn_dim": 32, "num_attention_heads": 4,
        "max_position_embeddings": 64, "word_embed_proj_dim": 16, "pad_token_id": 1,
    }  # fmt: skip
    torch.manual_seed(0)
    post_norm = OPTForCausalLM(OPTConfig(**settings, do_layer_norm_before=False)).eval().double()
    before = {name: value.clone() for name, value in keep_layers(post_norm, [0, 3]).state_dict().items()}
    student, fits = fitted(post_norm, [0, 3])
    assert all(fit.after is None and "not linear" in str(fit.why) for fit in fits)
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())

    scaled = teacher_of("llama")
    for block in scaled.model.layers[3:]:
        block.mlp = _Doubled(block.mlp)
    student = keep_layers(teacher_of("llama"), [0, 3])
    student.model.layers[1].mlp = _Doubled(student.model.layers[1].mlp)  # type: ignore[union-attr]
    fits = fit_to_teacher(student, [0, 3], states_of(scaled, target_places([0, 3], LAYERS)), TEXTS, whole=True)
    assert fits[0].after is not None
    assert "not linear" in str(fits[1].why)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pre_norm = OPTForCausalLM(OPTConfig(**settings)).eval().double()
    _, fits = fitted(pre_norm, [0, 3])
    assert all(fit.after is not None for fit in fits)


def test_a_weight_that_others_have_too_stays() -> None:
    model = teacher_of("llama")
    student: Any = keep_layers(model, [0, 3, 5])
    student.model.layers[2].mlp.down_proj.weight = student.model.layers[0].mlp.down_proj.weight
    own = student.model.layers[0].mlp.down_proj.weight.detach().clone()
    fits = fit_to_teacher(student, [0, 3, 5], states_of(model, [3, 5, 6]), TEXTS, whole=True)
    assert [fit.after is None for fit in fits] == [True, False, True]
    assert torch.equal(student.model.layers[0].mlp.down_proj.weight, own)


@pytest.mark.parametrize("tied", [True, False])
def test_tied_embeddings_stay_tied_and_as_they_are(tied: bool) -> None:
    model = teacher_of("llama", tie_word_embeddings=tied)
    student, fits = fitted(model, [0, 4])
    assert all(fit.after is not None for fit in fits)
    table, head = student.get_input_embeddings().weight, student.get_output_embeddings().weight
    assert (table is head) == tied
    assert torch.equal(table, model.get_input_embeddings().weight)


def test_targets_that_are_no_numbers_change_nothing() -> None:
    model = teacher_of("llama")
    kept = [0, 3]
    student = keep_layers(model, kept)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    targets = states_of(model, target_places(kept, LAYERS))
    targets[0][3, 2], targets[1][0, 0] = math.nan, math.inf
    fits = fit_to_teacher(student, kept, targets, TEXTS, whole=True)
    assert [fit.after for fit in fits] == [None, None]
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())


def test_the_same_twice() -> None:
    model = teacher_of("gpt2")
    one, other = (fitted(model.float(), [0, 4])[0].state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_signal_stops_the_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop() -> None:
        raise Interrupted(15, "stopped")

    model = teacher_of("llama")
    monkeypatch.setattr(fitted_start, "check_interrupted", stop)
    with pytest.raises(Interrupted):
        fitted(model, [0, 3])


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("falcon", None),  # attention and feed-forward side by side
        ("bloom", None),
        ("mamba", None),  # no attention
        ("gemma2", "not linear"),  # a norm behind the projection
        ("qwen2_moe", "not linear"),  # a gate behind the shared expert
        ("rwkv", "not linear"),
    ],
)
def test_architectures(kind: str, why: str | None) -> None:
    model = zoo_model(kind).eval()
    total = len(decoder_blocks(model)[2])
    kept = [0, total - 1] if kind == "rwkv" else [0, 2]
    student = keep_layers(model, kept)
    fits = fit_to_teacher(student, kept, states_of(model, target_places(kept, total)), TEXTS, whole=True)
    for fit in fits:
        assert (fit.after is not None and fit.after < fit.before) if why is None else why in str(fit.why)


def test_states_that_are_not_one_for_each_token() -> None:
    model = zoo_model("deepseek_v4").eval()
    with pytest.raises(NotAChainError, match="other states than one for each token"):
        fit_to_teacher(model, [0], [], TEXTS, whole=True)

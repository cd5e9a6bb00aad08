"""Which layers each way keeps, against whole forward passes of whole models in fp64."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import tiny_model
from torch import Tensor, nn
from zoo_models import zoo_model

from distillkit.console import Console
from distillkit.errors import Interrupted
from distillkit.models import layer_scores
from distillkit.models.block_chain import BlockChain, NotAChainError, boundary_states, mean_loss
from distillkit.models.layer_choice import LayerChoice, choose_layers
from distillkit.models.layer_scores import influence, removals, turning
from distillkit.models.pruning import decoder_blocks, evenly_spaced, keep_layers, nearest_savable

FAMILIES = ["gpt2", "llama", "qwen2", "gpt_neox"]
LAYERS = 7
QUIET = Console(quiet=True)


def texts(count: int = 6, length: int = 12, seed: int = 0) -> Tensor:
    generator = random.Random(seed)
    return torch.tensor([[generator.randrange(60) for _ in range(length)] for _ in range(count)])


IDS = texts()


def opinionated(family: str, seed: int = 3) -> Any:
    """A model in fp64 whose layers differ: random weights of the usual size hardly change a thing."""
    model: Any = tiny_model(family, 60, layers=LAYERS, seed=seed).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for block in decoder_blocks(model)[2]:
            size = 2.0 + 6.0 * float(torch.rand((), generator=generator))
            for parameter in block.parameters():
                if parameter.dim() > 1:
                    parameter.mul_(size)
    return model


def without_effect(model: Any, layer: int) -> None:
    """Make a Llama layer hand on what it is given."""
    with torch.no_grad():
        model.model.layers[layer].self_attn.o_proj.weight.zero_()
        model.model.layers[layer].mlp.down_proj.weight.zero_()


def written_by(model: Any, count: int = 3, length: int = 10) -> Tensor:
    """Texts that the model itself prefers: without a layer that has a part in them it does worse."""
    with torch.no_grad():
        model.lm_head.weight.mul_(20)
        ids = torch.arange(count)[:, None] + 5
        while ids.shape[1] < length:
            ids = torch.cat([ids, model(input_ids=ids).logits[:, -1:].argmax(-1)], dim=1)
    return ids


# --- the naive ways --------------------------------------------------------------------------------------------------


def naive_loss(model: Any, ids: Tensor) -> float:
    """By transformers' own loss, text by text."""
    with torch.no_grad():
        return sum(float(model(input_ids=row[None], labels=row[None]).loss) for row in ids) / len(ids)


def naive_states(model: Any, ids: Tensor) -> np.ndarray:
    """[L + 1, tokens, d], of each text alone; the last one is what the final norm reads."""
    final_norm = next(module for name, module in model.base_model.named_children() if "norm" in name or name == "ln_f")
    last: list[Tensor] = []
    hook = final_norm.register_forward_pre_hook(lambda _module, values: last.append(values[0]))
    states = []
    with torch.no_grad():
        for row in ids:
            found = model.base_model(input_ids=row[None], output_hidden_states=True).hidden_states
            states.append(torch.cat([*found[:-1], last[-1]]).numpy())
    hook.remove()
    return np.concatenate(states, axis=1)


def naive_cosines(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    return (before * after).sum(-1) / np.linalg.norm(before, axis=-1) / np.linalg.norm(after, axis=-1)


def naive_greedy(model: Any, ids: Tensor, scores: Sequence[float], count: int) -> list[tuple[int, float]]:
    kept, gone = list(range(LAYERS)), []
    while len(kept) > count:
        losses = {
            layer: naive_loss(keep_layers(model, [other for other in kept if other != layer]), ids)
            for layer in sorted(kept, key=lambda layer: scores[layer])[:4]
        }
        layer = min(losses, key=lambda layer: losses[layer])
        kept.remove(layer)
        gone.append((layer, losses[layer]))
    return gone


# --- chains ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_a_chain_is_the_model(family: str) -> None:
    model = opinionated(family)
    with torch.no_grad():
        plain = model(input_ids=IDS).logits
    with BlockChain(model) as chain:
        chain.check(IDS)
        states, logits = chain.run(IDS, places=[3], head=True)
        assert logits is not None
        assert torch.equal(logits, plain)
        # From the middle on, without what is before it.
        _, again = chain.run(IDS, start=3, state=states[3], head=True)
        assert again is not None
        assert torch.allclose(again, plain, rtol=1e-12, atol=1e-12)
        _, some = chain.run(IDS, kept=(0, 2, 6), head=True)
    with torch.no_grad():
        wanted = keep_layers(model, (0, 2, 6))(input_ids=IDS).logits
        assert some is not None
        assert torch.allclose(some, wanted, rtol=1e-12, atol=1e-12)
        # Outside of the context it is as it was.
        assert torch.equal(model(input_ids=IDS).logits, plain)
    assert all("forward" not in vars(block) for block in decoder_blocks(model)[2])


class _Secret(nn.Module):
    """A block that leaves something for the next one beside the hidden states."""

    def __init__(self, inner: nn.Module, shared: dict[str, Tensor]) -> None:
        super().__init__()
        self.inner, self.shared = inner, shared

    def forward(self, hidden: Tensor, *values: Any, **named: Any) -> Any:
        left = self.shared.get("left")
        self.shared["left"] = hidden.mean() * 5
        return self.inner(hidden if left is None else hidden + left, *values, **named)


def test_blocks_that_hand_on_more_than_hidden_states() -> None:
    model = opinionated("llama")
    shared: dict[str, Tensor] = {}
    for index in range(LAYERS):
        model.model.layers[index] = _Secret(model.model.layers[index], shared)
    with BlockChain(model) as chain:
        with pytest.raises(NotAChainError):
            chain.check(IDS)
        choice = choose_layers("greedy", 3, LAYERS, lambda batches, places: [], chain, [IDS], IDS, QUIET)
    assert (choice.way, choice.kept) == ("even", evenly_spaced(3, LAYERS))
    assert "cannot be measured" in choice.remarks[0]


class _Wrapped(nn.Module):
    """A block that gives its hidden states among other things, as older architectures do."""

    def __init__(self, inner: nn.Module, kind: Any) -> None:
        super().__init__()
        self.inner, self.kind = inner, kind

    def forward(self, hidden: Any, *values: Any, **named: Any) -> Any:
        return self.kind([self.inner(hidden, *values, **named), "other"])


class _Unwrapping(nn.Module):
    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, hidden: Any) -> Any:
        return self.norm(hidden[0])


@pytest.mark.parametrize("kind", [tuple, list])
def test_blocks_that_give_more_than_a_tensor(kind: Any) -> None:
    plain, wrapped = opinionated("llama"), opinionated("llama")
    for index, block in enumerate(wrapped.model.layers):
        wrapped.model.layers[index] = _Wrapped(block, kind)
    wrapped.model.norm = _Unwrapping(wrapped.model.norm)
    with BlockChain(wrapped) as chain:
        # The model itself takes the first of each, which the loop of this Llama does not.
        own = [block.forward for block in chain.blocks]
        for block, forward in zip(chain.blocks, own, strict=True):
            block.forward = lambda hidden, *values, _own=forward, **named: _own(
                hidden[0] if isinstance(hidden, kind) else hidden, *values, **named
            )
        chain.check(IDS)
        states, _ = chain.run(IDS, places=range(LAYERS + 1))
        some, _ = chain.run(IDS, kept=(1, 4), places=[LAYERS])
    with BlockChain(plain) as chain:
        wanted, _ = chain.run(IDS, places=range(LAYERS + 1))
        wanted_some, _ = chain.run(IDS, kept=(1, 4), places=[LAYERS])
    assert all(torch.equal(states[place], wanted[place]) for place in range(LAYERS + 1))
    assert torch.equal(some[LAYERS], wanted_some[LAYERS])


def test_the_mean_loss() -> None:
    model = opinionated("gpt2")
    with torch.no_grad():
        found = mean_loss(model(input_ids=IDS).logits, IDS)
    assert found == pytest.approx(naive_loss(model, IDS), rel=1e-5)


# --- scores ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_influence_and_turning(family: str) -> None:
    model = opinionated(family)
    states = naive_states(model, IDS)
    with BlockChain(model) as chain:
        found = boundary_states(chain, list(IDS.split(4)), range(LAYERS + 1))
    wanted = [1 - naive_cosines(states[layer], states[layer + 1]).mean() for layer in range(LAYERS)]
    assert influence(found) == pytest.approx(wanted, rel=1e-9)
    angles = [
        np.arccos(naive_cosines(states[first], states[first + 3])).mean() / math.pi for first in range(LAYERS - 2)
    ]
    assert turning(found, 3) == pytest.approx(angles, rel=1e-9)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_each_way_against_whole_passes(family: str) -> None:
    model = opinionated(family)
    states = naive_states(model, IDS)
    scores = [1 - naive_cosines(states[layer], states[layer + 1]).mean() for layer in range(LAYERS)]
    trial = texts(3, 10, seed=1)
    choices = {}
    for way in ("influence", "contiguous", "perplexity", "greedy", "even"):
        with BlockChain(model) as chain:
            choices[way] = choose_layers(
                way, 3, LAYERS, lambda batches, places, chain=chain: boundary_states(chain, batches, places), chain,
                list(IDS.split(4)), trial, QUIET,
            )  # fmt: skip
        assert choices[way].way == way
        assert not choices[way].remarks
    assert choices["influence"].kept == sorted(np.argsort(scores)[-3:].tolist())
    gone = 4
    rows = [naive_cosines(states[first], states[first + gone]) for first in range(LAYERS - gone + 1)]
    first = int(np.argmin([np.arccos(row).mean() for row in rows]))
    assert choices["contiguous"].kept == [layer for layer in range(LAYERS) if not first <= layer < first + gone]
    everyone = range(LAYERS)
    losses = [
        naive_loss(keep_layers(model, [other for other in everyone if other != layer]), trial) for layer in everyone
    ]
    assert choices["perplexity"].losses_without == pytest.approx(losses, rel=1e-5)
    assert choices["perplexity"].kept == sorted(np.argsort(losses)[-3:].tolist())
    wanted = naive_greedy(model, trial, scores, 3)
    removed = choices["greedy"].removed
    assert removed is not None
    assert [one.layer for one in removed] == [layer for layer, _ in wanted]
    assert [one.loss for one in removed] == pytest.approx([loss for _, loss in wanted], rel=1e-5)
    assert choices["greedy"].kept == [layer for layer in everyone if layer not in dict(wanted)]
    assert choices["even"].kept == evenly_spaced(3, LAYERS)
    # The ways do not agree by chance: that they differ shows that each was tested.
    assert len({tuple(choice.kept) for choice in choices.values()}) >= 3


@pytest.mark.parametrize("way", ["greedy", "influence", "perplexity", "contiguous"])
@pytest.mark.parametrize("idle", [1, 4])
def test_a_layer_without_effect_goes_first(way: str, idle: int) -> None:
    model = opinionated("llama")
    without_effect(model, idle)
    trial = written_by(model)
    with BlockChain(model) as chain:
        choice = choose_layers(
            way, LAYERS - 1, LAYERS, lambda batches, places: boundary_states(chain, batches, places), chain, [IDS],
            trial, QUIET,
        )  # fmt: skip
        _, logits = chain.run(IDS, kept=choice.kept, head=True)
    assert choice.kept == [layer for layer in range(LAYERS) if layer != idle]
    assert choice.influence is not None
    assert choice.influence[idle] == pytest.approx(0, abs=1e-12)
    with torch.no_grad():
        assert logits is not None
        assert torch.equal(logits, model(input_ids=IDS).logits)


def test_one_pass_teachers_fall_back_to_influence() -> None:
    model = opinionated("llama")
    with BlockChain(model) as chain:
        states = lambda batches, places: boundary_states(chain, batches, places)  # noqa: E731
        whole = choose_layers("influence", 3, LAYERS, states, chain, [IDS], IDS, QUIET)
        for way in ("greedy", "perplexity"):
            streamed = choose_layers(way, 3, LAYERS, states, None, [IDS], IDS, QUIET)
            assert (streamed.way, streamed.kept) == ("influence", whole.kept)
            assert f"--layer-choice {way}" in streamed.remarks[0]
        assert not choose_layers("contiguous", 3, LAYERS, states, None, [IDS], IDS, QUIET).remarks


def test_a_teacher_that_gives_no_numbers() -> None:
    model = opinionated("llama")
    with torch.no_grad():
        model.model.layers[2].mlp.down_proj.weight[0, 0] = math.nan
    with BlockChain(model) as chain:
        choice = choose_layers(
            "greedy",
            3,
            LAYERS,
            lambda batches, places: boundary_states(chain, batches, places),
            chain,
            [IDS],
            IDS,
            QUIET,
        )
    assert choice.kept == evenly_spaced(3, LAYERS)
    assert choice.remarks


def test_a_signal_stops_the_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def stop() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise Interrupted(15, "stopped")

    monkeypatch.setattr(layer_scores, "check_interrupted", stop)
    with BlockChain(opinionated("gpt2")) as chain, pytest.raises(Interrupted):
        removals(chain, IDS, [0.1] * LAYERS, 2, lambda: None)
    assert len(calls) == 3


def test_the_record_of_a_choice() -> None:
    choice = LayerChoice("influence", [0, 2], 3, tokens=8, influence=[0.5, math.nan, 1 / 3])
    assert choice.record() == {
        "way": "influence", "layers": 3, "kept": [0, 2], "tokens": 8, "influence": [0.5, None, 0.333333],
    }  # fmt: skip


def test_choices_that_cannot_be_saved() -> None:
    # The first layer alone has a norm in front of it.
    model = zoo_model("rwkv")
    assert nearest_savable(model, [0, 2]) == [0, 2]
    assert nearest_savable(model, [1, 2]) == [0, 2]
    choice = LayerChoice("influence", [1, 2], 4).but([0, 2], "why")
    assert (choice.kept, choice.remarks) == ([0, 2], ["why"])

"""The chunked loss gives the value and gradients of the plain form on whole logits."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from plain_objective import combine, cross_vocabulary_terms
from torch._dynamo.utils import counters

from distillkit import registry
from distillkit.losses.chunked import StudentOutput, chunked_loss, token_log_probs
from distillkit.losses.divergences import Divergence
from distillkit.losses.linear_head import LinearHead
from distillkit.losses.target_rows import target_rows
from distillkit.losses.tempered import SoftLoss

B, T, D, V = 3, 9, 6, 23
ALPHA, BETA = 0.6, 0.3


@dataclass
class Targets:
    rows: torch.Tensor
    values: torch.Tensor

    def log_target(self, begin: int, end: int, columns: int) -> torch.Tensor:
        assert columns == self.values.shape[1]
        return self.values[begin:end]


@dataclass
class PlainValues(Targets):
    """The same as weights, each row times another factor."""

    def target(self, begin: int, end: int, columns: int) -> torch.Tensor:
        return self.values[begin:end].exp() * torch.arange(begin + 1, end + 1)[:, None]


class Case:
    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        generator = torch.Generator().manual_seed(3)

        def drawn(*shape: int) -> torch.Tensor:
            # Another format has the same numbers, rounded.
            return torch.randn(*shape, dtype=torch.float64, generator=generator).to(dtype)

        self.hidden, self.weight, self.bias = (drawn(*shape).requires_grad_() for shape in ((B, T, D), (V, D), (V,)))
        self.labels = torch.randint(0, V, (B, T), generator=generator)
        self.labels[1, 5:] = -100
        self.rows, self.targets = target_rows(self.labels)
        self.guided = torch.arange(1, len(self.rows), 2)
        values = drawn(len(self.guided), V) * 3
        values[:, 4] = -torch.inf  # A token that the teacher rules out …
        values[2] = -torch.inf  # … and a row without any target.
        self.values = torch.log_softmax(values, -1).nan_to_num(nan=-torch.inf)

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden @ self.weight.T + self.bias

    def gradients(self, loss: torch.Tensor) -> list[torch.Tensor]:
        return list(torch.autograd.grad(loss, [self.hidden, self.weight, self.bias]))

    def plain(self, soft: SoftLoss) -> torch.Tensor:
        terms = cross_vocabulary_terms(
            self.head(self.hidden), self.labels, self.rows[self.guided], self.values, soft=soft
        )
        return combine(terms, ALPHA, BETA, 17)

    def chunked(
        self, soft: SoftLoss, *, alpha: float = ALPHA, weights: torch.Tensor | None = None,
        linear: LinearHead | None = None, kind: type[Targets] = Targets, **options,
    ):  # fmt: skip
        output = StudentOutput(self.hidden, self.head, (self.weight, self.bias), V, linear)
        weights = torch.full((len(self.rows),), BETA, dtype=torch.float64) if weights is None else weights
        return chunked_loss(
            output, self.rows, self.targets, weights, kind(self.guided, self.values), soft, alpha=alpha,
            divisor=torch.tensor(17), **options,
        )  # fmt: skip


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize("chunk", [1, 4, 1000])
@pytest.mark.parametrize("tau", [1.0, 2.0])
@pytest.mark.parametrize("name", sorted(registry.DIVERGENCES))
def test_value_and_gradients_are_those_of_the_plain_form(name, tau, chunk):
    case = Case()
    soft = SoftLoss(tau, Divergence(name), training_fraction=0.3)
    expected, found = case.plain(soft), case.chunked(soft, chunk_rows=chunk)
    torch.testing.assert_close(found.loss, expected)
    for theirs, ours in zip(case.gradients(expected), case.gradients(found.loss), strict=True):
        torch.testing.assert_close(ours, theirs)
    log_probs = torch.log_softmax(case.head(case.hidden), -1).flatten(0, 1)
    torch.testing.assert_close(-found.cross_entropy_N, log_probs[case.rows].gather(1, case.targets[:, None])[:, 0])
    output = StudentOutput(case.hidden, case.head, (case.weight, case.bias), V)
    torch.testing.assert_close(token_log_probs(output, case.rows, case.targets, chunk_rows=5), -found.cross_entropy_N)


class LinearCase(Case):
    """The same head as a layer, whose products and gradients are written out."""

    def __init__(self, dtype: torch.dtype = torch.float64, *, directly: bool = False) -> None:
        super().__init__(dtype)
        self.layer = torch.nn.Linear(D, V, dtype=dtype)
        with torch.no_grad():
            self.layer.weight.copy_(self.weight)
            self.layer.bias.copy_(self.bias)
        self.linear = LinearHead(self.layer, directly=directly)

    def gradients(self, loss: torch.Tensor) -> list[torch.Tensor]:
        return list(torch.autograd.grad(loss, [self.hidden, self.layer.weight, self.layer.bias]))


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize("chunk", [4, 1000])
@pytest.mark.parametrize("tau", [1.0, 2.0])
@pytest.mark.parametrize("name", ["forward-kl", "jsd"])
def test_a_linear_head_written_out_is_the_same(name, tau, chunk):
    plain, case = Case(), LinearCase()
    soft = SoftLoss(tau, Divergence(name))
    expected, found = plain.plain(soft), case.chunked(soft, chunk_rows=chunk, linear=case.linear)
    torch.testing.assert_close(found.loss, expected)
    for theirs, ours in zip(plain.gradients(expected), case.gradients(found.loss), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("directly", [True, False, None])
def test_a_frozen_head_gets_no_gradient(directly, monkeypatch):
    """Value and the gradient of the hidden states are those of the naive form; nothing is computed for the head's weights.

    `directly` None: a head that is left to autograd.
    """
    plain, case, soft = Case(), LinearCase(), SoftLoss(2.0)
    monkeypatch.setattr(LinearHead, "_total", lambda *_: pytest.fail("a sum for a weight that is not trained"))
    case.layer.requires_grad_(False)
    linear = None if directly is None else LinearHead(case.layer, directly=directly)
    output = StudentOutput(case.hidden, case.layer, (), V, linear)
    weights = torch.full((len(case.rows),), BETA, dtype=torch.float64)
    found = chunked_loss(
        output, case.rows, case.targets, weights, Targets(case.guided, case.values), soft, alpha=ALPHA,
        divisor=torch.tensor(17), chunk_rows=4,
    )  # fmt: skip
    expected = plain.plain(soft)
    torch.testing.assert_close(found.loss, expected)
    found.loss.backward()
    torch.testing.assert_close(case.hidden.grad, plain.gradients(expected)[0])
    assert case.layer.weight.grad is None
    assert case.layer.bias.grad is None


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_gradients_put_in_place_add_up_over_batches_and_steps(dtype):
    """Three micro-batches of a step, then another step: what lies in `.grad` is never written over by the next batch."""
    case = LinearCase(torch.float32 if dtype == torch.bfloat16 else dtype, directly=True)
    reference = Case(torch.float64)
    parameters = [case.layer.weight, case.layer.bias]
    for _ in range(2):
        for parameter in [*parameters, case.hidden]:
            parameter.grad = None
        expected = [torch.zeros_like(value) for value in (reference.hidden, reference.weight, reference.bias)]
        for count, alpha in enumerate((0.2, 0.6, 0.9)):
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
                loss = case.chunked(SoftLoss(2.0), alpha=alpha, linear=case.linear, chunk_rows=5).loss
            (loss * (count + 1)).backward()  # As a scaler would.
            plain = reference.chunked(SoftLoss(2.0), alpha=alpha, chunk_rows=5).loss * (count + 1)
            for total, part in zip(expected, reference.gradients(plain), strict=True):
                total += part
        tolerance = {"rtol": 0.05, "atol": 0.02} if dtype == torch.bfloat16 else {}
        for ours, theirs in zip([case.hidden, *parameters], expected, strict=True):
            torch.testing.assert_close(ours.grad, theirs.to(ours.dtype), **tolerance)
    with pytest.raises(RuntimeError, match="only once"):
        case.linear.hand_over(torch.tensor(1.0))


def test_only_a_plain_layer_is_written_out():
    layer = torch.nn.Linear(D, V)
    assert LinearHead.is_plain(layer)
    layer.register_forward_hook(lambda *arguments: None)
    assert not LinearHead.is_plain(layer)
    assert not LinearHead.is_plain(torch.nn.Bilinear(D, D, V))


@pytest.mark.usefixtures("known_instructions")
@pytest.mark.parametrize("compiles", [False, True])
@pytest.mark.parametrize("tau", [1.0, 2.0])
def test_weights_are_as_good_as_their_logarithms(tau, compiles):
    case = Case()
    expected = case.chunked(SoftLoss(tau), chunk_rows=4)
    found = case.chunked(SoftLoss(tau), chunk_rows=4, kind=PlainValues, compile_kernels=compiles)
    torch.testing.assert_close(found.loss, expected.loss)
    for theirs, ours in zip(case.gradients(expected.loss), case.gradients(found.loss), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_gradients_by_differences():
    case = Case()
    with torch.no_grad():
        case.values[2] = case.values[1]

    def loss(hidden, weight, bias):
        case.hidden, case.weight, case.bias = hidden, weight, bias
        return case.chunked(SoftLoss(2.0), chunk_rows=5).loss

    assert torch.autograd.gradcheck(loss, (case.hidden, case.weight, case.bias))


def test_rows_of_weight_zero_reach_nothing():
    case = Case()
    with torch.no_grad():
        case.hidden[0, 0] = torch.inf
    weights = torch.ones(len(case.rows), dtype=torch.float64)
    weights[0] = 0
    found = case.chunked(SoftLoss(), alpha=0.0, weights=weights)
    assert found.loss.isfinite()


def test_a_nan_in_the_teacher_is_not_hidden():
    case = Case()
    case.values[1, 3] = torch.nan
    for name in ("forward-kl", "jsd"):
        assert case.chunked(SoftLoss(1.0, Divergence(name))).loss.isnan()


@pytest.mark.usefixtures("known_instructions")
@pytest.mark.parametrize("head", ["any", "linear"])
def test_compiled_as_eager(head):
    case = Case(torch.float32) if head == "any" else LinearCase(torch.float32)
    for tau in (1.0, 2.0, 3.0):
        # Two heads, as both losses wait for their gradients to be asked for.
        eager, fast = (
            case.chunked(
                SoftLoss(tau), compile_kernels=flag, linear=LinearHead(case.layer) if head == "linear" else None
            )
            for flag in (False, True)
        )
        torch.testing.assert_close(fast.loss, eager.loss)
        for theirs, ours in zip(case.gradients(eager.loss), case.gradients(fast.loss), strict=True):
            torch.testing.assert_close(ours, theirs)


@pytest.mark.usefixtures("known_instructions")
def test_a_temperature_that_changes_is_compiled_once():
    """And at τ = 1, where it ends, it is the loss of a τ that has always been 1."""
    case = LinearCase(torch.float32)
    counted = []
    for tau in (2.0, 1.9, 1.5, 1.25, 1.0):
        eager = case.chunked(SoftLoss(tau), linear=LinearHead(case.layer))
        fast = case.chunked(SoftLoss(tau, varies=True), compile_kernels=True, linear=LinearHead(case.layer))
        counted.append(counters["stats"]["unique_graphs"])
        torch.testing.assert_close(fast.loss, eager.loss)
        torch.testing.assert_close(fast.soft_sum, eager.soft_sum)
        for theirs, ours in zip(case.gradients(eager.loss), case.gradients(fast.loss), strict=True):
            torch.testing.assert_close(ours, theirs)
    assert len(set(counted)) == 1


def squared_error(teacher: torch.Tensor, student: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
    return scale * (teacher.exp() - student.exp()).square().sum(-1)


def test_a_registered_function_trains(monkeypatch):
    """A new divergence is a function and a line in the registry; what else it takes are its own parameters."""
    monkeypatch.setitem(registry.DIVERGENCES, "squared-error", f"{__name__}:squared_error")
    case = LinearCase(directly=True)
    soft = SoftLoss(2.0, Divergence("squared-error", scale=3.0, mix=0.2))
    found, expected = case.chunked(soft, chunk_rows=4, linear=case.linear), case.plain(soft)
    torch.testing.assert_close(found.loss, expected)
    usable = torch.arange(len(case.guided)) != 2
    teacher = torch.log_softmax(case.values[usable] / 2, -1)
    student = torch.log_softmax(case.head(case.hidden).flatten(0, 1)[case.rows[case.guided[usable]]] / 2, -1)
    torch.testing.assert_close(found.soft_sum, 4 * 3.0 * (teacher.exp() - student.exp()).square().sum())
    found.loss.backward()
    torch.optim.SGD([case.layer.weight, case.layer.bias, case.hidden], lr=0.01).step()
    assert case.chunked(soft, linear=case.linear).loss < found.loss


def test_the_closed_form_is_for_the_function_of_the_forward_kl_whatever_its_name(monkeypatch):
    monkeypatch.setitem(registry.DIVERGENCES, "kl", registry.DIVERGENCES["forward-kl"])
    monkeypatch.setitem(registry.DIVERGENCES, "squared-error", f"{__name__}:squared_error")
    closed = {name for name in registry.DIVERGENCES if SoftLoss(1.0, Divergence(name)).is_forward_kl}
    assert closed == {"forward-kl", "kl"}

"""The whole loss with one tokenizer, from labels to a number, against the plain form; and the invariances that trackers
are full of complaints about: padding, masking, micro-batches, padded vocabularies, extreme logits."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from plain_objective import IGNORED, PlainTerms, combine, same_vocabulary_terms

from distillkit.losses.chunked import StudentOutput
from distillkit.losses.linear_head import LinearHead
from distillkit.losses.target_rows import target_rows
from distillkit.losses.tempered import SoftLoss
from distillkit.teachers.common_targets import CommonTokens
from distillkit.training.objectives import HardOnly, Objective, SoftObjective, SoftSettings, Terms, Weights

ALPHA, BETA, TAU = 0.7, 0.3, 2.0


@dataclass
class GivenLogits:
    """A teacher whose logits are given."""

    logits_BTU: torch.Tensor

    def hidden(self, batch: object) -> torch.Tensor:
        return self.logits_BTU.flatten(0, 1)

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden.clone()


def randn(*shape: int, seed: int, scale: float = 2.0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed)) * scale


def batch(texts: int = 3, length: int = 6, size: int = 9, seed: int = 0, dtype: torch.dtype = torch.float64):
    """Student logits, labels with gaps, teacher logits."""
    labels = torch.randint(0, size, (texts, length), generator=torch.Generator().manual_seed(seed))
    labels[0, 0] = labels[-1, -2:] = labels[1, 3] = IGNORED
    student = randn(texts, length, size, seed=seed + 1, dtype=dtype)
    return student.requires_grad_(), labels, randn(texts, length, size, seed=seed + 2, dtype=dtype)


def everything(size: int) -> torch.Tensor:
    return torch.ones(size, dtype=torch.bool)


def white_box(teacher: GivenLogits, common: torch.Tensor, tau: float) -> SoftObjective:
    return SoftObjective(CommonTokens(teacher, common), SoftSettings(SoftLoss(tau)))


def batch_of(labels: torch.Tensor) -> dict[str, torch.Tensor]:
    """What the objectives use of a batch."""
    rows, targets = target_rows(labels)
    return {"labels": labels, "target_rows": rows, "target_ids": targets}


def output_of(student: torch.Tensor, *, written_out: bool = False) -> StudentOutput:
    """A student with these logits: its hidden states are the logits, its head changes nothing."""
    size = student.shape[-1]
    if not written_out:
        return StudentOutput(student, lambda hidden: hidden, (), size)
    layer = torch.nn.Linear(size, size, bias=False, dtype=student.dtype)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(size))
    return StudentOutput(student, layer, (layer.weight,), size, LinearHead(layer))


def terms_of(
    student, labels, teacher, *, tau: float = TAU, common=None, targets: int | None = None, alpha: float = ALPHA,
    beta: float = BETA, written_out: bool = False,
) -> Terms:  # fmt: skip
    common = everything(teacher.shape[-1]) if common is None else common
    objective = white_box(GivenLogits(teacher), common, tau)
    count = len(target_rows(labels)[0]) if targets is None else targets
    output = output_of(student, written_out=written_out)
    return objective(output, batch_of(labels), Weights(alpha, beta, torch.tensor(max(count, 1))))


def loss_of(*arguments, **options) -> torch.Tensor:
    return terms_of(*arguments, **options).loss


def plain(student, labels, teacher, tau: float, common=None) -> PlainTerms:
    common = everything(teacher.shape[-1]) if common is None else common
    return same_vocabulary_terms(student, labels, teacher, common, soft=SoftLoss(tau))


@pytest.mark.parametrize("written_out", [False, True])
@pytest.mark.parametrize("tau", [1.0, 2.0, 5.0])
def test_value_and_gradient_are_those_of_the_plain_form(tau, written_out):
    student, labels, teacher = batch()
    common = everything(9)
    common[[2, 5]] = False
    expected = plain(student, labels, teacher, tau, common)
    found = terms_of(student, labels, teacher, tau=tau, common=common, targets=17, written_out=written_out)
    assert found.soft_sum.item() == pytest.approx(expected.soft_sum.item(), rel=1e-12)
    assert found.hard_sum.item() == pytest.approx(expected.hard_sum.item(), rel=1e-12)
    wanted = combine(expected, ALPHA, BETA, 17)
    torch.testing.assert_close(found.loss, wanted, rtol=1e-12, atol=0)
    gradients = (torch.autograd.grad(loss, student)[0] for loss in (found.loss, wanted))
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-14)


def test_a_nan_of_the_teacher_is_not_hidden():
    student, labels, teacher = batch()
    teacher[0, 0, 0] = torch.nan
    assert loss_of(student, labels, teacher).isnan()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_micro_batches_of_different_lengths_equal_one_batch(dtype):
    student, labels, teacher = batch(texts=4, length=12, dtype=dtype)
    # The last two texts are much the worse, so that weighing tokens wrongly shows.
    student = (student.detach() * torch.tensor([1, 1, 4, 4])[:, None, None]).requires_grad_()
    # The first two texts are short: 9 and 4 tokens, padded in the one batch only.
    labels[0, 9:] = labels[1, 4:] = IGNORED
    total = len(target_rows(labels)[0])
    whole = loss_of(student, labels, teacher, targets=total)
    whole.backward()
    gradient, student.grad = student.grad, None

    micro_batches = [loss_of(student[:2, :9], labels[:2, :9], teacher[:2, :9], targets=total)]
    micro_batches += [loss_of(student[2:], labels[2:], teacher[2:], targets=total)]
    for loss in micro_batches:
        loss.backward()
    tolerance = {"rtol": 1e-5, "atol": 1e-7} if dtype == torch.float32 else {"rtol": 1e-12, "atol": 1e-15}
    torch.testing.assert_close(sum(micro_batches), whole, **tolerance)
    torch.testing.assert_close(student.grad, gradient, **tolerance)
    # A mean per micro-batch is another number: the rows are not shared evenly.
    means = [
        loss_of(student[:2], labels[:2], teacher[:2]).item() / 2,
        loss_of(student[2:], labels[2:], teacher[2:]).item() / 2,
    ]
    assert sum(means) != pytest.approx(whole.item(), rel=1e-2)


@pytest.mark.parametrize("rubbish", [0.0, 1e4, torch.inf, torch.nan])
def test_padding_changes_nothing(rubbish):
    student, labels, teacher = batch()
    loss = loss_of(student, labels, teacher, targets=10)
    loss.backward()
    gradient = student.grad
    wide = torch.full((3, 4, 9), rubbish, dtype=torch.float64)
    padded = torch.cat([student.detach(), wide], 1).requires_grad_()
    padded_labels = torch.cat([labels, torch.full((3, 4), IGNORED)], 1)
    padded_loss = loss_of(padded, padded_labels, torch.cat([teacher, wide], 1), targets=10)
    padded_loss.backward()
    torch.testing.assert_close(padded_loss, loss, rtol=1e-13, atol=0)
    torch.testing.assert_close(padded.grad[:, :6], gradient, rtol=1e-13, atol=1e-16)
    assert padded.grad[:, 6:].abs().max() == 0


@pytest.mark.parametrize("kind", ["hard", "same"])
@pytest.mark.parametrize("content", [1.0, torch.inf, torch.nan])
def test_a_batch_without_targets_is_zero_with_a_graph(kind, content):
    student = torch.full((2, 3, 5), content, requires_grad=True)
    labels = torch.full((2, 3), IGNORED)
    teacher = GivenLogits(torch.full((2, 3, 5), content))
    same = white_box(teacher, everything(5), TAU)
    objective: Objective = HardOnly() if kind == "hard" else same
    terms = objective(output_of(student), batch_of(labels), Weights(ALPHA, BETA, torch.tensor(1)))
    assert terms.loss.item() == 0
    terms.loss.backward()
    assert student.grad.abs().max() == 0


def test_without_a_teacher_it_is_cross_entropy_alone():
    student, labels, teacher = batch()
    terms = HardOnly()(output_of(student), batch_of(labels), Weights(0.0, 1.0, torch.tensor(4)))
    expected = plain(student, labels, teacher, 1.0).hard_sum
    torch.testing.assert_close(terms.hard_sum, expected.detach(), rtol=1e-12, atol=0)
    torch.testing.assert_close(terms.loss, expected / 4, rtol=1e-12, atol=0)
    assert terms.soft_sum.item() == 0


def test_a_wider_teacher_puts_no_probability_on_its_padding():
    student, labels, teacher = batch()
    wide = torch.cat([teacher, torch.full((3, 6, 4), 30.0, dtype=torch.float64)], -1)
    assert torch.equal(loss_of(student, labels, wide, common=everything(9)), loss_of(student, labels, teacher))
    # Also where the student's head is as wide and its tokenizer knows those ids as nothing.
    student_wide = torch.cat([student, torch.full((3, 6, 4), -torch.inf, dtype=torch.float64)], -1)
    loss = loss_of(student_wide, labels, wide, common=everything(9))
    torch.testing.assert_close(loss, loss_of(student, labels, teacher))


def test_a_wider_student_unlearns_its_padding():
    student, labels, teacher = batch()
    padding = torch.zeros(3, 6, 2, dtype=torch.float64)
    wide = torch.cat([student.detach(), padding], -1).requires_grad_()
    loss = loss_of(wide, labels, teacher)
    assert loss.isfinite()
    # Its probability on the padding counts against it, in both terms.
    assert loss > loss_of(student, labels, teacher)
    loss.backward()
    rows, _ = target_rows(labels)
    assert (wide.grad.reshape(-1, 11)[rows, 9:] > 0).all()


def test_ids_that_are_not_common_carry_nothing():
    student, labels, teacher = batch()
    common = everything(9)
    common[4] = False
    loud = teacher.clone()
    loud[..., 4] = 50
    assert torch.equal(
        terms_of(student, labels, teacher, common=common).soft_sum,
        terms_of(student, labels, loud, common=common).soft_sum,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_logits_are_finite(dtype):
    labels = torch.tensor([[0, 1, 2, 0]])
    student = torch.tensor([1e4, -1e4, 0.0, 3.0, -torch.inf]).expand(1, 4, 5).to(dtype).clone().requires_grad_()
    teacher = torch.tensor([-1e4, 1e4, 0.0, -torch.inf, -torch.inf]).expand(1, 4, 5).to(dtype)
    for tau in (1.0, 10.0):
        loss = loss_of(student, labels, teacher, tau=tau)
        assert loss.isfinite()
        assert loss.dtype == torch.float32
        (gradient,) = torch.autograd.grad(loss, student)
        assert gradient.isfinite().all()


def test_equal_logits_have_no_soft_loss_and_no_soft_gradient():
    student, labels, _ = batch()
    terms = terms_of(student, labels, student.detach(), beta=0.0)
    assert terms.soft_sum.item() == pytest.approx(0, abs=1e-13)
    (gradient,) = torch.autograd.grad(terms.loss, student)
    assert gradient.abs().max() < 1e-14


def test_tau_squared_keeps_the_gradient_of_soft_targets():
    # As τ grows the soft gradient tends to (z - y centred) / V: without τ² it would vanish with 1/τ².
    student, labels, teacher = batch()
    gradients = {}
    for tau in (100.0, 200.0):
        loss = loss_of(student, labels, teacher, tau=tau, alpha=1.0, beta=0.0, targets=1)
        (gradients[tau],) = torch.autograd.grad(loss, student)
    rows, _ = target_rows(labels)
    z, y = (values.detach().reshape(-1, 9)[rows] for values in (student, teacher))
    limit = ((z - z.mean(-1, keepdim=True)) - (y - y.mean(-1, keepdim=True))) / 9
    torch.testing.assert_close(gradients[200.0].reshape(-1, 9)[rows], limit, rtol=0.05, atol=5e-3)
    torch.testing.assert_close(gradients[100.0], gradients[200.0], rtol=0.05, atol=5e-3)


def test_bf16_logits_are_accumulated_in_fp32():
    student, labels, teacher = batch(texts=8, length=64, size=50, dtype=torch.bfloat16)
    found = terms_of(student, labels, teacher)
    assert found.soft_sum.dtype == found.hard_sum.dtype == torch.float32
    expected = plain(student, labels, teacher, TAU)
    assert found.soft_sum.item() == pytest.approx(expected.soft_sum.item(), rel=1e-5)
    assert found.hard_sum.item() == pytest.approx(expected.hard_sum.item(), rel=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = terms_of(student, labels, teacher)
    assert torch.equal(inside.soft_sum, found.soft_sum)
    assert torch.equal(inside.hard_sum, found.hard_sum)


def test_a_term_of_weight_zero_is_left_out():
    student, labels, teacher = batch()
    impossible = student.detach().clone()
    rows, targets = target_rows(labels)
    impossible.view(-1, 9)[rows[0], targets[0]] = -torch.inf  # An infinite cross-entropy …
    loss = loss_of(impossible, labels, impossible.clone(), beta=0.0)
    assert loss.item() == pytest.approx(0, abs=1e-13)
    assert loss_of(impossible, labels, impossible.clone()).item() == torch.inf
    loud = teacher.clone()
    loud.view(-1, 9)[rows[0]] = torch.nan  # … and a divergence that is no number.
    assert loss_of(student, labels, loud, alpha=0.0).isfinite()

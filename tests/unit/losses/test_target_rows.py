"""The objective against a naive float64 reference, and the invariances that trackers are full of complaints about."""

from __future__ import annotations

import math

import pytest
import torch

from distillkit.losses.target_rows import (
    IGNORED,
    DistillationTerms,
    combine,
    cross_vocabulary_terms,
    hard_terms,
    restrict_columns,
    same_vocabulary_terms,
    target_rows,
)
from distillkit.losses.tempered import SoftLoss, temper

ALPHA, BETA, TAU = 0.7, 0.3, 2.0


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


def softmax(values: list[float]) -> list[float]:
    top = max(values)
    weights = [math.exp(value - top) for value in values]
    return [weight / sum(weights) for weight in weights]


def naive(student: torch.Tensor, labels: torch.Tensor, teacher: torch.Tensor, tau: float) -> tuple[float, float, int]:
    """Σ τ²·KL and Σ CE by loops over Python floats; shares nothing with the code under test."""
    soft = hard = 0.0
    rows = 0
    for b in range(labels.shape[0]):
        for t in range(labels.shape[1] - 1):
            target = int(labels[b, t + 1])
            if target == IGNORED:
                continue
            z, y = student[b, t].tolist(), teacher[b, t].tolist()
            p, q = softmax([value / tau for value in y]), softmax([value / tau for value in z])
            soft += tau**2 * sum(pi * (math.log(pi) - math.log(qi)) for pi, qi in zip(p, q, strict=True) if pi > 0)
            hard -= math.log(softmax(z)[target])
            rows += 1
    return soft, hard, rows


def loss_of(student, labels, teacher, *, tau: float = TAU, common=None, normalizer: int | None = None) -> torch.Tensor:
    common = everything(teacher.shape[-1]) if common is None else common
    terms = same_vocabulary_terms(student, labels, teacher, common, soft=SoftLoss(tau))
    return combine(terms, ALPHA, BETA, terms.hard_rows if normalizer is None else normalizer)


def test_a_row_predicts_the_next_token_of_its_own_text():
    labels = torch.tensor([[IGNORED, 5, 6], [7, IGNORED, 9]])
    rows, targets = target_rows(labels)
    # Flat rows 0..5; row 2 and row 5 end their texts, row 3 precedes an ignored token, and 7 is nobody's next token.
    assert rows.tolist() == [0, 1, 4]
    assert targets.tolist() == [5, 6, 9]


@pytest.mark.parametrize("tau", [1.0, 2.0, 5.0])
def test_same_vocabulary_against_the_naive_reference(tau):
    student, labels, teacher = batch()
    terms = same_vocabulary_terms(student, labels, teacher, everything(9), soft=SoftLoss(tau))
    soft, hard, rows = naive(student, labels, teacher, tau)
    assert terms.soft_sum.item() == pytest.approx(soft, rel=1e-12)
    assert terms.hard_sum.item() == pytest.approx(hard, rel=1e-12)
    assert (terms.soft_rows, terms.hard_rows) == (rows, rows)
    expected = (ALPHA * soft + BETA * hard) / 100
    assert combine(terms, ALPHA, BETA, 100).item() == pytest.approx(expected, rel=1e-12)
    assert combine(terms, ALPHA, BETA, torch.tensor(100)).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("tau", [1.0, 3.0])
def test_the_gradient_is_the_formula(tau):
    student, labels, teacher = batch()
    loss_of(student, labels, teacher, tau=tau, normalizer=17).backward()
    expected = torch.zeros_like(student)
    for b in range(3):
        for t in range(5):
            if (target := int(labels[b, t + 1])) == IGNORED:
                continue
            z, y = student.detach()[b, t], teacher[b, t]
            hard = torch.softmax(z, -1)
            hard[target] -= 1
            soft = tau * (torch.softmax(z / tau, -1) - torch.softmax(y / tau, -1))
            expected[b, t] = (BETA * hard + ALPHA * soft) / 17
    torch.testing.assert_close(student.grad, expected, rtol=1e-10, atol=1e-14)


def test_gradcheck():
    student, labels, teacher = batch(texts=2, length=4, size=5)
    common = torch.tensor([True, True, False, True, True])
    assert torch.autograd.gradcheck(lambda z: loss_of(z, labels, teacher, common=common), (student,))
    target = torch.log_softmax(randn(2, 5, seed=9), -1)
    target[0, 1] = -torch.inf
    index = torch.tensor([1, 4])

    def crossed(z: torch.Tensor) -> torch.Tensor:
        return combine(cross_vocabulary_terms(z, labels, index, target, soft=SoftLoss(TAU)), ALPHA, BETA, 3)

    assert torch.autograd.gradcheck(crossed, (student,))


def test_cross_vocabulary_against_the_naive_reference():
    student, labels, _ = batch()
    target = torch.log_softmax(randn(4, 9, seed=5), -1)
    target[:, 3] = -torch.inf
    index = torch.tensor([0, 3, 7, 14])
    terms = cross_vocabulary_terms(student, labels, index, target, soft=SoftLoss(TAU))
    flat = student.detach().reshape(-1, 9)
    expected = 0.0
    for row, weights in zip(index.tolist(), target.tolist(), strict=True):
        p = softmax([value / TAU for value in weights])
        q = softmax([value / TAU for value in flat[row].tolist()])
        expected += TAU**2 * sum(pi * (math.log(pi) - math.log(qi)) for pi, qi in zip(p, q, strict=True) if pi > 0)
    assert terms.soft_sum.item() == pytest.approx(expected, rel=1e-12)
    assert terms.hard_sum.item() == pytest.approx(naive(student, labels, student, TAU)[1], rel=1e-12)
    assert (terms.soft_rows, terms.hard_rows) == (4, naive(student, labels, student, TAU)[2])
    terms.soft_sum.backward()
    used = student.grad.reshape(-1, 9).abs().sum(-1) > 0
    assert used.nonzero().flatten().tolist() == index.tolist()


def test_rows_without_a_target_are_dropped():
    student, labels, _ = batch()
    target = torch.log_softmax(randn(3, 9, seed=5), -1)
    target[1] = -torch.inf
    index = torch.tensor([0, 3, 7])
    terms = cross_vocabulary_terms(student, labels, index, target, soft=SoftLoss(TAU))
    kept = cross_vocabulary_terms(student, labels, index[[0, 2]], target[[0, 2]], soft=SoftLoss(TAU))
    assert (terms.soft_rows, kept.soft_rows) == (2, 2)
    assert torch.equal(terms.soft_sum, kept.soft_sum)


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
    whole = loss_of(student, labels, teacher, normalizer=total)
    whole.backward()
    gradient, student.grad = student.grad, None

    parts = [loss_of(student[:2, :9], labels[:2, :9], teacher[:2, :9], normalizer=total)]
    parts += [loss_of(student[2:], labels[2:], teacher[2:], normalizer=total)]
    for part in parts:
        part.backward()
    tolerance = {"rtol": 1e-5, "atol": 1e-7} if dtype == torch.float32 else {"rtol": 1e-12, "atol": 1e-15}
    torch.testing.assert_close(sum(parts), whole, **tolerance)
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
    loss = loss_of(student, labels, teacher, normalizer=10)
    loss.backward()
    gradient = student.grad
    wide = torch.full((3, 4, 9), rubbish, dtype=torch.float64)
    padded = torch.cat([student.detach(), wide], 1).requires_grad_()
    padded_labels = torch.cat([labels, torch.full((3, 4), IGNORED)], 1)
    padded_loss = loss_of(padded, padded_labels, torch.cat([teacher, wide], 1), normalizer=10)
    padded_loss.backward()
    torch.testing.assert_close(padded_loss, loss, rtol=1e-13, atol=0)
    torch.testing.assert_close(padded.grad[:, :6], gradient, rtol=1e-13, atol=1e-16)
    assert padded.grad[:, 6:].abs().max() == 0


@pytest.mark.parametrize("terms_of", ["hard", "same", "cross"])
@pytest.mark.parametrize("content", [1.0, torch.inf, torch.nan])
def test_a_batch_without_targets_is_zero_with_a_graph(terms_of, content):
    student = torch.full((2, 3, 5), content, requires_grad=True)
    labels = torch.full((2, 3), IGNORED)
    teacher = torch.full((2, 3, 5), content)
    nothing = torch.zeros(0, dtype=torch.long)
    terms = {
        "hard": lambda: hard_terms(student, labels),
        "same": lambda: same_vocabulary_terms(student, labels, teacher, everything(5), soft=SoftLoss(TAU)),
        "cross": lambda: cross_vocabulary_terms(student, labels, nothing, torch.zeros(0, 5), soft=SoftLoss(TAU)),
    }[terms_of]()
    loss = combine(terms, ALPHA, BETA, 0)
    assert loss.item() == 0
    loss.backward()
    assert student.grad.abs().max() == 0
    assert (terms.soft_rows, terms.hard_rows) == (0, 0)


def test_hard_terms_are_cross_entropy_alone():
    student, labels, _ = batch()
    terms = hard_terms(student, labels)
    assert terms.hard_sum.item() == pytest.approx(naive(student, labels, student, 1)[1], rel=1e-12)
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
    first = same_vocabulary_terms(student, labels, teacher, common, soft=SoftLoss(TAU))
    second = same_vocabulary_terms(student, labels, loud, common, soft=SoftLoss(TAU))
    assert torch.equal(first.soft_sum, second.soft_sum)


def test_restricted_columns():
    logits = torch.arange(4.0)[None]
    common = torch.tensor([True, False, True])
    inf = torch.inf
    assert restrict_columns(logits, common, 5).tolist() == [[0, -inf, 2, -inf, -inf]]
    assert restrict_columns(logits, common, 2).tolist() == [[0, -inf]]


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
    terms = same_vocabulary_terms(student, labels, student.detach(), everything(9), soft=SoftLoss(TAU))
    assert terms.soft_sum.item() == pytest.approx(0, abs=1e-13)
    (gradient,) = torch.autograd.grad(terms.soft_sum, student)
    assert gradient.abs().max() < 1e-14


def test_tau_squared_keeps_the_gradient_of_soft_targets():
    # As τ grows the soft gradient tends to (z - y centred) / V: without τ² it would vanish with 1/τ².
    student, labels, teacher = batch()
    gradients = {}
    for tau in (100.0, 200.0):
        terms = same_vocabulary_terms(student, labels, teacher, everything(9), soft=SoftLoss(tau))
        (gradients[tau],) = torch.autograd.grad(terms.soft_sum, student)
    rows, _ = target_rows(labels)
    z, y = (values.detach().reshape(-1, 9)[rows] for values in (student, teacher))
    limit = ((z - z.mean(-1, keepdim=True)) - (y - y.mean(-1, keepdim=True))) / 9
    torch.testing.assert_close(gradients[200.0].reshape(-1, 9)[rows], limit, rtol=0.05, atol=5e-3)
    torch.testing.assert_close(gradients[100.0], gradients[200.0], rtol=0.05, atol=5e-3)


def test_bf16_logits_are_accumulated_in_fp32():
    student, labels, teacher = batch(texts=8, length=64, size=50, dtype=torch.bfloat16)
    terms = same_vocabulary_terms(student, labels, teacher, everything(50), soft=SoftLoss(TAU))
    assert terms.soft_sum.dtype == terms.hard_sum.dtype == torch.float32
    soft, hard, _ = naive(student, labels, teacher, TAU)
    assert terms.soft_sum.item() == pytest.approx(soft, rel=1e-5)
    assert terms.hard_sum.item() == pytest.approx(hard, rel=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = same_vocabulary_terms(student, labels, teacher, everything(50), soft=SoftLoss(TAU))
    assert torch.equal(inside.soft_sum, terms.soft_sum)
    assert torch.equal(inside.hard_sum, terms.hard_sum)


def test_temper():
    logits = randn(4, 6, seed=3)
    torch.testing.assert_close(temper(logits, TAU), torch.log_softmax(logits / TAU, -1))
    torch.testing.assert_close(temper(torch.log_softmax(logits, -1), TAU), temper(logits, TAU))
    logits[:, 2] = -torch.inf
    assert temper(logits, TAU)[:, 2].isneginf().all()
    assert temper(logits, TAU).exp().sum(-1).tolist() == pytest.approx([1] * 4)


def test_a_term_of_weight_zero_is_left_out():
    infinite, one = torch.tensor(torch.inf), torch.tensor(1.0)
    assert combine(DistillationTerms(infinite, one, 1, 1), 0.0, 1.0, 2).item() == 0.5
    assert combine(DistillationTerms(one, infinite, 1, 1), 1.0, 0.0, 2).item() == 0.5
    assert combine(DistillationTerms(one, infinite, 1, 1), 0.5, 0.5, 2).item() == torch.inf


def test_the_teacher_gets_no_gradient():
    student, labels, teacher = batch()
    teacher.requires_grad_()
    loss_of(student, labels, teacher).backward()
    assert teacher.grad is None

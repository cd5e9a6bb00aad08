"""Agreement with the teacher against loops over Python floats."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import torch
from tiny_models import tiny_model
from torch import Tensor, nn

from distillkit.errors import DistillkitError
from distillkit.evaluation import batched_forward
from distillkit.evaluation.agreement import Agreement
from distillkit.evaluation.bits_per_byte import ScoredText
from distillkit.evaluation.comparison import ComparedText, compare
from distillkit.losses.target_rows import restrict_columns
from distillkit.losses.tempered import temper

CPU = torch.device("cpu")
TEACHER, STUDENT = 61, 53
# Made-up tokenizers: every third teacher token is unknown to the student, others share one.
PROJECTION = [STUDENT if token % 3 == 2 else (token * 7) % 40 for token in range(TEACHER)]


def project(teacher_logits: Tensor, columns: int) -> Tensor:
    probabilities = teacher_logits.double().softmax(-1)
    target = probabilities.new_zeros(len(probabilities), columns + 1)
    target.index_add_(1, torch.tensor(PROJECTION), probabilities)
    return (target[:, :columns] / target[:, :columns].sum(-1, keepdim=True)).log()


def pair(student: list[int], teacher: list[int], student_rows: Any, teacher_rows: Any) -> ComparedText:
    """A text of which nothing is scored."""
    return ComparedText(ScoredText(student, [], 0, 0), ScoredText(teacher, [], 0, 0), student_rows, teacher_rows)


def agreement(teacher: nn.Module, students: dict[str, nn.Module], pairs: list[ComparedText], **settings: Any) -> Any:
    return compare(teacher, students, pairs, device=CPU, **settings).agreement


def make_pairs(count: int = 9, seed: int = 0) -> list[ComparedText]:
    generator = random.Random(seed)
    pairs = []
    for _ in range(count):
        student = [generator.randrange(STUDENT) for _ in range(generator.randint(3, 20))]
        teacher = [generator.randrange(TEACHER) for _ in range(generator.randint(3, 20))]
        rows = generator.randint(0, 3)
        pairs.append(
            pair(
                student, teacher,
                sorted(generator.sample(range(len(student)), rows)), sorted(generator.sample(range(len(teacher)), rows)),
            )
        )  # fmt: skip
    return pairs


def softmax(values: list[float]) -> list[float]:
    top = max(values)
    weights = [math.exp(value - top) for value in values]
    return [weight / math.fsum(weights) for weight in weights]


def rows_of(model: nn.Module, ids: list[int], row: int) -> list[float]:
    with torch.no_grad():
        return softmax(model(input_ids=torch.tensor([ids[: row + 1]])).logits[0, -1].tolist())


def naive(teacher: nn.Module, student: nn.Module, pairs: list[ComparedText]) -> tuple[float, float, int]:
    """One row at a time with nothing of the code under test, in float64."""
    same, rows, divergences = 0, 0, []
    for pair in pairs:
        for student_row, teacher_row in zip(pair.student_rows, pair.teacher_rows, strict=True):
            p, q = [0.0] * STUDENT, rows_of(student.double(), list(pair.student.ids), student_row)
            for token, probability in enumerate(rows_of(teacher.double(), list(pair.teacher.ids), teacher_row)):
                if PROJECTION[token] < STUDENT:
                    p[PROJECTION[token]] += probability
            p = [value / math.fsum(p) for value in p]
            divergences.append(math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0))
            same += p.index(max(p)) == q.index(max(q))
            rows += 1
    teacher.float(), student.float()
    return same / rows, math.fsum(divergences) / rows, rows


def models() -> tuple[nn.Module, dict[str, nn.Module]]:
    students = {f"student {seed}": tiny_model("gpt2", vocab_size=STUDENT, seed=seed) for seed in (1, 2)}
    return tiny_model("llama", vocab_size=TEACHER), students


def test_equals_a_loop_over_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, students = models()
    pairs = make_pairs(20)
    expected = {name: naive(teacher, student, pairs) for name, student in students.items()}
    for batch_tokens, wide in ((None, 1 << 24), (1, 1 << 24), (60, 2 * (STUDENT + TEACHER))):
        monkeypatch.setattr(batched_forward, "WIDE_AT_ONCE", wide)
        found = agreement(teacher, students, pairs, log_target=project, batch_tokens=batch_tokens)
        for name, (top1, kl, rows) in expected.items():
            assert found[name].rows == rows
            assert found[name].top1 == pytest.approx(top1, abs=1e-12)
            assert found[name].kl == pytest.approx(kl, rel=1e-5)


def test_the_teacher_runs_once_for_all_students() -> None:
    teacher, students = models()
    calls = []
    teacher.register_forward_hook(lambda *_: calls.append(1))
    agreement(teacher, students, make_pairs(6), log_target=project, batch_tokens=10_000)
    assert len(calls) == 1


def test_a_student_that_is_the_teacher_agrees_wholly() -> None:
    teacher = tiny_model("llama", vocab_size=TEACHER)
    common = torch.ones(TEACHER, dtype=torch.bool)
    ids = [3, 4, 5, 6, 7]
    found = agreement(
        teacher, {"itself": teacher}, [pair(ids, ids, range(4), range(4))],
        log_target=lambda logits, columns: temper(restrict_columns(logits, common, columns), 1.0),
    )["itself"]  # fmt: skip
    assert (found.top1, found.rows) == (1.0, 4)
    assert found.kl == pytest.approx(0, abs=1e-6)
    assert found.kl is not None
    assert found.kl >= 0


def test_rows_without_a_target_are_left_out() -> None:
    teacher, students = models()
    pairs = make_pairs(6)
    rows = sum(len(pair.student_rows) for pair in pairs)

    def nothing(logits: Tensor, columns: int) -> Tensor:
        return torch.full((len(logits), columns), -math.inf)

    def every_other(logits: Tensor, columns: int) -> Tensor:
        target = project(logits, columns)
        target[1::2] = -math.inf
        return target

    assert set(agreement(teacher, students, pairs, log_target=nothing).values()) == {Agreement(None, None, 0)}
    assert set(agreement(teacher, students, [], log_target=project).values()) == {Agreement(None, None, 0)}
    half = agreement(teacher, students, pairs, log_target=every_other, batch_tokens=10_000)
    assert {found.rows for found in half.values()} == {(rows + 1) // 2}


def test_modes_are_restored_and_numbers_that_are_none_are_reported() -> None:
    teacher, students = models()
    students["student 1"].train()
    agreement(teacher, students, make_pairs(3), log_target=project)
    assert students["student 1"].training
    assert not teacher.training
    with torch.no_grad():
        next(students["student 2"].parameters()).fill_(float("nan"))
    with pytest.raises(DistillkitError, match="'student 2'"):
        agreement(teacher, students, make_pairs(3), log_target=project)


def test_impossible_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="1 rows of the student, 2 of the teacher"):
        pair([1, 2], [1, 2], [0], [0, 1])
    with pytest.raises(ValueError, match="rows 2 to 2 of a text of 2 tokens"):
        pair([1, 2], [1, 2, 3], [2], [2])

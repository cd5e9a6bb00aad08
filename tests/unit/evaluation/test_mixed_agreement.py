"""Agreement with a mixture of teachers against loops over Python floats."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_models import tiny_model
from torch import Tensor, nn

from distillkit.evaluation.bits_per_byte import ScoredText
from distillkit.evaluation.comparison import ComparedText, compare
from distillkit.evaluation.mixed_agreement import MixedTeacher, mixed_agreement

CPU = torch.device("cpu")
STUDENT = 53
WIDTHS = (61, 53)
WEIGHTS = (3.0, 1.0)


def taken(width: int) -> Callable[[Tensor, int], Tensor]:
    """Of a made-up vocabulary the first tokens are the student's, the others are left out."""

    def log_target(logits: Tensor, columns: int) -> Tensor:
        known = min(width, columns)
        target = logits.new_full((len(logits), columns), -torch.inf)
        target[:, :known] = logits[:, :known].log_softmax(-1)
        return target

    return log_target


def text(generator: random.Random, student: list[int], width: int, rows: list[int]) -> ComparedText:
    ids = [generator.randrange(width) for _ in range(generator.randint(8, 20))]
    places = sorted(generator.sample(range(len(ids)), len(rows)))
    return ComparedText(ScoredText(student, [], 0, 0), ScoredText(ids, [], 0, 0), rows, places)


def probabilities(model: nn.Module, ids: Any, row: int, known: int) -> list[float]:
    with torch.no_grad():
        values = model(input_ids=torch.tensor([list(ids)[: row + 1]])).logits[0, -1].tolist()[:known]
    weights = [math.exp(value - max(values)) for value in values]
    return [weight / math.fsum(weights) for weight in weights]


def naive(teachers: list[MixedTeacher], student: nn.Module) -> tuple[float, float, int]:
    """(same first choice, KL, rows), one row at a time in float64."""
    same, divergences = 0, []
    for index in range(len(teachers[0].texts)):
        said: dict[int, list[tuple[float, list[float]]]] = {}
        for teacher in teachers:
            own = teacher.texts[index]
            if own is None:
                continue
            for row, place in zip(own.student_rows, own.teacher_rows, strict=True):
                said.setdefault(row, []).append(
                    (teacher.weight, probabilities(teacher.model, own.teacher.ids, place, STUDENT))
                )
        for row, parts in said.items():
            total = math.fsum(weight for weight, _ in parts)
            p = [math.fsum(weight * one[v] for weight, one in parts) / total for v in range(STUDENT)]
            ids = next(own.student.ids for one in teachers if (own := one.texts[index]) is not None)
            q = probabilities(student, ids, row, STUDENT)
            same += max(range(STUDENT), key=p.__getitem__) == max(range(STUDENT), key=q.__getitem__)
            divergences.append(math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0))
    return same / len(divergences), math.fsum(divergences) / len(divergences), len(divergences)


@pytest.fixture(scope="module")
def made() -> tuple[list[MixedTeacher], dict[str, nn.Module]]:
    generator = random.Random(0)
    texts: list[list[ComparedText | None]] = [[], []]
    for number in range(9):
        student = [generator.randrange(STUDENT) for _ in range(generator.randint(6, 18))]
        for which, width in enumerate(WIDTHS):
            rows = sorted(generator.sample(range(len(student)), generator.randint(0, 5)))
            unread = number in (2, 5) if which else number in (4, 5)
            texts[which].append(None if unread else text(generator, student, width, rows))
    models: list[Any] = [
        tiny_model("gpt2", width, seed=which, layers=1, hidden=16) for which, width in enumerate(WIDTHS)
    ]
    for model in models:
        model.transformer.wte.weight.data *= 6  # So that they prefer some tokens.
    students = {
        name: tiny_model("gpt2", STUDENT, seed=seed, layers=1, hidden=16) for name, seed in (("a", 5), ("b", 6))
    }
    teachers = [
        MixedTeacher(model.double(), weight, of_one, taken(width))
        for model, weight, of_one, width in zip(models, WEIGHTS, texts, WIDTHS, strict=True)
    ]
    return teachers, {name: student.double() for name, student in students.items()}


@pytest.mark.parametrize("batch_tokens", [None, 24])
def test_it_is_that_of_the_mean_of_probabilities(made: Any, batch_tokens: int | None) -> None:
    """Over the teachers that say something at a row; texts that one or both do not read among them."""
    teachers, students = made
    found = mixed_agreement(teachers, students, device=CPU, batch_tokens=batch_tokens)
    for name, student in students.items():
        same, kl, rows = naive(teachers, student)
        assert (found[name].top1, found[name].rows) == (same, rows)
        assert found[name].kl == pytest.approx(kl, abs=1e-9)
    assert found["a"].kl != pytest.approx(found["b"].kl, abs=1e-3)


def test_a_teacher_twice_is_that_teacher(made: Any) -> None:
    (one, _), students = made
    read = [text for text in one.texts if text is not None]
    alone = MixedTeacher(one.model, 0.3, read, one.log_target)
    twice = [alone, MixedTeacher(one.model, 0.7, read, one.log_target)]
    found = mixed_agreement(twice, students, device=CPU)
    wanted = compare(one.model, students, read, log_target=one.log_target, device=CPU).agreement
    for name in students:
        assert (found[name].top1, found[name].rows) == (wanted[name].top1, wanted[name].rows)
        assert found[name].kl == pytest.approx(wanted[name].kl, abs=1e-9)

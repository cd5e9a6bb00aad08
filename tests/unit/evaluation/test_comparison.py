"""One pass for scores and agreement against the scores alone."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from tiny_models import tiny_model
from torch import Tensor, nn

from distillkit.errors import NotFiniteError
from distillkit.evaluation.bits_per_byte import ScoredText, score
from distillkit.evaluation.comparison import ComparedText, compare

CPU = torch.device("cpu")
COLUMNS = 53


def same_columns(teacher_logits: Tensor, columns: int) -> Tensor:
    return teacher_logits[:, :columns].log_softmax(-1)


def make_texts(count: int, seed: int = 0) -> list[ComparedText]:
    """Of two documents a text each; some with scored ranges that end early, some without rows or without ranges."""
    generator = random.Random(seed)
    texts = []
    for number in range(count):
        sides = []
        for _ in range(2):
            ids = [generator.randrange(COLUMNS) for _ in range(generator.randint(4, 20))]
            last = generator.randint(2, len(ids))
            spans = [] if number % 7 == 3 else [(1, 2), (min(3, last), last)]
            tokens = sum(max(0, end - begin) for begin, end in spans)
            sides.append(ScoredText(ids, spans, 3 * tokens, number // 2))
        rows = 0 if number % 5 == 4 else generator.randint(1, 3)
        chosen = [sorted(generator.sample(range(len(side.ids)), rows)) for side in sides]
        texts.append(ComparedText(*sides, *chosen))
    return texts


def models() -> tuple[nn.Module, dict[str, nn.Module]]:
    students = {name: tiny_model("gpt2", COLUMNS, seed=seed) for seed, name in ((1, "before"), (2, "after"))}
    return tiny_model("llama", COLUMNS), students


@pytest.mark.parametrize("batch_tokens", [None, 1, 50])
def test_the_scores_are_those_of_a_pass_of_their_own(batch_tokens: int | None) -> None:
    teacher, students = models()
    texts = make_texts(24)
    found = compare(teacher, students, texts, log_target=same_columns, device=CPU, batch_tokens=batch_tokens)
    alone = {"teacher": score(teacher, [text.teacher for text in texts], device=CPU)}
    alone |= {name: score(model, [text.student for text in texts], device=CPU) for name, model in students.items()}
    for name, expected in alone.items():
        ours = found.teacher if name == "teacher" else found.students[name]
        assert ours.nll == pytest.approx(expected.nll, rel=1e-6)
        assert ours.bits_per_byte == pytest.approx(expected.bits_per_byte, rel=1e-6)
        for counts in ("documents", "bytes", "tokens"):
            assert np.array_equal(getattr(ours, counts), getattr(expected, counts))
    assert found.agreement["before"].rows == sum(len(text.student_rows) for text in texts)


def test_every_model_reads_every_text_once() -> None:
    teacher, students = models()
    texts = make_texts(10)
    read = {"teacher": 0, "before": 0, "after": 0}

    for name, model in {"teacher": teacher, **students}.items():

        def count(_: nn.Module, args: tuple[object, ...], kwargs: dict[str, Tensor], name: str = name) -> None:
            read[name] += int(kwargs["attention_mask"].sum())

        model.register_forward_pre_hook(count, with_kwargs=True)
    compare(teacher, students, texts, log_target=same_columns, device=CPU, batch_tokens=60)
    ours = sum(len(text.student_read) for text in texts)
    assert read == {"teacher": sum(len(text.teacher_read) for text in texts), "before": ours, "after": ours}
    assert ours < sum(len(text.student.ids) for text in texts)


def test_likelihoods_that_are_no_numbers_are_reported() -> None:
    teacher, students = models()
    with torch.no_grad():
        next(teacher.parameters()).fill_(float("nan"))
    with pytest.raises(NotFiniteError, match="a text of document"):
        compare(teacher, students, make_texts(2), log_target=same_columns, device=CPU)

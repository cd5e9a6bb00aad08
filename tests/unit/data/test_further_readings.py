"""Examples as a further teacher reads them: cut at its context, left out where it cannot read, and what all guide together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tiny_models import tiny_sentencepiece_tokenizer, tiny_tokenizer

from distillkit.data.document import Document
from distillkit.data.example_builder import ExampleBuilder
from distillkit.data.examples import Example, load_examples, save_examples, stored_rows
from distillkit.data.further_readings import FurtherReading, coverage
from distillkit.data.stored_rows import StoredRows
from distillkit.data.text_encoder import TextEncoder, make_text_encoder

TEXTS = [
    "The keeper climbed the stairs, and the lamp was lit.", "Short text.", "Nobody had seen the boat for weeks; still he waited."
]  # fmt: skip


@pytest.fixture(scope="module")
def encoders(tmp_path_factory) -> tuple[TextEncoder, TextEncoder]:
    student = make_text_encoder(tiny_tokenizer(400), None, 128, needs_bytes=True)
    other = make_text_encoder(
        tiny_sentencepiece_tokenizer(tmp_path_factory.mktemp("words")), None, 128, needs_bytes=True
    )
    return student, other


@pytest.fixture
def rows(encoders, tmp_path) -> StoredRows:
    builder = ExampleBuilder(encoders[0], None, align=False, seed=1)
    save_examples(builder.build([Document(text, f"{n}") for n, text in enumerate(TEXTS)], 3), tmp_path / "rows")
    return stored_rows(load_examples(tmp_path / "rows"))


def again(
    rows: StoredRows, student: TextEncoder, teacher: TextEncoder, *, shortens: bool
) -> tuple[list[Example], FurtherReading]:
    reading = FurtherReading(ExampleBuilder(student, teacher, align=True, seed=1), shortens=shortens)
    return list(reading.read(rows)), reading


def test_the_students_side_stays_and_rows_are_paired(encoders, rows) -> None:
    found, reading = again(rows, *encoders, shortens=True)
    whole = list(ExampleBuilder(*encoders, align=True, seed=1).build([Document(row["text"], "x") for row in rows], 3))
    by_text = {example.text: example for example in whole}
    assert (reading.unread, reading.shortened) == (0, 0)
    for example, row in zip(found, rows, strict=True):
        assert (example.document, example.student_ids) == (row["document"], row["student_ids"])
        assert example.teacher_ids == by_text[row["text"]].teacher_ids
        assert example.rows is not None
        np.testing.assert_array_equal(example.rows.student_rows, by_text[row["text"]].rows.student_rows)


def test_a_text_that_is_too_long_is_read_up_to_the_context(encoders, rows) -> None:
    student, teacher = encoders
    short = replace(teacher, limit=16)
    whole, (found, reading) = (
        again(rows, student, teacher, shortens=True)[0],
        again(rows, student, short, shortens=True),
    )
    assert reading.shortened == 2
    for example, full in zip(found, whole, strict=True):
        assert example.rows is not None
        assert full.rows is not None
        assert len(example.teacher_ids) <= short.longest
        if example.teacher_ids == full.teacher_ids:
            continue
        assert example.teacher_ids == full.teacher_ids[: len(example.teacher_ids)]
        last = len(example.teacher_ids) - 1
        assert 0 < len(example.rows.student_rows) < len(full.rows.student_rows)
        # Nothing needs what this teacher has not read.
        assert example.rows.teacher_rows.max() < last
        assert ((example.rows.end_rows < last) | (example.rows.end_skips == 0)).all()
        kept = len(example.rows.student_rows)
        for name in ("student_rows", "teacher_rows", "skips", "end_rows", "end_skips"):
            np.testing.assert_array_equal(getattr(example.rows, name), getattr(full.rows, name)[:kept])
        assert example.rows.positions == full.rows.positions


def test_what_is_not_read_has_one_token_and_no_rows(encoders, rows) -> None:
    student, teacher = encoders
    found, reading = again(rows, student, replace(teacher, limit=16), shortens=False)
    assert (reading.unread, reading.shortened) == (2, 0)
    unread = [example for example in found if example.teacher_tokens == 0]
    assert len(unread) == 2
    for example in unread:
        assert (len(example.teacher_ids), example.bytes) == (1, 0)
        assert example.rows is not None
        assert (example.rows.positions, example.rows.positions_aligned) == (len(example.student_ids) - 1, 0)


def test_what_all_guide_together(encoders, rows, tmp_path) -> None:
    student, teacher = encoders
    paired = []
    for name, limit in (("long", 128), ("short", 16)):
        save_examples(again(rows, student, replace(teacher, limit=limit), shortens=True)[0], tmp_path / name)
        paired.append(stored_rows(load_examples(tmp_path / name)))
    positions = sum(len(row["student_ids"]) - 1 for row in rows)
    guided = [sum(len(row["student_rows"]) for row in part) / positions for part in paired]
    assert coverage(rows, paired, everywhere=False) == pytest.approx({"any": guided[0], "all": guided[1]})
    assert coverage(rows, paired, everywhere=True) == pytest.approx({"any": 1.0, "all": guided[1]})
    assert coverage(rows, [], everywhere=True) == {"any": 1.0, "all": 1.0}

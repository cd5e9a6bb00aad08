"""Where bits are lost, against a loop over characters and tokens; the classes of a division add up to the whole."""

from __future__ import annotations

import math
import unicodedata

import numpy as np
import pytest
from tiny_models import tiny_sentencepiece_tokenizer, tiny_tokenizer

from distillkit.data.text_encoder import TextEncoder, make_text_encoder
from distillkit.evaluation.details import token_counts
from distillkit.evaluation.lost_bits import DIVISIONS, KINDS, PlacedText, byte_kinds, lost_bits
from distillkit.evaluation.placing import placed_texts

TEXTS = (
    "The rate rose from 17 to 23.\n\n    Naïve café — “yes”!",
    "  x = 3.14  # π",
    "слово, 日本語 and 🦊🦊",
    "plain words only",
)


def kinds_by_hand(text: str) -> list[str]:
    def own(character: str) -> str:
        category = unicodedata.category(character)
        return {"L": "words", "M": "words", "N": "digits", "P": "punctuation", "S": "punctuation"}.get(
            category[0], "space"
        )

    found: list[str] = []
    for place, character in enumerate(text):
        kind = own(character)
        after = own(text[place + 1]) if place + 1 < len(text) else "space"
        before_is_space = place > 0 and own(text[place - 1]) == "space"
        if character == " " and after != "space" and not before_is_space:
            kind = after
        found += [kind] * len(character.encode())
    return found


@pytest.mark.parametrize("text", [*TEXTS, "", " ", "\n", "a "])
def test_kinds_of_bytes_equal_a_loop_over_characters(text: str) -> None:
    assert [KINDS[kind] for kind in byte_kinds(text)] == kinds_by_hand(text)


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TextEncoder]:
    tokenizers = {
        "student": tiny_tokenizer(),
        "teacher": tiny_sentencepiece_tokenizer(tmp_path_factory.mktemp("pieces")),
    }
    return {side: make_text_encoder(tokenizer, None, 512, needs_bytes=True) for side, tokenizer in tokenizers.items()}


def examples_of(encoders: dict[str, TextEncoder]) -> list[dict[str, object]]:
    rows = []
    for number, text in enumerate(TEXTS):
        row: dict[str, object] = {"text": text, "bytes": len(text.encode()), "document": number}
        for side, encoder in encoders.items():
            ids = encoder.token_ids(text)
            row |= {f"{side}_ids": encoder.with_specials(ids, ends=True), f"{side}_tokens": len(ids)}
        rows.append(row)
    return rows


def test_every_bit_is_in_one_class_of_each_division(encoders: dict[str, TextEncoder]) -> None:
    examples = examples_of(encoders)
    placed = {side: placed_texts(examples, encoder, side) for side, encoder in encoders.items()}  # type: ignore[arg-type]
    for readings in placed.values():
        assert all(reading is not None for reading in readings)
    generator = np.random.default_rng(0)
    by_token = {
        name: [generator.random(len(reading.sizes)) for reading in placed[side] if reading is not None]
        for name, side in (("before", "student"), ("teacher", "teacher"))
    }
    seen = token_counts([encoders["student"].token_ids(text) for text in TEXTS[:2] * 10])
    totals, left_out = lost_bits(placed, by_token, seen)
    assert left_out == 0
    for name, side in (("before", "student"), ("teacher", "teacher")):
        expected: dict[str, dict[str, list[float]]] = {
            division: {label: [0.0, 0] for label in labels} for division, labels in DIVISIONS.items()
        }
        for number, text in enumerate(TEXTS):
            own, student = placed[side][number], placed["student"][number]
            assert own is not None
            assert student is not None
            kinds = kinds_by_hand(text)
            places = [place for place, size in zip(student.places, student.sizes, strict=True) for _ in range(size)]
            times = [
                int(seen[token]) if token < len(seen) else 0
                for token, size in zip(student.ids, student.sizes, strict=True) for _ in range(size)
            ]  # fmt: skip
            at = 0
            for size, nats in zip(own.sizes.tolist(), by_token[name][number].tolist(), strict=True):
                spelled = range(at, at + size) if size else [min(at, len(kinds) - 1)]
                for byte in spelled:
                    rare = next(
                        label for label, low in (("100+", 100), ("10-99", 10), ("1-9", 1), ("never", 0))
                        if times[byte] >= low
                    )  # fmt: skip
                    place = next(
                        label for label, first in (("257+", 256), ("65-256", 64), ("17-64", 16), ("1-16", 0))
                        if places[byte] >= first
                    )  # fmt: skip
                    for division, label in (("kind", kinds[byte]), ("rarity", rare), ("position", place)):
                        expected[division][label][0] += nats / math.log(2) / (size or 1)
                        expected[division][label][1] += bool(size)
                at += size
        for division, classes in expected.items():
            record = totals[name].record(division)
            for label, (bits, size) in classes.items():
                assert record[label]["bits"] == pytest.approx(bits, abs=1e-9), (name, division, label)
                assert record[label]["bytes"] == size
            whole = sum(nats.sum() for nats in by_token[name]) / math.log(2)
            assert sum(of_class["bits"] for of_class in record.values()) == pytest.approx(whole)


def test_a_first_token_that_nothing_predicts_has_neither_bits_nor_bytes(encoders: dict[str, TextEncoder]) -> None:
    student = PlacedText("ab cd", 0, np.array([2, 3]), np.array([1, 2]), np.array([1, 2]))
    teacher = PlacedText("ab cd", 2, np.array([3]), np.array([7]), np.array([1]))
    placed = {"student": [student], "teacher": [teacher]}
    by_token = {"after": [np.array([1.0, 2.0])], "teacher": [np.array([3.0])]}
    totals, _ = lost_bits(placed, by_token, np.zeros(1, dtype=np.int64))
    assert totals["teacher"].record("kind")["words"] == {"bits": pytest.approx(3 / math.log(2)), "bytes": 3}
    assert totals["after"].record("kind")["words"]["bytes"] == 5


def test_a_text_that_one_model_cannot_place_is_left_out_for_all() -> None:
    student = PlacedText("ab", 0, np.array([2]), np.array([1]), np.array([1]))
    placed = {"student": [student, student], "teacher": [student, None]}
    by_token = {name: [np.array([1.0]), np.array([1.0])] for name in ("after", "teacher")}
    totals, left_out = lost_bits(placed, by_token, np.zeros(1, dtype=np.int64))
    assert left_out == 1
    assert totals["after"].bytes["kind"].sum() == totals["teacher"].bytes["kind"].sum() == 2

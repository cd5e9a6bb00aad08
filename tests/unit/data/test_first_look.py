"""A first look at texts: what is refused, and a bound of the examples that holds for what is really made of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_models import tiny_tokenizer

from distillkit.console import Console
from distillkit.data import first_look
from distillkit.data.example_builder import ExampleBuilder
from distillkit.data.first_look import FirstLook, look_at_texts
from distillkit.data.sources import load_documents
from distillkit.data.splitting import split_documents
from distillkit.data.text_encoder import make_text_encoder
from distillkit.errors import UsageError
from distillkit.settings.parameters import Parameters


def texts(path: Path, **settings: Any) -> Parameters:
    return Parameters(**{"dataset_path": str(path), "sample_size": 1000, "max_length": 32} | settings)


def write_rows(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def test_the_errors_are_those_of_the_reading(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "mine.jsonl", [{"text": f"A text, number {number}."} for number in range(9)])
    blank = tmp_path / "blank.jsonl"
    blank.write_text("\n\n")
    refused = [
        texts(tmp_path / "mien.jsonl"), texts(blank), texts(rows, text_column="txt"),
        texts(rows, data_format="messages"), texts(write_rows(tmp_path / "numbers.jsonl", [7, 8])),
    ]  # fmt: skip
    for config in refused:
        with pytest.raises(UsageError) as later:
            load_documents(config, Console(quiet=True))
        with pytest.raises(UsageError) as at_once:
            look_at_texts(config)
        assert (str(at_once.value), at_once.value.hint) == (str(later.value), later.value.hint)


def test_what_is_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert look_at_texts(Parameters(dataset="wikitext-2", sample_size=70)) == FirstLook(70, "not looked at")
    table = tmp_path / "a.csv"
    table.write_text("text\n" + "A line of a table.\n" * 9)
    assert look_at_texts(texts(table)) == FirstLook(1000, "first rows")
    rows = write_rows(tmp_path / "a.jsonl", [{"text": "A text."}] * 9)
    assert look_at_texts(texts(rows)) == FirstLook(9, "counted")
    assert look_at_texts(texts(rows, sample_size=5)) == FirstLook(5, "first rows")
    mix = Parameters(mix=f"{rows}:1,wikitext-2:3", sample_size=100, max_length=32)
    assert look_at_texts(mix) == FirstLook(9 + 75, "not looked at")
    monkeypatch.setattr(first_look, "_MOST_BYTES", 100)
    assert look_at_texts(texts(rows)) == FirstLook(1000, "first rows")


def test_conversations_are_parted_between_turns_at_most(tmp_path: Path) -> None:
    turns = [{"role": role, "content": "Words and words. " * 30} for role in ("user", "assistant")]
    chats = write_rows(tmp_path / "a.jsonl", [{"messages": turns * 2}] * 3)
    assert look_at_texts(texts(chats)) == FirstLook(12, "counted")


@pytest.mark.parametrize("name", ["few.jsonl", "many.jsonl", "prose.txt", "parted.txt"])
def test_never_more_examples_than_the_bound(name: str, tmp_path: Path) -> None:
    # Digits and signs, of which a token holds the fewest bytes.
    long = "".join(f"{number * 7919 % 9973}§" for number in range(300))
    path = tmp_path / name
    if name == "few.jsonl":
        write_rows(path, [{"text": long}, {"text": long[::-1]}])
    elif name == "many.jsonl":
        write_rows(path, [{"text": f"{number} {long[: number % 7 * 40]}"} for number in range(300)])
    else:
        path.write_text((long + "\n") if name == "prose.txt" else "\n<|endoftext|>\n".join(map(str, range(500))))
    config = texts(path, sample_size=10_000)
    look = look_at_texts(config)
    assert look.known == "counted"
    documents = load_documents(config, Console(quiet=True))
    split = split_documents(documents, seed=0, max_length=config.max_length)
    encoder = make_text_encoder(tiny_tokenizer(), None, config.max_length, needs_bytes=True)
    builder = ExampleBuilder(encoder, None, align=False, seed=0)
    parts = [list(builder.build(part, 20_000)) for part in (split.train, split.validation, split.test)]
    assert len(parts[0]) <= sum(map(len, parts)) <= look.examples < 10_000

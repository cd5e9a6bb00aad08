"""Conversations of every format in files of every kind, through the readers: the same turns, or said what is wrong."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import feather, parquet

from distillkit.console import Console
from distillkit.data.conversation import Conversation
from distillkit.data.document import DocumentSet
from distillkit.data.sources import load_documents
from distillkit.data.splitting import split_documents
from distillkit.errors import UsageError
from distillkit.settings.parameters import Parameters

COUNT = 30
ASKED = [f"Who lives in the house number {n}, «Größe»?\nSay it in a word." for n in range(COUNT)]
ANSWERED = [f'A baker, "the tall one", lives in it; the {n}th of his name.' for n in range(COUNT)]
EXPECTED = [[("user", a), ("assistant", b)] for a, b in zip(ASKED, ANSWERED, strict=True)]
MESSAGES = [[{"role": role, "content": text} for role, text in turns] for turns in EXPECTED]
SIDES = {"user": "human", "assistant": "gpt"}
ROWS: dict[str, list[dict[str, Any]]] = {
    "messages": [{"id": f"x-{n:04}", "messages": turns} for n, turns in enumerate(MESSAGES)],
    "conversations": [
        {"conversations": [{"from": SIDES[role], "value": text} for role, text in turns]} for turns in EXPECTED
    ],
    "prompt-completion": [{"prompt": a, "completion": b} for a, b in zip(ASKED, ANSWERED, strict=True)],
    "alpaca": [
        {"instruction": a, "input": "", "output": b, "id": f"x-{n:04}"}
        for n, (a, b) in enumerate(zip(ASKED, ANSWERED, strict=True))
    ],
    "question-answer": [{"question": a, "answer": b} for a, b in zip(ASKED, ANSWERED, strict=True)],
}


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writeheader()
        for row in rows:
            written = {
                key: cell if isinstance(cell, str) else json.dumps(cell, ensure_ascii=False)
                for key, cell in row.items()
            }
            writer.writerow(written)


def write_jsonl(path: Path, rows: list[Any]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_arrow(path: Path, rows: list[dict[str, Any]]) -> None:
    table = pyarrow.Table.from_pylist(rows)
    with pyarrow.OSFile(str(path), "wb") as sink, pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)


WRITERS: dict[str, Callable[[Path, list[dict[str, Any]]], object]] = {
    "jsonl": write_jsonl,
    "json": lambda path, rows: path.write_text(json.dumps(rows, indent=1), encoding="utf-8"),
    "jsonl.gz": lambda path, rows: path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode())),
    "csv": write_csv,
    "tsv": write_csv,
    "parquet": lambda path, rows: parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=7),
    "arrow": write_arrow,
    "feather": lambda path, rows: feather.write_feather(pyarrow.Table.from_pylist(rows), str(path)),
}


def read(path: Path, **settings: Any) -> DocumentSet:
    return load_documents(Parameters(dataset_path=str(path), **settings), Console(quiet=True))


def refusal(path: Path, **settings: Any) -> UsageError:
    with pytest.raises(UsageError) as caught:
        read(path, **settings)
    assert caught.value.exit_code == 2
    return caught.value


def turns(found: DocumentSet, split: str = "all") -> list[list[tuple[str, str]]]:
    conversations = [document.conversation for document in found.splits[split]]
    assert [item and item.canonical() for item in conversations] == [item.text for item in found.splits[split]]
    return [[(turn.role, turn.text) for turn in item.turns] for item in conversations if item is not None]


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("name", ROWS)
def test_every_format_in_every_file(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    WRITERS[kind](path, ROWS[name])
    for settings in ({}, {"data_format": name}):
        found = read(path, **settings)
        assert turns(found) == EXPECTED
        assert found.reading["formats"][path.name]["format"] == name
        assert found.reading["columns"] == {}
        assert f"read as {name} (column" in found.reading["remarks"][-1]
        assert found.reading["first_conversation"][0] == [
            "user", "Who lives in the house number 0, «Größe»?⏎Say it in a word.",
        ]  # fmt: skip
    withsystem = turns(read(path, system_prompt="Be brief."))
    assert withsystem == [[("system", "Be brief."), *expected] for expected in EXPECTED]


@pytest.mark.parametrize("kind", ["jsonl", "json"])
def test_rows_that_are_conversations_themselves(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    path.write_text("\n".join(map(json.dumps, MESSAGES)) if kind == "jsonl" else json.dumps(MESSAGES), encoding="utf-8")
    assert turns(read(path)) == EXPECTED


def test_folders_with_splits_and_several_formats(tmp_path: Path) -> None:
    WRITERS["parquet"](tmp_path / "train-0.parquet", ROWS["messages"][:20])
    write_jsonl(tmp_path / "train-1.jsonl", ROWS["alpaca"][20:25])
    write_jsonl(tmp_path / "test.jsonl", ROWS["messages"][25:])
    found = read(tmp_path)
    assert (turns(found, "train"), turns(found, "test")) == (EXPECTED[:25], EXPECTED[25:])
    assert {name: record["format"] for name, record in found.reading["formats"].items()} == {
        "train-0.parquet": "messages", "train-1.jsonl": "alpaca", "test.jsonl": "messages",
    }  # fmt: skip


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_texts_and_conversations_in_one_set_are_refused(tmp_path: Path, order: str) -> None:
    write_jsonl(tmp_path / f"{order[0]}.jsonl", ROWS["messages"])
    (tmp_path / f"{order[1]}.txt").write_text("She walked along the harbour.\n", encoding="utf-8")
    error = refusal(tmp_path)
    assert "texts and conversations in one data set: " in error.message
    assert f"{order[1]}.txt:1 is a text, {order[0]}.jsonl:1 a conversation" in error.message
    assert "--data-format text" in (error.hint or "")


def test_what_is_said_of_texts_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("She walked along the harbour.\n", encoding="utf-8")
    assert (
        "a.txt:1 is a text, and no conversation as --data-format messages says"
        in refusal(path, data_format="messages").message
    )
    assert (
        "--system-prompt is for conversations, and a.txt:1 is a text"
        in refusal(path, system_prompt="Be brief.").message
    )
    assert len(read(path, system_prompt=" ").splits["all"]) == 1


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_bad_rows_follow_the_policy(tmp_path: Path, kind: str) -> None:
    tool = {"id": "x-9999", "messages": [*MESSAGES[0], {"role": "tool", "content": "42"}]}
    first = {"id": "x-9998", "messages": MESSAGES[0][1:]}
    many = [row | {"id": f"{row['id']}-{n}"} for n in range(10) for row in ROWS["messages"]]
    path = tmp_path / f"a.{kind}"
    WRITERS[kind](path, [*many, tool, first])
    found = read(path)
    assert turns(found) == EXPECTED * 10
    bad = found.reading["bad_rows"][path.name]
    assert bad["rows"] == 2
    assert "turn 3 is a tool's ('tool'), which is not read" in bad["first"][0]
    assert "it begins with the assistant, who was asked nothing" in bad["first"][1]
    assert "row 301" in refusal(path, bad_rows="stop").message
    WRITERS[kind](path, [*ROWS["messages"], tool, first])
    error = refusal(path)
    assert "2 of 32 rows hold no conversation" in error.message
    assert "--bad-rows skip-all" in (error.hint or "")
    assert len(read(path, bad_rows="skip-all").splits["all"]) == COUNT


def test_rows_without_the_column_and_without_an_answer(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write_jsonl(
        path, [*ROWS["question-answer"], {"answer": "Yes."}, {"question": "Who?"}, {"question": 7, "answer": "Yes."}]
    )
    found = read(path, bad_rows="skip-all")
    assert turns(found) == EXPECTED
    first = found.reading["bad_rows"]["a.jsonl"]["first"]
    assert [reason.partition(": ")[2] for reason in first] == [
        "no column 'question'; columns: answer",
        "no answer of the assistant, hence nothing to learn; with --box-type black the teacher answers it",
        "column 'question': the number 7 instead of text",
    ]
    assert turns(read(path, bad_rows="skip-all", box_type="black"))[-1] == [("user", "Who?")]


def test_alpaca_joins_the_input_and_takes_the_system(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    write_csv(
        path,
        [
            {
                "system": "Be kind.",
                "instruction": "Translate the words below.",
                "input": "good day to you",
                "output": "guten Tag",
            },
            {"system": "", "instruction": "Say what you think of it.", "input": "NaN", "output": "It is a fine day."},
        ],
    )
    assert turns(read(path)) == [
        [("system", "Be kind."), ("user", "Translate the words below.\n\ngood day to you"), ("assistant", "guten Tag")],
        [("user", "Say what you think of it."), ("assistant", "It is a fine day.")],
    ]


def test_columns_that_are_called_alike(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        'prompt,prompt,completion\n"Who is it, please?","Who is it, now?","It is the baker."\n', encoding="utf-8"
    )
    assert "2 columns are called 'prompt'" in refusal(path, csv_header="present").message


def test_conversations_are_divided_whole(tmp_path: Path) -> None:
    long = [{"messages": [{"role": r, "content": f"{t} {'and so on. ' * 3000}"} for r, t in pair]} for pair in EXPECTED]
    path = tmp_path / "a.jsonl"
    write_jsonl(path, [*long, *long[:5]])
    found = read(path)
    split = split_documents(found, seed=1, max_length=64, held_out_size=4)
    parts = [document for part in (split.train, split.validation, split.test) for document in part]
    assert split.duplicates == {"duplicate documents left out": 5}
    assert len(parts) == COUNT
    assert {part.text for part in parts} == {document.text for document in found.splits["all"]}
    assert all(part.conversation == Conversation.from_canonical(part.text) for part in parts)
    write_jsonl(path, long[:2])
    with pytest.raises(UsageError, match=r"too few conversations to split: 2, and at least 3 that differ are needed"):
        split_documents(read(path), seed=1)

"""Which columns are conversations: turns or pairs, and nothing where two readings are possible."""

from __future__ import annotations

import json
from typing import Any

import pytest

from distillkit.data.layouts import Layout, choose_layout
from distillkit.data.reading_options import ReadingOptions
from distillkit.errors import UsageError

ROWS = 40
NAMES = ["harbour", "lantern", "wagon", "orchard", "violin", "market", "kettle", "mirror"]
PROSE = [f"She walked past the {NAMES[n % 8]} with the old {NAMES[n * 3 % 8]} on day {n}." for n in range(ROWS)]
OTHER = [f"He counted {n} of the {NAMES[n * 5 % 8]}s and went home again." for n in range(ROWS)]
IDS = [f"row-{n:05}" for n in range(ROWS)]
TURNS = [
    [{"role": "user", "content": a}, {"role": "assistant", "content": b}] for a, b in zip(PROSE, OTHER, strict=True)
]
SHARE_GPT = [[{"from": "human", "value": a}, {"from": "gpt", "value": b}] for a, b in zip(PROSE, OTHER, strict=True)]
BY_KEY = [{"from": ["human", "gpt"], "value": ["Hi.", "Good day."]}] * ROWS
WRITTEN = [json.dumps(turns) for turns in TURNS]


def layout(columns: dict[str, Any], **options: Any) -> Layout:
    return choose_layout(columns, ReadingOptions(**options), "a.jsonl")


def refusal(columns: dict[str, Any], **options: Any) -> UsageError:
    with pytest.raises(UsageError) as caught:
        layout(columns, **options)
    assert caught.value.exit_code == 2
    return caught.value


@pytest.mark.parametrize(
    ("columns", "name", "read"),
    [
        ({"id": IDS, "messages": TURNS}, "messages", {"turns": "messages"}),
        ({"chat": TURNS, "id": IDS}, "messages", {"turns": "chat"}),
        ({"conversations": SHARE_GPT}, "conversations", {"turns": "conversations"}),
        ({"conversations": TURNS}, "conversations", {"turns": "conversations"}),
        ({"dialogue": SHARE_GPT}, "conversations", {"turns": "dialogue"}),
        ({"conversations": BY_KEY, "id": IDS}, "conversations", {"turns": "conversations"}),
        ({"messages": WRITTEN, "id": IDS}, "messages", {"turns": "messages"}),
        ({"messages": TURNS, "prompt": PROSE, "source": ["web"] * ROWS}, "messages", {"turns": "messages"}),
        ({"messages": TURNS, "system": PROSE}, "messages", {"turns": "messages", "system": "system"}),
        ({"messages": TURNS, "text": list(range(ROWS))}, "messages", {"turns": "messages"}),
        ({"prompt": [turns[:1] for turns in TURNS]}, "messages", {"turns": "prompt"}),
        ({"prompt": PROSE, "completion": OTHER}, "prompt-completion", {"question": "prompt", "answer": "completion"}),
        ({"prompt": PROSE, "response": OTHER, "id": IDS}, "prompt-completion", {"question": "prompt", "answer": "response"}),
        ({"prompt": [t[:1] for t in TURNS], "completion": [t[1:] for t in TURNS]}, "prompt-completion", {"question": "prompt", "answer": "completion"}),
        ({"input": PROSE, "output": OTHER}, "prompt-completion", {"question": "input", "answer": "output"}),
        ({"instruction": PROSE, "input": [""] * ROWS, "output": OTHER}, "alpaca", {"question": "instruction", "input": "input", "answer": "output"}),
        ({"instruction": ["Summarise."] * ROWS, "output": OTHER}, "alpaca", {"question": "instruction", "answer": "output"}),
        ({"instruction": PROSE, "output": OTHER, "history": [[["a", "b"]]] * ROWS}, "alpaca", {"question": "instruction", "history": "history", "answer": "output"}),
        ({"Instruction": PROSE, "context": PROSE, "Response": OTHER, "category": ["qa"] * ROWS}, "alpaca", {"question": "Instruction", "input": "context", "answer": "Response"}),
        ({"question": PROSE, "answer": [str(n) for n in range(ROWS)]}, "question-answer", {"question": "question", "answer": "answer"}),
        ({"system_prompt": PROSE, "question": PROSE, "response": OTHER, "id": IDS}, "question-answer", {"question": "question", "answer": "response", "system": "system_prompt"}),
        ({"question": PROSE, "answer": OTHER, "url": IDS, "title": OTHER}, "question-answer", {"question": "question", "answer": "answer"}),
    ],
)  # fmt: skip
def test_conversations_are_found_by_their_columns(columns: dict[str, Any], name: str, read: dict[str, str]) -> None:
    found = layout(columns)
    assert (found.format, found.columns) == (name, read)
    # The same where it is said.
    assert layout(columns, data_format=name).columns == read
    assert Layout.of_record(json.loads(json.dumps(found.record()))) == found


@pytest.mark.parametrize(
    ("columns", "told", "flags"),
    [
        ({"text": PROSE, "messages": TURNS}, "messages (column messages); column text", ["messages", "text --text-column text"]),
        ({"body": PROSE, "messages": TURNS}, "messages (column messages); column body", ["messages", "text --text-column body"]),
        ({"conversations": SHARE_GPT, "messages": TURNS}, "conversations (column conversations); messages (column messages)", ["conversations", "messages"]),
        ({"chosen": TURNS, "rejected": TURNS, "prompt": PROSE}, "messages (column chosen); messages (column rejected)", ["messages --text-column chosen", "messages --text-column rejected"]),
        ({"instruction": PROSE, "response": OTHER, "conversations": SHARE_GPT}, "conversations (column conversations); alpaca (columns instruction, response)", ["conversations", "alpaca"]),
        ({"instruction": PROSE, "input": PROSE, "output": OTHER, "text": PROSE}, "alpaca (columns instruction, input, output); column text", ["alpaca", "text --text-column text"]),
        ({"question": PROSE, "context": PROSE, "answer": OTHER}, "question-answer (columns question, answer); column context", ["question-answer"]),
        ({"question": PROSE, "choices": [["a", "b"]] * ROWS, "answer": OTHER}, "question-answer (columns question, answer); column choices", ["question-answer"]),
        ({"question": PROSE, "answer": OTHER, "solution": PROSE}, "question-answer (columns question, answer); column solution", ["question-answer"]),
        ({"prompt": PROSE, "question": PROSE, "answer": OTHER}, "prompt-completion (columns prompt, answer); question-answer (columns question, answer)", ["prompt-completion", "question-answer"]),
    ],
)  # fmt: skip
def test_two_readings_are_refused_and_a_flag_mends_it(columns: dict[str, Any], told: str, flags: list[str]) -> None:
    error = refusal(columns)
    assert f"a.jsonl: it is not clear what is to be read: {told}" in error.message
    assert all(f"{name}: " in error.message.partition("; columns: ")[2] for name in columns)
    for flag in flags:
        assert f"--data-format {flag}" in (error.hint or "")
        name, _, column = flag.partition(" --text-column ")
        assert layout(columns, data_format=name, text_column=column or None).format == name


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"dialog": [["Hi.", "Good day, how are you?"]] * 3, "topic": PROSE[:3]}, "dialog: turns that do not say who speaks"),
        ({"messages": [str(turns) for turns in TURNS]}, "messages: lists in Python's notation"),
        ({"role": ["user", "assistant"] * 20, "content": PROSE}, "role: its rows are single turns"),
        ({"question": PROSE, "choices": [["one", "two"]] * ROWS, "answer": list(range(ROWS))}, "question, choices, answer: the sides"),
        ({"question": PROSE, "answer": list(range(ROWS))}, "question, answer: the sides of a conversation"),
        ({"prompt": PROSE, "chosen": OTHER, "rejected": OTHER[::-1]}, "prompt, chosen, rejected: the sides"),
        ({"user": PROSE, "assistant": OTHER}, "user, assistant: the sides of a conversation"),
    ],
)  # fmt: skip
def test_conversations_that_cannot_be_read_are_not_read_as_texts(columns: dict[str, Any], words: str) -> None:
    error = refusal(columns)
    assert f"a.jsonl: {words}" in error.message
    assert error.hint
    assert layout(columns | {"text": PROSE[: len(next(iter(columns.values())))]}).columns == {"text": "text"}


def test_half_of_a_pair_alone_is_a_text() -> None:
    for name in ("output", "prompt", "question", "response"):
        assert layout({name: PROSE, "label": list(range(ROWS))}).columns == {"text": name}
    assert layout({"input": IDS, "output": PROSE}).columns == {"text": "output"}
    assert layout({"sender": [f"{name}@example.org" for name in IDS], "text": PROSE}).columns == {"text": "text"}


def test_what_is_said_is_read_or_refused() -> None:
    both = {"text": PROSE, "messages": TURNS, "question": PROSE, "answer": OTHER}
    assert layout(both, data_format="text").columns == {"text": "text"}
    assert layout(both, data_format="messages").columns == {"turns": "messages"}
    assert layout(both, data_format="conversations").columns == {"turns": "messages"}
    assert layout(both, data_format="question-answer").columns == {"question": "question", "answer": "answer"}
    assert (
        "no columns of --data-format alpaca (instruction beside output or"
        in refusal(both, data_format="alpaca").message
    )
    assert "no column of turns (--data-format messages)" in refusal({"text": PROSE}, data_format="messages").message
    several = {"a": TURNS, "b": TURNS}
    assert "several columns of turns: a, b" in refusal(several, data_format="messages").message
    assert layout(several, data_format="messages", text_column="b").columns == {"turns": "b"}
    # Questions alone are something to answer in black box only.
    assert "no columns of" in refusal({"prompt": PROSE}, data_format="prompt-completion").message
    alone = layout({"prompt": PROSE}, data_format="prompt-completion", box_type="black")
    assert alone.columns == {"question": "prompt"}


def test_a_named_column() -> None:
    columns = {"text": PROSE, "messages": TURNS, "written": WRITTEN}
    assert layout(columns, text_column="messages").columns == {"turns": "messages"}
    assert layout(columns, text_column="text").columns == {"text": "text"}
    # Turns that are written as JSON are a text too.
    assert layout(columns, text_column="written").columns == {"text": "written"}
    assert layout(columns, text_column="written", data_format="messages").columns == {"turns": "written"}
    assert "column 'text' holds no turns" in refusal(columns, text_column="text", data_format="messages").message
    assert "does not hold text but chat turns" in refusal(columns, text_column="messages", data_format="text").message
    assert "no column 'absent'" in refusal(columns, text_column="absent", data_format="messages").message
    assert "exclude each other" in refusal(columns, text_column="text", data_format="alpaca").message

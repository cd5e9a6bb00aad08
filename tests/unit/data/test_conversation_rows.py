"""Cells -> turns, and turns as they are learnt from: roles, parts, what is no text, what is joined, what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from distillkit.data.bad_rows import BadRow
from distillkit.data.conversation import Conversation, Turn
from distillkit.data.conversation_rows import TurnFaultError, finished_rows, turns_of
from distillkit.data.layouts import Layout
from distillkit.data.notes import ReadingNotes
from distillkit.data.reading_options import ReadingOptions
from distillkit.data.rows import Row, row_documents

SAID = [Turn("system", "S"), Turn("user", "Who?"), Turn("assistant", "Nobody.")]


@pytest.mark.parametrize(
    "value",
    [
        [{"role": "system", "content": "S"}, {"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Nobody."}],
        [{"from": "system", "value": "S"}, {"from": "human", "value": "Who?"}, {"from": "gpt", "value": "Nobody."}],
        [{"role": "developer", "content": "S"}, {"role": "USER", "content": "Who?"}, {"role": "model", "parts": ["Nobody."]}],
        [{"role": "system", "content": ["S"]}, {"role": "user", "content": [{"type": "text", "text": "W"}, {"type": "text", "text": "ho?"}]}, {"role": "assistant", "content": {"text": "Nobody."}, "tool_calls": []}],
        {"role": ["system", "user", "assistant"], "content": ["S", "Who?", "Nobody."]},
        [{"Role": "System", "Content": "S"}, {"Role": "User", "Content": "Who?"}, {"Role": "Assistant", "Content": "Nobody.", "weight": 1}],
        ({"role": "system", "content": "S", "from": None}, {"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Nobody."}),
    ],
    ids=["role", "from", "other names", "parts", "object of lists", "capitals", "tuple"],
)  # fmt: skip
def test_turns_of_every_kind_are_read(value: Any) -> None:
    assert turns_of(value) == SAID
    if not isinstance(value, tuple):
        assert turns_of(json.dumps(value)) == SAID


def test_a_history_goes_before_the_question() -> None:
    layout = Layout(
        "alpaca", {"question": "instruction", "history": "history", "answer": "output", "system": "system"}, ""
    )
    cells = {"instruction": "And?", "output": "No.", "system": "S", "history": [["Who?", "Nobody."]]}
    row = layout.row(cells, "row 1", "1")
    assert isinstance(row, Row)
    assert row.conversation is not None
    said = ["S", "Who?", "Nobody.", "And?", "No."]
    assert [turn.text for turn in row.conversation.turns] == said
    written = layout.row({**cells, "history": '[["Who?", "Nobody."]]'}, "row 1", "1")
    assert isinstance(written, Row)
    assert written.text == row.text
    for empty in (None, [], ""):
        alone = layout.row({**cells, "history": empty}, "row 1", "1")
        assert isinstance(alone, Row)
        assert [turn.text for turn in alone.conversation.turns] == ["S", "And?", "No."]  # type: ignore[union-attr]
    for wrong in ([["Who?"]], [["Who?", None]], "Who?", ["Who?", "Nobody."]):
        bad = layout.row({**cells, "history": wrong}, "row 1", "1")
        assert isinstance(bad, BadRow)
        assert "column 'history'" in bad.what


def test_one_turn_and_empty_turns() -> None:
    assert turns_of({"role": "user", "content": "Who?"}) == [Turn("user", "Who?")]
    assert turns_of([{"role": "user", "content": ""}]) == [Turn("user", "")]


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (None, "null instead of turns"),
        (7, "the number 7 instead of turns"),
        ("Hello.", "a text instead of turns"),
        ("[" * 100_000, "a text instead of turns"),
        ([], "an empty list: no turns"),
        (["Hello.", "Good day."], "turn 1 is a text, and does not say who speaks"),
        ([{"content": "Hello."}], "turn 1 does not say who speaks"),
        ([{"role": "user", "content": "Hi."}, {"role": "narrator", "content": "He came in."}], "turn 2 is said by 'narrator', who"),
        ([{"role": 7, "content": "Hi."}], "turn 1 is said by the number 7, who"),
        ([{"role": "tool", "content": "42"}], "turn 1 is a tool's ('tool'), which is not read"),
        ([{"from": "observation", "value": "42"}], "turn 1 is a tool's ('observation')"),
        ([{"role": "assistant", "content": None, "tool_calls": [{"id": "x"}]}], "turn 1 calls a tool, which is not read"),
        ([{"role": "assistant", "content": "Wait.", "function_call": {"name": "f"}}], "turn 1 calls a tool"),
        ([{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "No.", "weight": 0}], "turn 2 has a weight (0)"),
        ([{"role": "user", "content": None}], "turn 1 has no content"),
        ([{"role": "user", "content": 7}], "turn 1 holds the number 7 instead of text"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}], "a part that is no text ('image_url')"),
        ([{"role": "user", "content": [{"type": "text", "text": None}]}], "a part that is no text (an object)"),
        ([{"role": "user", "content": ["a", 7]}], "a part that is no text (the number 7)"),
        ([{"role": "user", "content": "half \ud83d"}], "turn 1: half a surrogate pair (\\ud83d)"),
        ([{"role": "user", "content": "a\0b"}], "turn 1: NUL character"),
    ],
)  # fmt: skip
def test_what_is_no_turn_is_said(value: Any, why: str) -> None:
    with pytest.raises(TurnFaultError) as caught:
        turns_of(value)
    assert why in str(caught.value)


def finished(*turns: tuple[str, str], **options: Any) -> tuple[Row | BadRow, ReadingNotes]:
    notes = ReadingNotes()
    conversation = Conversation(tuple(Turn(role, text) for role, text in turns))  # pyright: ignore[reportArgumentType]
    row = Row(conversation.canonical(), "a.jsonl:1", True, conversation)
    return next(finished_rows([row], ReadingOptions(**options), notes)), notes


def turns(*said: tuple[str, str], **options: Any) -> list[tuple[str, str]]:
    row, _ = finished(*said, **options)
    assert isinstance(row, Row), row
    assert row.conversation is not None
    assert row.text == row.conversation.canonical()
    assert Conversation.from_canonical(row.text) == row.conversation
    return [(turn.role, turn.text) for turn in row.conversation.turns]


def test_turns_are_cleaned_as_texts_are() -> None:
    assert turns(("user", "\n  a\r\nb \n"), ("assistant", " \n")) == [("user", "  a\nb"), ("assistant", "")]


def test_turns_of_one_side_are_joined_and_counted() -> None:
    said = (
        ("system", "S"),
        ("system", "T"),
        ("user", "a"),
        ("user", "b"),
        ("assistant", "c"),
        ("assistant", ""),
        ("assistant", "d"),
    )
    row, notes = finished(*said)
    assert isinstance(row, Row)
    assert turns(*said) == [("system", "S\n\nT"), ("user", "a\n\nb"), ("assistant", "c\n\nd")]
    assert notes.lines() == ["turns of the same side as the one before, joined with it: 4"]
    assert notes.record()["remarks"] == notes.lines()


def test_the_system_prompt_is_added_where_the_system_says_nothing() -> None:
    said = ("user", "a"), ("assistant", "b")
    assert turns(*said, system_prompt="Be brief.\n") == [("system", "Be brief."), *said]
    assert turns(("system", " "), *said, system_prompt="Be brief.") == [("system", "Be brief."), *said]
    assert turns(("system", "S"), *said, system_prompt="Be brief.") == [("system", "S"), *said]
    for nothing in (None, "", " \n"):
        assert turns(("system", ""), *said, system_prompt=nothing) == list(said)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (
            [("assistant", "a"), ("user", "b"), ("assistant", "c")],
            "it begins with the assistant, who was asked nothing",
        ),
        ([("user", "a"), ("system", "S"), ("assistant", "b")], "a turn of the system stands behind others"),
        ([("user", " "), ("assistant", "\n")], "nothing is said in it"),
        ([("system", "S")], "nothing is said in it"),
        ([("user", "a")], "no answer of the assistant, hence nothing to learn; with --box-type black"),
    ],
)
def test_what_cannot_be_learnt_is_a_bad_row(said: list[tuple[str, str]], why: str) -> None:
    row, _ = finished(*said, system_prompt="Be brief.")
    assert isinstance(row, BadRow)
    assert (row.where, row.is_fault, row.wanted) == ("a.jsonl:1", True, "conversation")
    assert why in row.what


def test_in_black_box_a_prompt_needs_no_answer() -> None:
    assert turns(("user", "a"), box_type="black") == [("user", "a")]


def test_what_a_teacher_is_asked() -> None:
    asked = Conversation((Turn("system", "S"), Turn("user", "a"), Turn("assistant", "b"), Turn("user", "c")))
    assert asked.prompt == asked.turns
    assert Conversation((*asked.turns, Turn("assistant", "d"))).prompt == asked.turns


def test_a_conversation_is_one_document_however_long() -> None:
    row, notes = finished(("user", "word " * 5000), ("assistant", "line\n" * 5000))
    assert isinstance(row, Row)
    [document] = row_documents([row], 64, notes)
    assert (document.text, document.conversation, document.ends_text) == (row.text, row.conversation, True)


def test_reasoning_is_removed_from_answers() -> None:
    turns = [Turn("user", "<think>x</think>Who?"), Turn("assistant", "<think>\nHm.\n</think>\n\nAda.")]
    conversation = Conversation(tuple(turns))
    row = Row(conversation.canonical(), "a:1", conversation=conversation)

    def read(turns_row: Row, mode: str) -> object:
        return next(finished_rows([turns_row], ReadingOptions(reasoning=mode), ReadingNotes()))  # type: ignore[arg-type]

    kept, stripped = read(row, "keep"), read(row, "strip")
    assert isinstance(kept, Row)
    assert isinstance(stripped, Row)
    assert kept.conversation == conversation
    assert stripped.conversation == Conversation((turns[0], Turn("assistant", "Ada.")))
    assert stripped.text == Conversation((turns[0], Turn("assistant", "Ada."))).canonical()
    torn = Conversation((turns[0], Turn("assistant", "<think>Hm.")))
    bad = read(row._replace(conversation=torn, text=torn.canonical()), "strip")
    assert isinstance(bad, BadRow)
    assert "without an end" in bad.what

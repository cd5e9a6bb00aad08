"""The cells of a row -> turns, as they stand there; and turns as they are learnt from.

The first step needs no settings, so that what was fetched once can be read again with others.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from distillkit.data.bad_rows import BadRow, string_fault
from distillkit.data.cleaning import clean_text
from distillkit.data.columns import kind_of
from distillkit.data.conversation import Conversation, Role, Turn
from distillkit.data.notes import ReadingNotes
from distillkit.data.reading_options import ReadingOptions
from distillkit.data.reasoning import without_reasoning
from distillkit.data.rows import Row

ROLE_KEYS = ("role", "from", "speaker", "sender")
"""What the side that speaks is called in a turn."""
CONTENT_KEYS = ("content", "value", "text", "message", "utterance", "parts")
"""What its words are called."""
ROLE_NAMES: Mapping[str, Role] = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant", "chatbot": "assistant",
    "model": "assistant", "ai": "assistant",
}  # fmt: skip
"""Names of the sides, in small letters."""

_TOOL_ROLES = frozenset((
    "tool", "tools", "function", "function_call", "function_response", "tool_call", "tool_response", "tool_result",
    "observation", "ipython",
))  # fmt: skip
_CALLS = ("tool_calls", "function_call")
_TEXT_PARTS = (None, "text", "input_text", "output_text")
_BETWEEN = "\n\n"


class TurnFaultError(Exception):
    """What stands in a row is no conversation that can be read; the message says why."""


def turns_of(value: Any) -> list[Turn]:
    """The turns in a cell: a list of them, the same written as JSON, an object of lists, or a single one.

    Raises:
        TurnFaultError: something else stands there, or a turn that is no text of system, user or assistant.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise TurnFaultError("a text instead of turns") from None
    if isinstance(value, Mapping):
        value = _items(value)
    if not isinstance(value, (list, tuple)):
        raise TurnFaultError(f"{kind_of(value)} instead of turns")
    if not value:
        raise TurnFaultError("an empty list: no turns")
    return [_turn(item, number) for number, item in enumerate(value, 1)]


def history_turns(value: Any) -> list[Turn]:
    """The turns before a question, as Alpaca's rows may have them: [[question, answer], …], or the same written as JSON.

    Raises:
        TurnFaultError: something else stands there.
    """
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise TurnFaultError("a text instead of [[question, answer], …]") from None
    turns: list[Turn] = []
    for pair in value or ():
        if not isinstance(pair, (list, tuple)) or len(pair) != 2 or not all(isinstance(side, str) for side in pair):
            raise TurnFaultError("it holds something else than [question, answer]")
        turns += [Turn("user", pair[0]), Turn("assistant", pair[1])]
    return turns


def _items(value: Mapping[str, Any]) -> list[Any]:
    """The turns of an object: it is one itself, or `{"role": […], "content": […]}`, as `datasets` may store a list."""
    columns = {key: cells for key, cells in value.items() if isinstance(cells, (list, tuple))}
    keys = [key for key in ROLE_KEYS if key in columns]
    if not keys:
        return [value]
    length = len(columns[keys[0]])
    whole = {key: cells for key, cells in columns.items() if len(cells) == length}
    return [{key: cells[number] for key, cells in whole.items()} for number in range(length)]


def _turn(item: Any, number: int) -> Turn:
    if not isinstance(item, Mapping):
        what = "a text" if isinstance(item, str) else kind_of(item)
        raise TurnFaultError(f"turn {number} is {what}, and does not say who speaks")
    item = {str(key).lower(): value for key, value in item.items()}
    name = next((item[key] for key in ROLE_KEYS if item.get(key) is not None), None)
    if name is None:
        raise TurnFaultError(f"turn {number} does not say who speaks")
    role = ROLE_NAMES.get(name.strip().lower()) if isinstance(name, str) else None
    if isinstance(name, str) and name.strip().lower() in _TOOL_ROLES:
        raise TurnFaultError(f"turn {number} is a tool's ('{name}'), which is not read")
    if any(item.get(key) for key in _CALLS):
        raise TurnFaultError(f"turn {number} calls a tool, which is not read")
    if role is None:
        shown = f"'{name[:40]}'" if isinstance(name, str) else kind_of(name)
        raise TurnFaultError(f"turn {number} is said by {shown}, who is neither system nor user nor assistant")
    if role == "assistant" and item.get("weight") not in (None, 1):
        # OpenAI's field for fine-tuning: 0 is an answer that must not be learnt.
        raise TurnFaultError(f"turn {number} has a weight ({item['weight']!r}): answers are learnt with weight 1 only")
    content = next((item[key] for key in CONTENT_KEYS if item.get(key) is not None), None)
    if content is None:
        raise TurnFaultError(f"turn {number} has no content")
    text = _content(content, number)
    fault = string_fault(text)
    if fault is not None:
        raise TurnFaultError(f"turn {number}: {fault}")
    return Turn(role, text)


def _content(content: Any, number: int) -> str:
    """The words of a turn: a string, or parts that are all text, joined as they are."""
    if isinstance(content, str):
        return content
    parts = [content] if isinstance(content, Mapping) else content
    if not isinstance(parts, (list, tuple)):
        raise TurnFaultError(f"turn {number} holds {kind_of(content)} instead of text")
    return "".join(_part(part, number) for part in parts)


def _part(part: Any, number: int) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, Mapping):
        kind = part.get("type")
        if kind in _TEXT_PARTS and isinstance(part.get("text"), str):
            return part["text"]
        if kind not in _TEXT_PARTS:
            raise TurnFaultError(f"turn {number} has a part that is no text ('{str(kind)[:40]}')")
    raise TurnFaultError(f"turn {number} has a part that is no text ({kind_of(part)})")


def finished_rows(rows: Iterable[Row | BadRow], options: ReadingOptions, notes: ReadingNotes) -> Iterator[Row | BadRow]:
    """Rows whose conversations are as a chat template takes them: at most one turn of the system, in front, then user and
    assistant by turns.

    Each turn is cleaned as a text is. Turns of one side that follow one another are joined, a blank line between them. A
    conversation without a turn of the system gets `system_prompt`; with `reasoning` "strip" answers lose theirs. What then begins with the assistant, has the system
    speak later, says nothing, or holds no answer is a bad row; without an answer it is a prompt in black box.

    Args:
        options: `system_prompt`, `box_type`, `reasoning`.
        notes: takes how many turns were joined, and how many lost a reasoning block.
    """
    for row in rows:
        if isinstance(row, BadRow) or row.conversation is None:
            yield row
            continue
        turns = _joined(row.conversation.turns, notes)
        if options.reasoning == "strip":
            turns = _without_reasoning(turns, notes)
        if turns is None:
            yield BadRow(row.origin, "a reasoning block without an end", is_fault=True, wanted="conversation")
            continue
        if turns and turns[0] == Turn("system", ""):
            del turns[0]
        if options.system_prompt and options.system_prompt.strip() and not (turns and turns[0].role == "system"):
            turns.insert(0, Turn("system", clean_text(options.system_prompt)))
        fault = _fault(turns, options)
        if fault is not None:
            yield BadRow(row.origin, fault, is_fault=True, wanted="conversation")
            continue
        conversation = Conversation(tuple(turns))
        yield row._replace(text=conversation.canonical(), conversation=conversation)


def _joined(turns: Iterable[Turn], notes: ReadingNotes) -> list[Turn]:
    joined: list[Turn] = []
    for turn in turns:
        text = clean_text(turn.text)
        if joined and joined[-1].role == turn.role:
            before = joined.pop().text
            text = _BETWEEN.join(part for part in (before, text) if part)
            notes.changed("turns of the same side as the one before, joined with it")
        joined.append(Turn(turn.role, text))
    return joined


def _without_reasoning(turns: list[Turn], notes: ReadingNotes) -> list[Turn] | None:
    """The turns as they are with `--reasoning strip`; None where a block has no end."""
    found: list[Turn] = []
    for turn in turns:
        answer = without_reasoning(turn.text) if turn.role == "assistant" else turn.text
        if answer is None:
            return None
        if answer != turn.text:
            notes.changed("answers that begin with a reasoning block, which was removed")
        found.append(Turn(turn.role, answer))
    return found


def _fault(turns: list[Turn], options: ReadingOptions) -> str | None:
    said = turns[1:] if turns and turns[0].role == "system" else turns
    if not any(turn.text for turn in said):
        return "nothing is said in it"
    if any(turn.role == "system" for turn in said):
        return "a turn of the system stands behind others"
    if said[0].role == "assistant":
        return "it begins with the assistant, who was asked nothing"
    if options.box_type == "white" and not any(turn.role == "assistant" for turn in said):
        return "no answer of the assistant, hence nothing to learn; with --box-type black the teacher answers it"
    return None

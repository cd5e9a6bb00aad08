"""Which columns of a table hold conversations: one of turns, or one of questions and one of answers.

Names say what the sides of a pair are, values that a column holds turns. Where two readings are possible nothing is chosen.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from distillkit.data.column_looks import FEW_VALUES, Look, is_text, is_turn, is_turn_column, look_at
from distillkit.data.columns import is_beside, is_prose, is_usual_name, listed_columns, quoted_column
from distillkit.data.conversation_rows import CONTENT_KEYS, ROLE_KEYS, ROLE_NAMES
from distillkit.data.reading_options import ReadingOptions
from distillkit.errors import UsageError

TEXT = "text"
TURN_FORMATS = ("messages", "conversations")

Columns = Mapping[str, Sequence[Any] | Look]


class _Sides(NamedTuple):
    """What the columns of a format may be called, the usual name first."""

    questions: tuple[str, ...]
    answers: tuple[str, ...]
    inputs: tuple[str, ...] = ()


_SIDES: Mapping[str, _Sides] = {
    "prompt-completion": _Sides(("prompt", "input"), ("completion", "response", "output", "answer", "solution", "reply")),
    "alpaca": _Sides(("instruction",), ("output", "response", "completion", "answer"), ("input", "context")),
    "question-answer": _Sides(
        ("question", "query", "problem"), ("answer", "response", "solution", "output", "completion", "reply")
    ),
}  # fmt: skip
PAIR_FORMATS = tuple(_SIDES)
_SYSTEM = ("system", "system_prompt", "system_message")
# Other names of the two sides of what is written to instruct a model: none of them is read by itself, and none is a text.
_ASKING = frozenset((
    "prompt", "prompts", "instruction", "instructions", "question", "questions", "query", "input", "inputs", "problem",
))  # fmt: skip
_ANSWERING = frozenset((
    "completion", "completions", "response", "responses", "output", "outputs", "answer", "answers", "chosen",
    "rejected", "choices", "options", "target", "targets", "reply", "solution", "correct_answer", "best_answer",
))  # fmt: skip
_SPEAKERS = (frozenset(("user", "human")), frozenset(("assistant", "gpt", "bot", "model", "ai")))
_SPOKEN = ("prose", "short", "words")
_NEVER_SAID = ("addresses (URLs)", "e-mail addresses", "identifiers", "names of files", "encoded data")
_LOOKED_AT = 50
_RENAME = "rename the columns to prompt and completion, or name a column of texts with --data-format text --text-column"


class FoundColumns(NamedTuple):
    """A reading of a table as conversations; the fields are those of `layouts.Layout`."""

    format: str
    columns: Mapping[str, str]
    why: str
    written: frozenset[str] = frozenset()

    def told(self) -> str:
        """For people: "messages (column chat)", "alpaca (columns instruction, output)"."""
        names = ", ".join(self.columns.values())
        return f"{self.format} ({'column' if len(self.columns) == 1 else 'columns'} {names})"


def may_hold_conversations(names: Sequence[str], looks: Mapping[str, Look | None]) -> bool:
    """Whether a table needs a closer look before its column `text` is taken: by names, and by what is known of types.

    Args:
        names: of all columns.
        looks: of each, None where it is not known without values.
    """
    known = {_plain(name) for name in names}
    if any(look is not None and look.kind == "chat" for look in looks.values()) or any(map(is_turn_column, names)):
        return True
    sides = (_ASKING, _ANSWERING), _SPEAKERS
    return any(known & first and known & second for first, second in sides) or _are_turns(names)


def find_conversations(columns: Columns, options: ReadingOptions, where: str) -> FoundColumns | None:
    """How a table is read as conversations; None where its rows are texts.

    Raises:
        UsageError: that is not clear, or is not as `options.data_format` says.
    """
    wanted = options.data_format
    if wanted == TEXT:
        return None
    table = _Table(columns)
    if wanted in _SIDES:
        pair = table.pair(wanted, strict=False, needs_answer=options.box_type == "white")
        if pair is None:
            sides = _SIDES[wanted]
            named = f"{' or '.join(sides.questions)} beside {' or '.join(sides.answers)}"
            raise _refused(columns, where, f"no columns of --data-format {wanted} ({named})", "say what it is instead")
        return pair
    if wanted in TURN_FORMATS:
        return table.named_by_format(wanted, where)
    return table.found(where)


def named_turns(columns: Columns, wanted_format: str, name: str, where: str) -> FoundColumns | None:
    """A column of turns that `--text-column` names; None where it may hold texts instead.

    Raises:
        UsageError: it holds no turns, although `--data-format` says so.
    """
    table = _Table(columns)
    is_turns = name in columns and name in table.turns
    if wanted_format in TURN_FORMATS:
        if is_turns or name not in columns:
            return table.of_turns(name, "named by --text-column", wanted_format) if is_turns else None
        raise _refused(
            columns, where, f"column '{name}' holds no turns (--data-format {wanted_format})", "name another one"
        )
    # What is written as JSON is a text too, and was named as one.
    return table.of_turns(name, "named by --text-column", None) if is_turns and not table.is_written(name) else None


class _Table:
    """The columns of one table, looked at as far as is needed."""

    def __init__(self, columns: Columns) -> None:
        self.columns = columns
        self._looks: dict[str, Look] = {}
        self.by_plain = {_plain(name): name for name in reversed(list(columns))}
        self.turns = [name for name in columns if self._may_be_turns(name) and self.look(name).kind == "chat"]
        self.turns = [name for name in self.turns if self._says_who(name)]

    def look(self, name: str) -> Look:
        values = self.columns[name]
        if name not in self._looks:
            self._looks[name] = values if isinstance(values, Look) else look_at(name, values)
        return self._looks[name]

    def is_written(self, name: str) -> bool:
        """Whether a column holds turns that are written as JSON."""
        return name in self.turns and self.look(name).is_text

    def found(self, where: str) -> FoundColumns | None:
        """The only reading; None where there is none, and a text may be read."""
        pairs = [pair for pair in (self.pair(name, strict=True) for name in PAIR_FORMATS) if pair is not None]
        # An `input` beside an instruction or a question is no question of its own.
        if len(pairs) > 1:
            pairs = [pair for pair in pairs if _plain(pair.columns["question"]) != "input"]
        in_pairs = {name for pair in pairs for name in pair.columns.values()}
        turns = [self.of_turns(name, "the only column of turns", None) for name in self.turns if name not in in_pairs]
        found = [*turns, *pairs]
        if not found:
            self._refuse_others(where)
            return None
        rivals = self._rivals(in_pairs) if pairs else self._texts()
        if len(found) == 1 and not rivals:
            return found[0]
        told = "; ".join([*(item.told() for item in found), *(f"column {name}" for name in rivals)])
        raise _refused(self.columns, where, f"it is not clear what is to be read: {told}", self._flags(found, rivals))

    def _flags(self, found: Sequence[FoundColumns], rivals: Sequence[str]) -> str:
        """What says which of several readings is meant."""
        formats = list(dict.fromkeys(item.format for item in found))
        flags = []
        for name in formats:
            alike = [item for item in found if item.format == name]
            for item in alike:
                column = item.columns.get("turns", "")
                chosen = f" --text-column {quoted_column(column)}" if len(alike) > 1 else ""
                flags.append(f"--data-format {name}{chosen}")
        texts = [name for name in rivals if self._is_called_text(name)] or list(rivals[:1])
        flags += [f"--data-format text --text-column {quoted_column(name)}" for name in texts[:1]]
        return f"say which with {' or '.join(flags)}"

    def named_by_format(self, wanted: str, where: str) -> FoundColumns:
        """The column of turns that is called as the format is, else the only one."""
        called = [name for name in self.turns if _plain(name) in (wanted, wanted.removesuffix("s"))]
        chosen = called or self.turns
        if len(chosen) == 1:
            why = f"called {chosen[0]}" if called else "the only column of turns"
            return self.of_turns(chosen[0], why, wanted)
        if not chosen:
            raise _refused(
                self.columns, where, f"no column of turns (--data-format {wanted})", "say what it is instead"
            )
        what = f"several columns of turns: {', '.join(chosen)}"
        raise _refused(self.columns, where, what, f"name one with --text-column {quoted_column(chosen[0])}")

    def of_turns(self, name: str, why: str, wanted: str | None) -> FoundColumns:
        """A column of turns, and that of the system's words beside it."""
        named = wanted or ("conversations" if self._is_share_gpt(name) else "messages")
        return FoundColumns(named, {"turns": name} | self._system(), why)

    def pair(self, wanted: str, *, strict: bool, needs_answer: bool = True) -> FoundColumns | None:
        """The columns of a format of pairs; None where they are not there.

        Args:
            strict: only what may be questions and answers by its values.
            needs_answer: of questions alone there is nothing to learn.
        """
        sides = _SIDES[wanted]
        question, answer = (self._side(names, strict=strict) for names in (sides.questions, sides.answers))
        if question is None or (answer is None and (needs_answer or strict)):
            return None
        columns = {"question": question}
        more = self._side(sides.inputs, strict=False)
        if more is not None:
            columns["input"] = more
        if wanted == "alpaca" and "history" in self.by_plain:
            columns["history"] = self.by_plain["history"]
        if answer is not None:
            columns["answer"] = answer
        written = frozenset(name for name in columns.values() if self.is_written(name))
        return FoundColumns(wanted, columns | self._system(), "found by their names", written)

    def _side(self, names: Sequence[str], *, strict: bool) -> str | None:
        """The first column of these names that is there, and may hold texts or turns."""
        there = [self.by_plain[name] for name in names if name in self.by_plain]
        return next((name for name in there if not strict or self._may_be_side(name)), None)

    def _may_be_side(self, name: str) -> bool:
        if name in self.turns:
            return True
        values, look = self.columns[name], self.look(name)
        if isinstance(values, Look):
            return values.is_text
        present = [value for value in values if value is not None]
        strings = sum(isinstance(value, str) for value in present)
        return look.label not in _NEVER_SAID and 2 * strings >= len(present)

    def _system(self) -> dict[str, str]:
        names = [self.by_plain[name] for name in _SYSTEM if name in self.by_plain]
        name = next((name for name in names if self.look(name).is_text), None)
        return {} if name is None else {"system": name}

    def _texts(self) -> list[str]:
        """Columns that would be read if there were no turns: those that are called as texts are."""
        return [
            name
            for name in self.columns
            if self._is_called_text(name)
            or (is_usual_name(name) and name not in self.turns and is_prose(name, self.look(name)))
        ]

    def _is_called_text(self, name: str) -> bool:
        if _plain(name) != TEXT:
            return False
        values = self.columns[name]
        return values.is_text if isinstance(values, Look) else is_text(values)

    def _rivals(self, taken: set[str]) -> list[str]:
        """Columns beside a pair without which it may not be whole: other prose, other questions and answers."""
        texts = self._texts()
        rivals = []
        for name in self.columns:
            if name in taken or name in self.turns:
                continue
            is_side = _plain(name) in _ASKING | _ANSWERING and _may_be_said(self.look(name))
            if name in texts or is_side or (self.look(name).kind == "prose" and not is_beside(name)):
                rivals.append(name)
        return rivals

    def _refuse_others(self, where: str) -> None:
        """Refuse what is a conversation, but none that can be read: no part of it is the text.

        Raises:
            UsageError: it is one.
        """
        if any(self._is_called_text(name) for name in self.columns):
            return
        nobody = [name for name in self.columns if self._may_be_turns(name) and self.look(name).kind == "chat"]
        if nobody:
            what = f"{', '.join(nobody)}: turns that do not say who speaks"
            raise _refused(self.columns, where, what, 'write each turn as {"role": "user", "content": …}')
        python = [name for name in self.columns if any(text.startswith("[{'") for text in self._some_texts(name))]
        if python:
            what = f"{', '.join(python)}: lists in Python's notation, which are not read"
            raise _refused(self.columns, where, what, "write them with json.dumps")
        if _are_turns(list(self.columns)):
            role = next(name for name in self.columns if _plain(name) in ROLE_KEYS)
            said = {text.strip().lower() for text in self._some_texts(role)}
            if said and said <= ROLE_NAMES.keys():
                what = f"{role}: its rows are single turns, and nothing says where a conversation ends"
                raise _refused(
                    self.columns, where, what, 'write a list of turns for each conversation: {"messages": [ … ]}'
                )
        for first, second in ((_ASKING, _ANSWERING), _SPEAKERS):
            sides = [
                [name for name in self.columns if _plain(name) in side and self._is_said(name)]
                for side in (first, second)
            ]
            if all(sides):
                named = [name for name in self.columns if name in {*sides[0], *sides[1]}]
                what = f"{', '.join(named)}: the sides of a conversation, and it is not clear which columns make it"
                raise _refused(self.columns, where, what, _RENAME)

    def _is_said(self, name: str) -> bool:
        look = self.look(name)
        is_number = look.label == "numbers" and _plain(name) in (
            "answer",
            "completion",
            "response",
            "output",
            "solution",
        )
        return _may_be_said(look) or is_number

    def _may_be_turns(self, name: str) -> bool:
        """Whether a look at the whole column is worth while: its first values are lists, objects, or written as such."""
        values = self.columns[name]
        if isinstance(values, Look):
            return values.kind == "chat"
        return any(
            isinstance(value, (list, tuple, Mapping)) or (isinstance(value, str) and value.lstrip()[:1] in ("[", "{"))
            for value in _present(values)
        )

    def _says_who(self, name: str) -> bool:
        values = self.columns[name]
        return isinstance(values, Look) or any(is_turn(turn) for turn in _inner(values))

    def _is_share_gpt(self, name: str) -> bool:
        if _plain(name) in ("conversations", "conversation"):
            return True
        values = self.columns[name]
        return not isinstance(values, Look) and any(
            isinstance(turn, Mapping) and "from" in turn for turn in _inner(values)
        )

    def _some_texts(self, name: str) -> list[str]:
        values = self.columns[name]
        return [] if isinstance(values, Look) else [value for value in _present(values) if isinstance(value, str)]


def _present(values: Sequence[Any]) -> list[Any]:
    return [value for value in values if value is not None and value != ""][:_LOOKED_AT]


def _inner(values: Sequence[Any]) -> Iterator[Any]:
    """What stands in the lists of a column, also in those that are written as JSON."""
    for value in _present(values):
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                continue
        if isinstance(value, Mapping):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from value[:4]


def _plain(name: str) -> str:
    return name.strip().lower()


def _are_turns(names: Sequence[str]) -> bool:
    """Whether columns are called as the fields of a turn are."""
    known = {_plain(name) for name in names}
    return not known.isdisjoint(ROLE_KEYS) and not known.isdisjoint(CONTENT_KEYS)


def _may_be_said(look: Look) -> bool:
    return look.kind in _SPOKEN or look.label == FEW_VALUES or look.label.startswith("lists")


def _refused(columns: Columns, where: str, what: str, hint: str) -> UsageError:
    looks = {name: values if isinstance(values, Look) else look_at(name, values) for name, values in columns.items()}
    return UsageError(f"{where}: {what}; columns: {listed_columns(looks)}", hint=hint)

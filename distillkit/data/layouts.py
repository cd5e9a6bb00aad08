"""What the rows of a table are, texts or conversations, and which of its columns are read for that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distillkit.data.bad_rows import BadRow, string_fault, text_row
from distillkit.data.column_looks import Look
from distillkit.data.columns import choose_column, kind_of
from distillkit.data.conversation import Conversation, Turn
from distillkit.data.conversation_columns import PAIR_FORMATS, TEXT, FoundColumns, find_conversations, named_turns
from distillkit.data.conversation_rows import TurnFaultError, history_turns, turns_of
from distillkit.data.notes import ReadingNotes
from distillkit.data.reading_options import ReadingOptions
from distillkit.data.rows import Row
from distillkit.errors import UsageError

_BETWEEN = "\n\n"


@dataclass(frozen=True)
class Layout:
    """What is read of each row.

    Attributes:
        format: "text", or one of the formats of conversations.
        columns: what is read -> the column: "text"; "turns"; "question" and "answer"; "input",
            "history", "system".
        why: how that was found: "called text", "the only column of turns".
        written: columns of pairs in which turns are written as JSON.
    """

    format: str
    columns: Mapping[str, str]
    why: str
    written: frozenset[str] = frozenset()

    @property
    def names(self) -> list[str]:
        """The columns, each once."""
        return list(dict.fromkeys(self.columns.values()))

    @property
    def needed(self) -> list[str]:
        """The columns without which a row is a bad one."""
        return [self.columns[role] for role in ("text", "turns", "question") if role in self.columns]

    @property
    def wanted(self) -> str:
        """`BadRow.wanted`: what a row should hold."""
        return "text" if self.format == TEXT else "conversation"

    def note(self, name: str, notes: ReadingNotes) -> None:
        """Tell `notes` what is read of the file `name`."""
        if self.format == TEXT:
            notes.chose_column(name, self.columns["text"], self.why)
        else:
            notes.chose_format(name, self.record())

    def record(self) -> dict[str, Any]:
        """As JSON: "format", "columns", "why", "written"."""
        return {
            "format": self.format, "columns": dict(self.columns), "why": self.why, "written": sorted(self.written),
        }  # fmt: skip

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Layout:
        """The layout of which `record` was made."""
        return cls(record["format"], record["columns"], record["why"], frozenset(record["written"]))

    def row(
        self, cells: Mapping[str, Any], where: str, origin: str, troubles: Mapping[str, str] | None = None
    ) -> Row | BadRow:
        """A row of the table.

        Args:
            cells: at least those of `names` that the row has.
            where: the row, for people.
            origin: the row, for `Row.origin`.
            troubles: by column, what is wrong with its bytes.
        """
        troubles = troubles or {}
        if self.format == TEXT:
            name = self.columns["text"]
            return text_row(cells[name], f"{where}, column '{name}'", origin, troubles.get(name))
        trouble = next((f"column '{name}': {troubles[name]}" for name in self.names if name in troubles), None)
        if trouble is not None:
            return BadRow(where, trouble, is_fault=True, wanted=self.wanted)
        try:
            conversation = Conversation(tuple(self._turns(cells)))
        except TurnFaultError as fault:
            return BadRow(where, str(fault), is_fault=True, wanted=self.wanted)
        return Row(conversation.canonical(), origin, True, conversation)

    def _turns(self, cells: Mapping[str, Any]) -> list[Turn]:
        if "turns" in self.columns:
            turns = self._turns_in(cells, "turns", None)
        else:
            question, answer = self._turns_in(cells, "question", "input"), self._turns_in(cells, "answer", None)
            turns = [*self._history(cells), *question, *answer]
        system = self._text(cells, "system")
        return [Turn("system", system), *turns] if system and turns and turns[0].role != "system" else turns

    def _history(self, cells: Mapping[str, Any]) -> list[Turn]:
        """What was said before the question."""
        name = self.columns.get("history")
        try:
            return [] if name is None else history_turns(cells.get(name))
        except TurnFaultError as fault:
            raise TurnFaultError(f"column '{name}': {fault}") from None

    def _turns_in(self, cells: Mapping[str, Any], role: str, more: str | None) -> list[Turn]:
        """The turns of one side: a text is one, and a list is as many as it holds; an answer may be missing.

        Args:
            more: what else belongs to the text, below it.
        """
        name = self.columns.get(role)
        if name is None:
            return []
        value = cells.get(name)
        is_turns = role == "turns" or isinstance(value, (list, tuple, Mapping)) or (name in self.written and value)
        if is_turns:
            try:
                return turns_of(value)
            except TurnFaultError as fault:
                raise TurnFaultError(f"column '{name}': {fault}") from None
        texts = [self._text(cells, part) for part in (role, more) if part is not None]
        text = _BETWEEN.join(text for text in texts if text and not text.isspace())
        if role == "answer":
            return [Turn("assistant", text)] if text else []
        if not text:
            raise TurnFaultError(f"column '{name}': {'empty' if value is not None else 'null'} instead of a question")
        return [Turn("user", text)]

    def _text(self, cells: Mapping[str, Any], role: str) -> str:
        """The text of a column; empty where there is none."""
        name = self.columns.get(role)
        value = None if name is None else cells.get(name)
        if value is None:
            return ""
        fault = string_fault(value) if isinstance(value, str) else f"{kind_of(value)} instead of text"
        if fault is not None:
            raise TurnFaultError(f"column '{name}': {fault}")
        return value


def choose_layout(columns: Mapping[str, Sequence[Any] | Look], options: ReadingOptions, where: str) -> Layout:
    """What the rows of a table are.

    Args:
        columns: as for `columns.choose_column`.
        options: `data_format` and `text_column`, what the user said of it; and `box_type`.
        where: the file or data set, for the message.

    Raises:
        UsageError: it is not clear, or is not as the user said.
    """
    wanted = options.text_column
    if options.data_format in PAIR_FORMATS and wanted is not None:
        raise UsageError(
            f"--data-format {options.data_format} and --text-column exclude each other: it is read from several columns",
            hint="leave one of them out",
        )
    if wanted is not None and options.data_format != TEXT:
        found = named_turns(columns, options.data_format, wanted, where)
    else:
        found = find_conversations(columns, options, where)
    if found is not None:
        return _layout(found)
    column, why = choose_column(columns, wanted, where)
    return Layout(TEXT, {"text": column}, why)


def _layout(found: FoundColumns) -> Layout:
    return Layout(found.format, found.columns, found.why, found.written)

"""Rows without a text that can be used: one policy for all formats."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from distillkit.data.columns import kind_of
from distillkit.data.notes import ReadingNotes
from distillkit.data.rows import Row
from distillkit.errors import UsageError
from distillkit.settings.parameters import BadRowPolicy
from distillkit.wording import counted

# Beyond this share it is not the rows that are wrong: another column, another encoding, another format.
_MOST_BAD = 0.01
_NAMED = 3
# What else may mend it, by what the rows should hold.
_OTHERWISE = {
    "text": "name another column with --text-column",
    "conversation": "say what the rows are with --data-format",
}


class BadRow(NamedTuple):
    """A row of a file without a text that can be used.

    Attributes:
        where: the row, for people: "people.csv, row 12 (line 14), column 'body'".
        what: what stands there: "empty", "null", "the number 42"; or what is wrong, with `is_fault`.
        is_fault: whether `what` says what is wrong ("not valid JSON (…)") rather than what stands in the place of a text.
        wanted: what the row should hold: "text", "conversation".
    """

    where: str
    what: str
    is_fault: bool = False
    wanted: str = "text"


def text_row(value: Any, where: str, origin: str, trouble: str | None = None) -> Row | BadRow:
    """A row, if a value is a text that can be written and encoded.

    Args:
        where: the row, for people.
        origin: the row, for `Row.origin`.
        trouble: what is wrong with the value, if that is known already.
    """
    if trouble is not None:
        return BadRow(where, trouble, is_fault=True)
    if not isinstance(value, str):
        return BadRow(where, kind_of(value))
    fault = string_fault(value)
    return Row(value, origin) if fault is None else BadRow(where, fault, is_fault=True)


def string_fault(value: str) -> str | None:
    """Why a string is no text that can be written and encoded; None if it is one."""
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            return f"half a surrogate pair (\\u{ord(value[error.start]):04x}) is not text"
    return "NUL character: not text" if "\0" in value else None


def usable_rows(rows: Iterable[Row | BadRow], policy: BadRowPolicy, name: str, notes: ReadingNotes) -> Iterator[Row]:
    """The rows of one file without the bad ones.

    Args:
        policy: the parameter `bad_rows`.
        name: the file, for messages.
        notes: takes their number and the first of them.

    Raises:
        UsageError: a row is bad and the policy is "stop", or more than 1 % are and it is "skip"; the latter is known when
            all rows have been read.
    """
    bad = BadRows()
    total = 0
    for row in rows:
        total += 1
        if isinstance(row, Row):
            yield row
        else:
            bad.add(row, policy)
    bad.judge(total, policy, name, notes)


@dataclass
class BadRows:
    """The bad rows of a file or a data set.

    Attributes:
        count: how many there are.
        first: the first of them.
    """

    count: int = 0
    first: list[BadRow] = field(default_factory=list)

    def add(self, row: BadRow, policy: BadRowPolicy) -> None:
        """One more.

        Raises:
            UsageError: the policy is "stop".
        """
        self.count += 1
        if len(self.first) < _NAMED:
            self.first.append(row)
        if policy == "stop":
            self._stop()

    def judge(self, total: int, policy: BadRowPolicy, name: str, notes: ReadingNotes) -> None:
        """Note them, if they are few enough.

        Args:
            total: all rows that were read, good and bad.
            policy, name, notes: as for `usable_rows`.

        Raises:
            UsageError: they are too many for the policy.
        """
        if not self.count:
            return
        if policy == "stop":
            self._stop()
        first = [f"{row.where}: {row.what}" for row in self.first]
        if policy == "skip" and self.count > _MOST_BAD * total:
            named = f" ({'; '.join(first)}{'; …' if self.count > len(first) else ''})" if first else ""
            verb = "holds" if self.count == 1 else "hold"
            raise UsageError(
                f"{name}: {self.count:,} of {total:,} rows {verb} no {self._wanted}{named}",
                hint=self._mend(none_left=self.count == total),
            )
        notes.bad_rows(name, self.count, first)

    def _mend(self, *, none_left: bool) -> str:
        mend = _OTHERWISE[self._wanted]
        if self.first and self.first[0].is_fault:
            mend = f"mend what is said of them, or {mend}"
        # Without any row there is nothing to train on.
        return mend if none_left else f"{mend}, or leave them all out with --bad-rows skip-all"

    @property
    def _wanted(self) -> str:
        return self.first[0].wanted if self.first else "text"

    def _stop(self) -> None:
        hint = f"mend or remove the row, leave such rows out with --bad-rows skip, or {_OTHERWISE[self._wanted]}"
        if not self.first:
            raise UsageError(f"{counted(self.count, 'row holds', 'rows hold')} no {self._wanted}", hint=hint)
        row = self.first[0]
        raise UsageError(f"{row.where}: {row.what}{'' if row.is_fault else ' instead of text'}", hint=hint)

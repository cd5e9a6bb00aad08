"""Conversations that are longer than an example: cut between turns, and where one exchange is too long, from its left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from distillkit.data.conversation import Turn
from distillkit.data.text_boundaries import cluster_boundaries

# A cut in a text goes on to the next word, if it begins within so many characters.
_NEAR = 40


@dataclass(frozen=True)
class Exchange:
    """What leads to one answer, and the answer, which together are too long.

    Attributes:
        system: the system's turn; None where there is none.
        before: the turns before the answer, the system's left out.
        answer: the assistant's turn.
    """

    system: Turn | None
    before: tuple[Turn, ...]
    answer: Turn


@dataclass(frozen=True)
class Squeezed:
    """What of an exchange fits.

    Attributes:
        cut: the answer is cut at its end.
    """

    turns: tuple[Turn, ...]
    cut: bool


class Fits(Protocol):
    """Whether turns are no longer than an example; with `cut` without the end of their last."""

    def __call__(self, turns: Sequence[Turn], *, cut: bool = False) -> bool: ...


def pieces_of(turns: Sequence[Turn], fits: Callable[[Sequence[Turn]], bool]) -> list[tuple[Turn, ...] | Exchange]:
    """A conversation in pieces, each of as many exchanges as fit, from the first on, and each behind the system's turn; so
    every answer is in one of them. An exchange that does not fit alone is given as it is.

    Args:
        turns: the last is an answer.
    """
    system = turns[0] if turns[0].role == "system" else None
    front = () if system is None else (system,)
    pieces: list[tuple[Turn, ...] | Exchange] = []
    current: tuple[Turn, ...] = ()
    for exchange in _exchanges(turns[len(front) :]):
        if current and fits((*front, *current, *exchange)):
            current = (*current, *exchange)
            continue
        if current:
            pieces.append((*front, *current))
        current = exchange
        if not fits((*front, *exchange)):
            pieces.append(Exchange(system, exchange[:-1], exchange[-1]))
            current = ()
    return [*pieces, (*front, *current)] if current else pieces


def longest_fitting(exchange: Exchange, fits: Fits) -> Squeezed | None:
    """What of an exchange fits: the earliest turns go first, then the beginning of the last one before the answer, then the
    system's; only where the answer alone is too long, its end goes too, and half of the room is left to what precedes it.

    Returns:
        None where not even one character of the answer fits.
    """
    system, before, answer = exchange.system, exchange.before, exchange.answer
    for front in ((system,), ()) if system is not None else ((),):
        here = partial(_asked_fits, fits, front, before, answer)
        for first in range(1, len(before)):
            # A piece begins with a user's turn, or a template may refuse it.
            if before[first].role == "user" and fits((*front, *before[first:], answer)):
                return Squeezed((*front, *before[first:], answer), cut=False)
        if not before:
            if fits((*front, answer)):
                return Squeezed((*front, answer), cut=False)
            continue
        asked = _largest(before[-1].text, here, left=True)
        if asked is not None:
            return Squeezed((*front, Turn(before[-1].role, asked), answer), cut=False)
    return _cut_answer(before[-1:], answer, fits)


def _asked_fits(fits: Fits, front: Sequence[Turn], before: Sequence[Turn], answer: Turn, text: str) -> bool:
    return fits((*front, Turn(before[-1].role, text), answer))


def _cut_answer(before: tuple[Turn, ...], answer: Turn, fits: Fits) -> Squeezed | None:
    if before:
        # Twice: what precedes the answer takes half of the room at most.
        asked = _largest(
            before[0].text, lambda text: fits((Turn(before[0].role, text + text), Turn("assistant", "."))), left=True
        )
        if asked is None:
            return None
        before = (Turn(before[0].role, asked),)
    said = _largest(answer.text, lambda text: fits((*before, Turn("assistant", text)), cut=True), left=False)
    return Squeezed((*before, Turn("assistant", said)), cut=True) if said else None


def _largest(text: str, fits: Callable[[str], bool], *, left: bool) -> str | None:
    """The longest part of a text that fits: its end where it is cut from its left, else its beginning; between words where
    one is near, never inside a character. None where not even nothing fits.
    """
    if fits(text):
        return text
    places = [int(place) for place in cluster_characters(text)]
    low, high = 0, len(places) - 1  # So many clusters fit; so many do not.

    def part(kept: int) -> str:
        if left:
            return text[places[len(places) - 1 - kept] :]
        return text[: places[kept]]

    if not fits(part(0)):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(part(middle)) else (low, middle)
    return _whole_words(part(low), left=left)


def _whole_words(part: str, *, left: bool) -> str:
    if left:
        cut = next((at + 1 for at, character in enumerate(part[:_NEAR]) if character.isspace()), 0)
        return part[cut:]
    end = len(part)
    near = range(end - 1, max(0, end - _NEAR), -1)
    return part[: next((at for at in near if part[at].isspace()), end)]


def cluster_characters(text: str) -> list[int]:
    """The characters at which the grapheme clusters of a text begin, and its end."""
    wanted = {int(place) for place in cluster_boundaries(text)}
    found, at = [], 0
    for index, character in enumerate(text):
        if at in wanted:
            found.append(index)
        at += len(character.encode("utf-8"))
    return [*dict.fromkeys([0, *found, len(text)])]


def _exchanges(turns: Sequence[Turn]) -> list[tuple[Turn, ...]]:
    """Turns in groups of which each ends with an answer."""
    groups: list[list[Turn]] = [[]]
    for turn in turns:
        groups[-1].append(turn)
        if turn.role == "assistant":
            groups.append([])
    return [tuple(group) for group in groups if group]

"""One text of somebody else's teacher: its tokens, and what was likely at each place; and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distillkit.errors import UsageError


class BadRowError(UsageError):
    """A row of log-probabilities that cannot be used."""


@dataclass(frozen=True)
class ScoredSequence:
    """The tokens of a text, and the distributions that predicted them.

    Attributes:
        ids: [T] int64.
        counts: [T] int64: how many tokens are known of the distribution of ids[t], given all before it; 0 where it is not known.
        entries: [E] int64, the ids that are known, place after place; probabilities: [E] float32, theirs. At each place they
            sum to at most 1; the rest is the tail.
        content: what the text was made of, for the data set: {"text": …} or {"messages": […]}.
    """

    ids: np.ndarray
    counts: np.ndarray
    entries: np.ndarray
    probabilities: np.ndarray
    content: dict[str, Any]


def scored_sequence(
    ids: Any,
    places: Sequence[tuple[Any, Any] | None],
    content: dict[str, Any],
    *,
    vocabulary: int,
    tolerance: float,
) -> ScoredSequence:
    """Check a text and what is known of it.

    Args:
        ids: [T] token ids.
        places: for each token the ids that were likely there and their natural log-probabilities; None where nothing is known.
            Entries of minus infinity are filling, and left out.
        content: as of `ScoredSequence`.
        vocabulary: ids are below it.
        tolerance: by how much the probabilities of a place may exceed 1: of numbers that were rounded.

    Raises:
        BadRowError: lengths differ, an id is beyond the vocabulary or there twice, a number is none, or probabilities sum to
            more than 1.
    """
    tokens = checked_ids(ids, vocabulary, "input_ids")
    if len(places) != len(tokens):
        raise BadRowError(f"{len(places)} places of log-probabilities for {len(tokens)} tokens")
    counts = np.zeros(len(tokens), dtype=np.int64)
    entries, probabilities = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.float32)]
    for place, known in enumerate(places):
        if known is None:
            continue
        logarithms = np.asarray(known[1], dtype=np.float64)
        likely = np.asarray(known[0])
        if logarithms.ndim != 1 or likely.shape != logarithms.shape:
            raise BadRowError(f"token {place}: {likely.size} ids and {logarithms.size} log-probabilities")
        there = ~np.isneginf(logarithms)
        likely, logarithms = checked_ids(likely[there], vocabulary, f"token {place}"), logarithms[there]
        if not np.isfinite(logarithms).all():
            raise BadRowError(f"token {place}: a log-probability is {logarithms[~np.isfinite(logarithms)][0]}")
        if len(np.unique(likely)) != len(likely):
            raise BadRowError(f"token {place}: an id is there twice")
        chances = np.exp(np.minimum(logarithms, 50.0))  # What is larger is no probability, and said to be none.
        total = float(chances.sum())
        if total > 1 + tolerance:
            raise BadRowError(
                f"token {place}: the probabilities sum to {total:.4g}: these are no natural log-probabilities at temperature 1"
            )
        counts[place] = len(likely)
        entries.append(likely)
        probabilities.append((chances / max(1.0, total)).astype(np.float32))
    if not counts.any():
        raise BadRowError("nothing is known of any token")
    return ScoredSequence(tokens, counts, np.concatenate(entries), np.concatenate(probabilities), content)


def checked_ids(values: Any, vocabulary: int, where: str) -> np.ndarray:
    """[n] int64.

    Raises:
        BadRowError: they are no token ids of this vocabulary; `where` says which.
    """
    ids = np.asarray(values)
    if ids.ndim != 1 or (ids.size and not np.issubdtype(ids.dtype, np.integer)):
        raise BadRowError(f"{where}: token ids are whole numbers, one after the other")
    ids = ids.astype(np.int64)
    if ids.size and (ids.min() < 0 or ids.max() >= vocabulary):
        beyond = int(ids.max()) if ids.max() >= vocabulary else int(ids.min())
        raise BadRowError(f"{where}: id {beyond} is beyond the vocabulary of {vocabulary:,} tokens: another tokenizer?")
    return ids

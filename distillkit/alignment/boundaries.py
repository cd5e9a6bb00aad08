"""Shared boundaries: the places at which two encodings of the same text have both covered the same bytes."""

from __future__ import annotations

import numpy as np


def shared_boundaries(ends_a: np.ndarray, ends_b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The positions at which both encodings have covered the same number of bytes.

    A boundary belongs to the last token that ends there: after a token of no bytes (SentencePiece's dummy space on
    its own) the model has read more, and what it predicts next is text again.

    Args:
        ends_a: [n] bytes covered after each token, not decreasing.
        ends_b: [m] the same for the other encoding.

    Returns:
        Two [k] int64 arrays, ascending: ends_a[first] == ends_b[second], every common value once.
    """
    last_a, last_b = _last_of_each(ends_a), _last_of_each(ends_b)
    # A mark for every byte at which the other side ends, instead of a search: O(n + m + bytes).
    size = int(max(ends_a[-1:].max(initial=0), ends_b[-1:].max(initial=0))) + 1
    ends_here_a, ends_here_b = np.zeros(size, dtype=bool), np.zeros(size, dtype=bool)
    ends_here_a[ends_a[last_a]] = True
    ends_here_b[ends_b[last_b]] = True
    return last_a[ends_here_b[ends_a[last_a]]], last_b[ends_here_a[ends_b[last_b]]]


def _last_of_each(ends: np.ndarray) -> np.ndarray:
    """[k] the last position of every distinct value."""
    if not len(ends):
        return np.zeros(0, dtype=np.int64)
    return np.flatnonzero(np.append(ends[1:] != ends[:-1], True))

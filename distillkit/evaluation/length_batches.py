"""Batches of texts of like lengths: little padding, and always the same batches for the same lengths."""

from __future__ import annotations

from collections.abc import Sequence


def longest_first(lengths: Sequence[int] | Sequence[tuple[int, ...]]) -> list[int]:
    """Indices by descending length, equal ones in their order.

    Whether the largest batch fits into memory shows at once, and the time left is not underestimated.

    Args:
        lengths: of every text; tuples compare by their first numbers, then by the next ones.
    """
    return sorted(range(len(lengths)), key=lambda index: lengths[index], reverse=True)


def batches_by_length(lengths: Sequence[int], batch_tokens: int, *, first: int = 0) -> list[list[int]]:
    """Numbers of texts in batches of like lengths, longest first.

    A batch has at most `batch_tokens` tokens, padding included, or a single text. A text without tokens counts as one
    token.

    Args:
        lengths: tokens of every text.
        first: the number of the first text, for a range of texts that lies inside a larger set.
    """
    order = longest_first(lengths)
    batches: list[list[int]] = []
    begin = 0
    while begin < len(order):
        texts = max(1, batch_tokens // max(1, lengths[order[begin]]))
        batches.append([first + index for index in order[begin : begin + texts]])
        begin += texts
    return batches

"""Reasoning blocks: what a model thinks between `<think>` and `</think>` before it answers."""

from __future__ import annotations

import re

BEGIN, END = "<think>", "</think>"

_BLOCK = re.compile(rf"\s*{BEGIN}.*?{END}\s*", re.DOTALL)
_OPENED = re.compile(rf".*?{END}\s*", re.DOTALL)


def without_reasoning(answer: str, *, opened: bool = False) -> str | None:
    """The answer without the blocks at its beginning, and without the white space around them.

    Args:
        opened: the template has already opened a block, so that the answer begins inside it.

    Returns:
        The answer itself where it begins with no block; None where a block has no end.
    """
    rest = answer
    if BEGIN not in rest.partition(END)[0]:
        # Servers keep what their template has opened to themselves: the end alone tells that there was a block.
        closed = _OPENED.match(rest)
        if closed is not None:
            rest = rest[closed.end() :]
        elif opened:
            return None
    while (block := _BLOCK.match(rest)) is not None:
        rest = rest[block.end() :]
    return None if rest.lstrip().startswith(BEGIN) else rest

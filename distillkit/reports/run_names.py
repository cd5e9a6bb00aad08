"""Names of runs where there is little room."""

from __future__ import annotations

from collections.abc import Sequence


def short_names(names: Sequence[str], most: int) -> list[str]:
    """Names of at most `most` letters, cut in the middle: the models stand at the beginning, the moment at the end.

    Names that would be cut to the same get the number of their place in front, from 1, and are as much shorter.
    """
    cut = [_cut(name, most) for name in names]
    if len(set(cut)) == len(set(names)):
        return cut
    return [f"{number} {_cut(name, most - len(str(len(names))) - 1)}" for number, name in enumerate(names, 1)]


def _cut(name: str, most: int) -> str:
    if len(name) <= most:
        return name
    head = most // 2
    tail = most - head - 1
    return f"{name[:head]}…{name[-tail:] if tail > 0 else ''}"

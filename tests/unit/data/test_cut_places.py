"""The order in which places to cut are tried."""

from __future__ import annotations

import numpy as np
import pytest

from distillkit.data.cut_places import CutPlaces
from distillkit.data.text_boundaries import TextBoundaries


def cut(text: str, begin: int, reach: int, *, alone: int | None = None, shared: list[int] | None = None) -> int:
    boundaries = TextBoundaries.of(text)
    everywhere = boundaries.characters if shared is None else np.array(shared, dtype=np.int64)
    return CutPlaces(boundaries, everywhere).cut(begin, reach, reach if alone is None else alone)


PROSE = "a" * 80 + "\n\n" + "bbb. bb bb\n" + "cc" * 50


@pytest.mark.parametrize(
    ("text", "begin", "reach", "place"),
    [
        # Near the end the strongest: paragraph, line, sentence, word.
        (PROSE, 0, 91, 82),
        (PROSE, 0, 100, 93),
        (PROSE, 0, 99, 93),
        (PROSE, 60, 90, 87),
        ("a" * 40 + " " + "b" * 100, 0, 70, 41),
        # Words make no piece less than half as long as it could be.
        ("a" * 20 + " " + "b" * 100, 0, 70, 70),
        ("a" * 20 + "\n" + "b" * 100, 0, 70, 70),
        # Lines that are indented go before the length of a piece.
        ("  " + "a" * 40 + "\n  bb" + " bb" * 30, 0, 70, 45),
    ],
)
def test_the_strongest_near_the_end(text: str, begin: int, reach: int, place: int) -> None:
    assert cut(text, begin, reach) == place


FLAG = "🇩🇪"  # Eight bytes, two characters.


def test_clusters_and_shared_boundaries() -> None:
    # A shared boundary between two clusters, if it is far too.
    assert cut(FLAG * 10, 0, 60, shared=[4, 8, 12, 52, 60]) == 8
    # Between clusters where none is shared.
    assert cut(FLAG * 10, 0, 60, shared=[4, 12, 52, 60]) == 56
    # Behind the first cluster if it fits at all.
    assert cut(FLAG * 10, 8, 12, alone=20, shared=[12]) == 16
    # Inside a cluster that is too long: at a shared boundary, else between characters, else behind one.
    assert cut(FLAG * 10, 8, 14, shared=[12, 16]) == 12
    assert cut(FLAG * 10, 8, 14, shared=[10, 16]) == 12
    assert cut(FLAG * 10, 8, 10, shared=[]) == 12
    assert cut("🐻", 0, 3, shared=[3]) == 4

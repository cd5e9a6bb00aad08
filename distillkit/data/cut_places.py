"""Choosing where the pieces of a text end: at the strongest boundary of the text near the end of the room, among those
at which the tokenizers have a boundary too."""

from __future__ import annotations

import numpy as np

from distillkit.data.text_boundaries import Break, TextBoundaries

# The end of the room in which a boundary of a kind is worth more than the tokens behind it. Examples stay as long as they
# were with words alone, within a few tokens of a hundred; words, which are everywhere, may be far where nothing else is.
_NEAR_END = 1 / 8
_HALF = 1 / 2


class CutPlaces:
    """Where one text may be cut into pieces.

    In this order: where all tokenizers have a boundary (`shared`) between two grapheme clusters; between clusters; behind a
    cluster that is longer than wanted but fits; and only inside a cluster that alone is too long, there again at a shared
    boundary, else between two characters.

    Args:
        boundaries: of the text.
        shared: [k] int64, the bytes at which every tokenizer has a boundary.
    """

    def __init__(self, boundaries: TextBoundaries, shared: np.ndarray) -> None:
        self.length = int(boundaries.characters[-1])
        self.clusters = boundaries.clusters[1:-1]
        self.characters = boundaries.characters[1:-1]
        self.shared = self._among(self.characters, shared)
        at_clusters = self._among(self.clusters, self.shared)
        kinds = boundaries.kinds_at(at_clusters)
        lines = _HALF if boundaries.indented else _NEAR_END
        shares = ((Break.PARAGRAPH, _NEAR_END), (Break.LINE, lines), (Break.SENTENCE, _NEAR_END), (Break.WORD, _HALF))
        # A place of a stronger kind is one of every weaker kind too.
        self._by_kind = [(at_clusters[kinds >= kind], share) for kind, share in shares]
        self._by_kind += [(at_clusters, 1.0), (self.clusters, 1.0)]

    def _among(self, places: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Those of [n] ascending places that are among others too; marks on bytes, as both are dense."""
        marked = np.zeros(self.length + 1, dtype=bool)
        marked[others] = True
        return places[marked[places]]

    def cut(self, begin: int, reach: int, reach_alone: int) -> int:
        """Where a piece that begins at `begin` ends.

        Args:
            reach: where it shall end at the latest.
            reach_alone: where it may end at the latest, for the sake of a long cluster.
        """
        for places, share in self._by_kind:
            place = _last(places, reach)
            if place is not None and place > max(begin, reach - share * (reach - begin)):
                return place
        behind = int(np.searchsorted(self.clusters, reach, side="right"))
        if behind < len(self.clusters) and self.clusters[behind] <= reach_alone:
            return int(self.clusters[behind])
        for places in (self.shared, self.characters):
            place = _last(places, reach)
            if place is not None and place > begin:
                return place
        behind = int(np.searchsorted(self.characters, reach, side="right"))
        return int(self.characters[behind]) if behind < len(self.characters) else self.length


def _last(places: np.ndarray, reach: int) -> int | None:
    index = int(np.searchsorted(places, reach, side="right")) - 1
    return int(places[index]) if index >= 0 else None

"""Where the bits of held-out texts are lost: in words, digits or punctuation, in rare tokens, at the start of a context.

Every byte of a text belongs to one class of each of three divisions. A token's bits are spread evenly over the bytes that it
spells, so models with different tokenizers are summed over the same bytes, and the classes of a division add up to the whole.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

KINDS = ("words", "digits", "punctuation", "space")
# How often the student's token stands in the training texts; each class begins with this count.
RARITY = {"never": 0, "1-9": 1, "10-99": 10, "100+": 100}
# The place of the student's token in its context.
POSITIONS = {"1-16": 0, "17-64": 16, "65-256": 64, "257+": 256}
DIVISIONS = {"kind": KINDS, "rarity": tuple(RARITY), "position": tuple(POSITIONS)}

_OF_CATEGORY = {"L": 0, "M": 0, "N": 1, "P": 2, "S": 2}
_SPACE = KINDS.index("space")


def byte_kinds(text: str) -> np.ndarray:
    """[UTF-8 bytes] the place in `KINDS` of every byte of a text.

    A single space counts as what follows it, because tokens take it along; other white space is a class of its own.
    """
    points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    if not len(points):
        return np.zeros(0, dtype=np.int64)
    distinct, where = np.unique(points, return_inverse=True)
    kinds = np.array([_OF_CATEGORY.get(unicodedata.category(chr(point))[0], _SPACE) for point in distinct])[where]
    joins = np.zeros(len(points), dtype=bool)
    joins[:-1] = (points[:-1] == ord(" ")) & (kinds[1:] != _SPACE)
    joins[1:] &= kinds[:-1] != _SPACE  # The last space of an indentation is indentation.
    kinds = np.where(joins, np.append(kinds[1:], _SPACE), kinds)
    sizes = 1 + (points >= 0x80) + (points >= 0x800) + (points >= 0x10000)
    return np.repeat(kinds, sizes)


def steps(values: np.ndarray, classes: Mapping[str, int]) -> np.ndarray:
    """[n] the class of each value: the last one that begins at or below it."""
    return np.searchsorted(np.array(list(classes.values())), values, side="right") - 1


@dataclass(frozen=True, eq=False)
class PlacedText:
    """A held-out text, or the scored parts of it, and where the scored tokens of a model lie in it.

    Attributes:
        text: its scored bytes are those of this text.
        skipped: bytes at its beginning that this model does not score.
        sizes: [tokens] int64, bytes of each scored token; with `skipped` they add up to the bytes of the text.
        ids: [tokens] int64.
        places: [tokens] int64, the number of each token in its context, from 0.
    """

    text: str
    skipped: int
    sizes: np.ndarray
    ids: np.ndarray
    places: np.ndarray

    @property
    def ends(self) -> np.ndarray:
        """[tokens] the byte of the text at which each token ends."""
        return self.skipped + np.cumsum(self.sizes)

    def by_byte(self, values: np.ndarray) -> np.ndarray:
        """[bytes] the value of the token that a byte belongs to; a byte that no token is scored for has that of the first."""
        first = values[:1].repeat(self.skipped)
        return np.concatenate([first, values.repeat(self.sizes)])


def classes_of(student: PlacedText, seen: np.ndarray) -> dict[str, np.ndarray]:
    """Of each division, [bytes] the class of every byte of a text.

    Args:
        student: the text as the student reads it.
        seen: [V] how often each of its tokens stands in the training texts.
    """
    times = np.where(student.ids < len(seen), seen[np.minimum(student.ids, len(seen) - 1)], 0)
    return {
        "kind": byte_kinds(student.text),
        "rarity": student.by_byte(steps(times, RARITY)),
        "position": student.by_byte(steps(student.places, POSITIONS)),
    }


@dataclass
class LostBits:
    """What one model loses where; sums over texts.

    Attributes:
        bits, bytes: of each division, [classes].
    """

    bits: dict[str, np.ndarray] = field(
        default_factory=lambda: {name: np.zeros(len(classes)) for name, classes in DIVISIONS.items()}
    )
    bytes: dict[str, np.ndarray] = field(
        default_factory=lambda: {name: np.zeros(len(classes), dtype=np.int64) for name, classes in DIVISIONS.items()}
    )

    def add(self, placed: PlacedText, nll: np.ndarray, classes: Mapping[str, np.ndarray]) -> None:
        """Add a text.

        Args:
            nll: [tokens] float64, nats.
            classes: of each division [bytes], as `classes_of` gives them.
        """
        bits = nll / math.log(2)
        spells = placed.sizes > 0
        each = (bits[spells] / placed.sizes[spells]).repeat(placed.sizes[spells])
        # A token that spells nothing (a space that the tokenizer adds) counts for the byte that it stands before.
        silent = np.minimum(placed.ends[~spells], placed.skipped + len(each) - 1)
        for name, of_byte in classes.items():
            count = len(DIVISIONS[name])
            scored = of_byte[placed.skipped :]
            self.bits[name] += np.bincount(scored, weights=each, minlength=count)
            self.bits[name] += np.bincount(of_byte[silent], weights=bits[~spells], minlength=count)
            self.bytes[name] += np.bincount(scored, minlength=count)

    def record(self, division: str) -> dict[str, dict[str, Any]]:
        """For JSON: class -> `bits`, `bytes`."""
        return {
            name: {"bits": float(bits), "bytes": int(size)}
            for name, bits, size in zip(DIVISIONS[division], self.bits[division], self.bytes[division], strict=True)
        }


def lost_bits(
    placed: Mapping[str, Sequence[PlacedText | None]], by_token: Mapping[str, Sequence[np.ndarray]], seen: np.ndarray
) -> tuple[dict[str, LostBits], int]:
    """What each model loses where, and how many texts could not be placed and are left out, for all models alike.

    Args:
        placed: model -> its reading of each text; None where it is not known which bytes the tokens spell. `student` is
            that of the student, which the classes follow.
        by_token: model -> the nats of the scored tokens of each text.
        seen: [V] how often each of the student's tokens stands in the training texts.
    """
    totals = {name: LostBits() for name in by_token}
    left_out = 0
    for number, student in enumerate(placed["student"]):
        readings = {name: placed["teacher" if name == "teacher" else "student"][number] for name in by_token}
        if student is None or any(reading is None for reading in readings.values()):
            left_out += 1
            continue
        if any(reading is not None and not reading.sizes.sum() for reading in readings.values()):
            continue  # Nothing of it is scored.
        classes = classes_of(student, seen)
        for name, reading in readings.items():
            assert reading is not None
            totals[name].add(reading, by_token[name][number], classes)
    return totals, left_out

"""A folder of imported log-probabilities: somebody else's teacher on its own texts, in a form that a run can look up.

logprobs.json        {format, tokenizer, texts, tokens, places, tail, parts}, with a checksum
texts.jsonl          the texts, as a data set
part-00000.safetensors  of consecutive texts, see `_NAMES`
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

from distillkit.alignment.token_bytes import TokenBytes
from distillkit.errors import PreconditionError
from distillkit.storage import read_json, sha256_of, with_checksum, without_checksum, write_bytes, write_json

RECORD, TEXTS = "logprobs.json", "texts.jsonl"
FORMAT = 1
# Of a part: where each text's tokens begin, the tokens, where each token's entries begin, and for each entry id and probability.
_NAMES = ("text_starts", "ids", "entry_starts", "entries", "probabilities")


def tokens_digest(table: TokenBytes) -> str:
    """What a vocabulary is: the bytes of its tokens, and its special tokens."""
    return hashlib.sha256(repr((table.pieces, sorted(table.specials.items()))).encode()).hexdigest()


def write_part(folder: Path, number: int, texts: Sequence[tuple[np.ndarray, ...]]) -> dict[str, Any]:
    """Write the texts of a part; gives its record.

    Args:
        texts: of each `ids`, `counts`, `entries`, `probabilities`, as of `importing.sequences.ScoredSequence`.
    """
    ids, counts, entries, probabilities = (np.concatenate(column) for column in zip(*texts, strict=True))
    values = (
        np.cumsum([0, *(len(text[0]) for text in texts)], dtype=np.int64),
        ids.astype(np.uint32),
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        entries.astype(np.uint32),
        probabilities.astype(np.float32),
    )
    path = folder / f"part-{number:05d}.safetensors"
    write_bytes(path, save(dict(zip(_NAMES, values, strict=True))))
    return {"name": path.name, "sha256": sha256_of(path), "texts": len(texts)}


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Write logprobs.json."""
    write_json(folder / RECORD, with_checksum({"version": FORMAT, **record}))


@dataclass(frozen=True)
class Place:
    """Where a run's text was found.

    Attributes:
        part: number of the part; first: place of its first token among the part's; last: behind the last token of the text
            that it was found in.
    """

    part: int
    first: int
    last: int


class ImportedFolder:
    """A folder of imported log-probabilities, read.

    Args:
        folder: of it.

    Raises:
        PreconditionError: it is none, or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.record = without_checksum(read_json(folder / RECORD))
            if self.record["version"] != FORMAT:
                raise ValueError("it is of another version of distillkit")
            self.parts: list[dict[str, Any]] = self.record["parts"]
        except (OSError, ValueError, KeyError) as error:
            raise PreconditionError(
                f"{folder} holds no imported log-probabilities: {RECORD}: {getattr(error, 'strerror', None) or error}",
                hint="make it again: distillkit import-logprobs",
            ) from error
        self._open: dict[int, Any] = {}

    @property
    def digest(self) -> str:
        """Of everything that is in it."""
        return sha256_of(self.folder / RECORD)

    def tokens(self) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Of each part its number, where each text begins ([texts + 1]) and all tokens ([tokens] int64).

        Raises:
            PreconditionError: a part is damaged.
        """
        for number, noted in enumerate(self.parts):
            path = self.folder / noted["name"]
            if not path.is_file() or sha256_of(path) != noted["sha256"]:
                raise PreconditionError(
                    f"{path} is missing or damaged", hint="make it again: distillkit import-logprobs"
                )
            stored = self._stored(number)
            yield number, stored.get_tensor("text_starts"), stored.get_tensor("ids").astype(np.int64)

    def distributions(self, place: Place, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(counts [count], ids [E] int64, probabilities [E] float32) of `count` tokens from a place on."""
        stored = self._stored(place.part)
        starts = stored.get_slice("entry_starts")[place.first : place.first + count + 1]
        begin, end = int(starts[0]), int(starts[-1])

        def entries(name: str) -> np.ndarray:
            # At the very end of a file safetensors would refuse even an empty slice.
            return stored.get_slice(name)[begin:end] if begin < end else np.zeros(0)

        return np.diff(starts), entries("entries").astype(np.int64), entries("probabilities").astype(np.float32)

    def token(self, part: int, place: int) -> int:
        """One token of a part."""
        return int(self._stored(part).get_slice("ids")[place : place + 1][0])

    def _stored(self, number: int) -> Any:
        if number not in self._open:
            self._open[number] = safe_open(self.folder / self.parts[number]["name"], framework="np")
        return self._open[number]

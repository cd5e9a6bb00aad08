"""What texts cost in memory beside the models: examples are built, written, and read as training rows, and the growth of this
process's own memory (anonymous pages; the memory map's are the system's to take back) is measured in a thread.

    python benchmarks/memory/rows.py [--texts 1000] [--length 4096] [--lists]

Every example is of two tokenizers, with all columns of aligned rows: the dearest kind. `--lists` keeps the rows as Python lists, as
versions up to 0.1 did, to compare. Prints one line of JSON; Linux only.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from distillkit.alignment.rows import AlignedRows
from distillkit.data.batching import DistillationCollator
from distillkit.data.examples import Example, load_examples
from distillkit.data.prepared_parts import PreparedPart
from distillkit.data.training_rows import teacher_token_ids, white_box_rows
from distillkit.teachers.exact_cache import CacheKey


def own_bytes() -> int:
    """Anonymous memory of this process."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) << 10
    raise OSError("/proc/self/status has no RssAnon")


class Peak:
    """The most memory that this process has had since it was made."""

    def __init__(self) -> None:
        self.start = self.most = own_bytes()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(0.005):
            self.most = max(self.most, own_bytes())

    def growth(self) -> int:
        """Bytes more than at the start, at most."""
        self._stop.set()
        self._thread.join()
        return max(self.most, own_bytes()) - self.start


def examples(count: int, length: int) -> Iterator[Example]:
    """Examples of `length` tokens for both models, in which every row is paired."""
    draw = np.random.default_rng(0)
    rows = np.arange(length - 1, dtype=np.int64)
    zeros = np.zeros(length - 1, dtype=np.int64)
    for number in range(count):
        student, teacher = (draw.integers(0, 50_000, length).tolist() for _ in range(2))
        text = "word " * length
        aligned = AlignedRows(
            student_rows=rows, teacher_rows=rows, skips=zeros, end_rows=rows + 1, end_skips=zeros, positions=length,
            positions_aligned=length - 1, positions_on_boundaries=length - 1, bytes=len(text), bytes_aligned=len(text),
        )  # fmt: skip
        yield Example(number, text, len(text), True, student, teacher, length, length, aligned)


def measure(count: int, length: int, *, lists: bool) -> dict[str, float]:
    """Seconds and megabytes of building and of one pass."""
    torch.set_num_threads(1)
    # Whatever is loaded once is no cost of the texts.
    with tempfile.TemporaryDirectory() as folder:
        run(examples(2, 16), Path(folder), lists=lists)
    with tempfile.TemporaryDirectory() as folder:
        return run(examples(count, length), Path(folder), lists=lists) | {"texts": count, "length": length}


def run(made: Iterator[Example], folder: Path, *, lists: bool) -> dict[str, float]:
    """Build, then read: the key of the teacher's cache, all lengths, and every batch in a random order."""
    peak, began = Peak(), time.monotonic()
    PreparedPart.write(made, folder / "train")
    building, seconds = peak.growth(), time.monotonic() - began
    peak, began = Peak(), time.monotonic()
    rows = white_box_rows(load_examples(folder / "train"), first_target=1, identical=False)
    read = list(rows) if lists else rows
    CacheKey.of("teacher", "", torch.float32, teacher_token_ids(rows))
    order = np.random.default_rng(1).permutation(np.argsort(rows.lengths("student_ids"), kind="stable"))
    collate = DistillationCollator(white_box=True, aligned=True)
    for begin in range(0, len(order), 4):
        collate([read[int(index)] for index in order[begin : begin + 4]])
    return {
        "building_mb": round(building / 1e6, 1),
        "building_seconds": round(seconds, 1),
        "reading_mb": round(peak.growth() / 1e6, 1),
        "reading_seconds": round(time.monotonic() - began, 1),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure what texts cost in memory.")
    parser.add_argument("--texts", type=int, default=1000)
    parser.add_argument("--length", type=int, default=4096)
    parser.add_argument("--lists", action="store_true", help="keep the rows as Python lists, to compare")
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.texts, arguments.length, lists=arguments.lists)))

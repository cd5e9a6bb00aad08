"""Keeping memory bounded when a source holds far more text than is needed."""

from __future__ import annotations

import random
from collections.abc import Iterable

from distillkit.console import format_bytes
from distillkit.data.document import Document
from distillkit.data.notes import ReadingNotes
from distillkit.data.packed import PackedDocument

# Above this, texts are held compressed: what is left of memory belongs to the models.
_PLAIN_BYTES = 256 << 20
# What a document costs besides its characters.
_DOCUMENT_OVERHEAD = 256


def bounded_sample(
    documents: Iterable[Document], budget: int, seed: int, split: str, notes: ReadingNotes
) -> list[Document]:
    """All documents if they fit into `budget` bytes, otherwise an even sample of them, in their order.

    Each document draws a number; whenever the kept ones outgrow the budget, the bar that they must stay under is
    halved. The sample depends on the seed alone.
    """
    draw = random.Random(f"{seed}/{split}/sample")
    kept: list[tuple[float, int, Document]] = []
    packed = False
    bar, size, total = 1.0, 0, 0
    for document in documents:
        total += 1
        number = draw.random()
        if number >= bar:
            continue
        cost = len(document.text) + _DOCUMENT_OVERHEAD
        kept.append((number, cost, PackedDocument.of(document) if packed else document))
        size += cost
        if size > _PLAIN_BYTES and not packed:
            packed = True
            # One after the other: both forms of all of them would not be less.
            for index, (number, cost, plain) in enumerate(kept):
                kept[index] = (number, cost, PackedDocument.of(plain))
        while size > budget and len(kept) > 1:
            bar /= 2
            kept = [item for item in kept if item[0] < bar]
            size = sum(cost for _, cost, _ in kept)
    if len(kept) < total:
        where = "" if split == "all" else f"{split}: "
        notes.remark(
            f"{where}more text than is needed: an even sample of {len(kept):,} of {total:,} documents "
            f"({format_bytes(size)}) is used"
        )
    return [document for _, _, document in kept]

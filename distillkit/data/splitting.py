"""Documents -> train, validation and test, which share no text."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from distillkit.data.cleaning import text_digest
from distillkit.data.document import Document, DocumentSet
from distillkit.data.sections import byte_length, cut_sections
from distillkit.errors import UsageError
from distillkit.settings.parameters import Parameters

# The bootstrap draws documents: with few of them its interval is wide, whatever the student learned.
_FEW_DOCUMENTS = 200
_BYTES_PER_TOKEN = 6
_HELD_OUT_SHARE = 0.1
_LARGEST_HELD_OUT_SHARE = 0.25
# Text that is cut to make enough documents is not cut finer than this.
_SHORTEST_SECTION = 64


@dataclass
class DocumentSplits:
    """Documents in the order in which they are to be drawn.

    Attributes:
        train, validation, test: shuffled; none of them empty; no text is in two of them.
        official: True where the source itself says what is held out.
        notes: what the user should know.
        duplicates: what was left out because a text is there already ("duplicate documents left out"), with how many.
    """

    train: list[Document]
    validation: list[Document]
    test: list[Document]
    official: bool
    notes: list[str] = field(default_factory=list)
    duplicates: dict[str, int] = field(default_factory=dict)


def held_out_examples(config: Parameters) -> int:
    """Examples of the validation split, and as many of the test split."""
    return config.held_out_size or min(500, max(50, config.sample_size // 10))


def split_documents(
    document_set: DocumentSet, *, seed: int, max_length: int = 256, held_out_size: int | None = None
) -> DocumentSplits:
    """Divide documents into what is trained on, what chooses the best student, and what judges it.

    Official splits are used; a single held-out one is divided into validation and test; without any, a tenth of the
    text goes to each. The same seed gives the same splits. Texts that differ in white space only count as one and
    stay in the split that judges most: test, then validation, then train.

    Args:
        seed: of the order in which documents are drawn.
        max_length: tokens of an example; a source of few documents is cut finer, down to about one example each.
        held_out_size: examples that each held-out split must hold; it gets a tenth of the text at least.

    Raises:
        UsageError: there are too few documents for three splits.
    """
    notes: list[str] = []
    duplicates: dict[str, int] = {}
    splits = {name: list(documents) for name, documents in document_set.splits.items() if documents}
    held_out = [name for name in ("validation", "test") if name in splits]
    official = "train" in splits and bool(held_out)
    draw = random.Random(f"{seed}/split")
    finest = max(_SHORTEST_SECTION, _BYTES_PER_TOKEN * max_length)
    if official:
        if len(held_out) == 1:
            pooled = _enough(_unique(splits[held_out[0]]), 2, finest, f"the split '{held_out[0]}'")
            draw.shuffle(pooled)
            splits["validation"], splits["test"] = _take(pooled, _size(pooled) // 2, at_most=len(pooled) - 1)
            notes.append(f"the source has one held-out split ({held_out[0]}): divided into validation and test")
    else:
        # A lone split, whatever its name, is all there is.
        every = [document for documents in splits.values() for document in documents]
        unique = _unique(every)
        _count_duplicates(duplicates, len(every) - len(unique), "duplicate documents left out")
        pooled = _enough(unique, 3, finest, document_set.description)
        if len(pooled) > len(unique):
            notes.append(f"cut finer so that each split gets its share: {len(unique):,} -> {len(pooled):,} documents")
        draw.shuffle(pooled)
        wanted = _held_out_bytes(_size(pooled), held_out_size, max_length)
        splits["test"], rest = _take(pooled, wanted, at_most=len(pooled) - 2)
        splits["validation"], splits["train"] = _take(rest, wanted, at_most=len(rest) - 1)
    _remove_overlap(splits, duplicates)
    for name in ("train", "validation", "test"):
        if not splits[name]:
            raise UsageError(
                f"{document_set.description}: no document is left for {name} after duplicates were removed",
                hint="give more texts, or texts that differ",
            )
        draw.shuffle(splits[name])
    notes += [f"{what}: {count:,}" for what, count in duplicates.items()]
    return DocumentSplits(splits["train"], splits["validation"], splits["test"], official, notes, duplicates)


def _size(documents: Sequence[Document]) -> int:
    return sum(byte_length(document.text) for document in documents)


def _held_out_bytes(total: int, held_out_size: int | None, max_length: int) -> int:
    """How much text each held-out split gets."""
    share = int(total * _HELD_OUT_SHARE)
    if held_out_size is None:
        return share
    # More text than the examples fill lets them come from more documents.
    return min(max(share, held_out_size * max_length * _BYTES_PER_TOKEN), int(total * _LARGEST_HELD_OUT_SHARE))


def _take(documents: Sequence[Document], wanted: int, *, at_most: int) -> tuple[list[Document], list[Document]]:
    """The first documents until `wanted` bytes are reached, at least one and `at_most` so many; and the others."""
    count = size = 0
    while count < at_most and (count == 0 or size < wanted):
        size += byte_length(documents[count].text)
        count += 1
    return list(documents[:count]), list(documents[count:])


def _unique(documents: Sequence[Document]) -> list[Document]:
    seen: dict[bytes, Document] = {}
    for document in documents:
        seen.setdefault(text_digest(document.text), document)
    return list(seen.values())


def _enough(documents: list[Document], needed: int, finest: int, what: str) -> list[Document]:
    """`documents`, cut finer where there are few, and as fine as necessary where there are less than `needed`.

    Conversations stay whole.

    Raises:
        UsageError: there is not even text for that.
    """
    if documents and all(document.conversation is not None for document in documents):
        if len(documents) < needed:
            raise UsageError(
                f"{what}: too few conversations to split: {len(documents)}, and at least {needed} that differ are needed",
                hint="give more of them",
            )
        return documents
    size = _size(documents)
    limit = max(finest, size // _FEW_DOCUMENTS)
    enough = documents
    if len(enough) < _FEW_DOCUMENTS:
        enough = _unique(_cut_all(documents, limit))
    while len(enough) < needed and limit > _SHORTEST_SECTION:
        limit = max(_SHORTEST_SECTION, min(limit // 2, size // needed))
        enough = _unique(_cut_all(documents, limit))
    if len(enough) < needed:
        raise UsageError(
            f"{what}: too little text to split: {len(enough)} document{'s' if len(enough) != 1 else ''} "
            f"({size:,} bytes), and at least {needed} that differ are needed",
            hint="give more text",
        )
    return enough


def _cut_all(documents: Sequence[Document], limit: int) -> list[Document]:
    cut = []
    for document in documents:
        if document.conversation is not None:
            # Its turns belong together.
            cut.append(document)
            continue
        size = byte_length(document.text)
        # Pieces of about the same size, with some room to find a good boundary in.
        even = min(limit, int(1.25 * size / math.ceil(size / limit)) + 1)
        for number, section in enumerate(cut_sections(document.text, even), 1):
            origin = document.origin if number == 1 else f"{document.origin}/{number}"
            # Of the same kind: what is held compressed stays so.
            cut.append(
                replace(document, text=section.text, origin=origin, ends_text=section.is_last and document.ends_text)
            )
    return cut


def _remove_overlap(splits: dict[str, list[Document]], duplicates: dict[str, int]) -> None:
    """Remove from each split what it repeats, or what a split that judges more holds too."""
    judging: set[bytes] = set()
    for name in ("test", "validation", "train"):
        own: set[bytes] = set()
        kept = []
        repeated = overlapping = 0
        for document in splits[name]:
            digest = text_digest(document.text)
            if digest in judging:
                overlapping += 1
            elif digest in own:
                repeated += 1
            else:
                own.add(digest)
                kept.append(document)
        splits[name] = kept
        judging |= own
        _count_duplicates(duplicates, repeated, f"duplicate documents left out of {name}")
        _count_duplicates(duplicates, overlapping, f"documents left out of {name} because they are held out too")


def _count_duplicates(duplicates: dict[str, int], count: int, what: str) -> None:
    if count:
        duplicates[what] = count

"""What each held-out document gained by the training, from validation_details.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class DocumentGain:
    """A document: its number, and its place in the lists of validation_details.json."""

    document: int
    place: int
    bytes: int
    before: float
    after: float

    @property
    def gain(self) -> float:
        """Bits per byte."""
        return self.before - self.after


def document_gains(details: Mapping[str, Any]) -> list[DocumentGain]:
    """Of every document that is scored, the best first."""
    documents = details.get("documents") or {}
    found = []
    for place, document in enumerate(documents.get("document") or ()):
        size = documents["bytes"]["after"][place]
        if size > 0:
            before, after = (documents["bits"][name][place] / size for name in ("before", "after"))
            found.append(DocumentGain(document, place, size, before, after))
    return sorted(found, key=lambda one: (-one.gain, one.document))

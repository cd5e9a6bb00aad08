"""Names of special tokens in texts: are they the tokens, or characters? Decided once for a run.

A chat template writes `<|im_start|>user …` for a model that reads `<|im_start|>` as one token; a text about such tokens, or
one from a stranger, means the characters.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from distillkit.alignment.token_bytes import same_vocabulary
from distillkit.data.document import Document, DocumentSet
from distillkit.data.text_encoder import TextEncoder, TextEncoders
from distillkit.settings.parameters import SpecialTokens

# Where at least this share of the texts names special tokens, `auto` reads them.
_MOST = 0.5
# What no template writes: corpora have these names of their own ("<unk>" in wikitext, "[MASK]", "<pad>").
_NO_EVIDENCE = ("unk_token", "pad_token", "mask_token")
_SECTION_NUMBER = re.compile(r"#\d+$")
_NAMES_SHOWN = 4


@dataclass(frozen=True)
class SpecialTokenReading:
    """How names of special tokens are read in a run.

    Attributes:
        mode: what was asked for.
        parse: they are the tokens; else characters.
        names: how often each occurs in the texts, the most frequent first.
        texts: rows of the source that name one that a template may have written.
        all_texts: rows of the source.
    """

    mode: SpecialTokens
    parse: bool
    names: dict[str, int]
    texts: int
    all_texts: int

    @property
    def decided(self) -> str:
        """ "parse" or "text"."""
        return "parse" if self.parse else "text"

    def record(self) -> dict[str, Any]:
        """`special_tokens` of data/stats.json."""
        return {
            "mode": self.mode,
            "decided": self.decided,
            "names": self.names,
            "texts": self.texts,
            "all_texts": self.all_texts,
        }

    def line(self) -> str | None:
        """For people; None where no text names a special token."""
        if not self.names:
            return None
        shown = ", ".join(f"{name} {count:,}" for name, count in list(self.names.items())[:_NAMES_SHOWN])
        more = ", …" if len(self.names) > _NAMES_SHOWN else ""
        other = "text reads them as characters" if self.parse else "parse reads them as tokens"
        how = "as tokens" if self.parse else "as characters"
        return (
            f"names of special tokens ({shown}{more}; {self.texts:,} of {self.all_texts:,} texts) are read {how}; "
            f"--special-tokens {other}"
        )


def decide_special_tokens(
    mode: SpecialTokens, documents: Iterable[Document], encoders: TextEncoders
) -> SpecialTokenReading:
    """Count the names of both models' special tokens, and decide how they are read.

    Args:
        documents: all that were read.
    """
    names, evidence = _names(encoders)
    found: Counter[str] = Counter()
    rows: dict[str, bool] = {}
    pattern = _pattern(names)
    for document in documents:
        # Sections of one row are one text: only the first of them may begin as a chat does.
        row = _SECTION_NUMBER.sub("", document.origin)
        here = Counter(pattern.findall(document.text)) if pattern else Counter()
        found += here
        rows[row] = rows.get(row, False) or not evidence.isdisjoint(here)
    texts = sum(rows.values())
    parse = mode == "parse" or (mode == "auto" and texts > _MOST * len(rows))
    return SpecialTokenReading(mode, parse, dict(found.most_common()), texts, len(rows))


def special_names(encoder: TextEncoder) -> dict[str, int]:
    """The special tokens of a model, name -> id."""
    if encoder.table is not None:
        return {name: index for index, name in encoder.table.specials.items()}
    tokenizer = encoder.tokenizer
    pairs = zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True)
    named = {token: index for token, index in pairs if index is not None}
    return named | {token.content: index for index, token in tokenizer.added_tokens_decoder.items() if token.special}


def same_names(student: TextEncoder, teacher: TextEncoder, names: Iterable[str]) -> bool:
    """Whether the names that the texts have are the same tokens to both models."""
    ours, theirs = special_names(student), special_names(teacher)
    return all(ours.get(name) == theirs.get(name) for name in names)


def same_tokens(encoders: TextEncoders, special: SpecialTokenReading) -> bool:
    """Whether every id of a text means the same bytes to both, whatever the sizes of their vocabularies and whatever each
    puts around a text; where special tokens are read, those of the texts have to be the same too."""
    student, teacher = encoders.student, encoders.teacher
    if student.table is None or teacher.table is None or not same_vocabulary(student.table, teacher.table):
        return False
    return not special.parse or same_names(student, teacher, special.names)


def without_start_names(documents: DocumentSet, encoders: TextEncoders) -> DocumentSet:
    """Texts without the start token that their template wrote in front of them, if a tokenizer puts that token there
    itself: it stands in front of every text already, and two of them mislead a model."""
    names = [name for encoder in (encoders.student, encoders.teacher) if (name := _own_start(encoder)) is not None]
    if not names:
        return documents

    def stripped(document: Document) -> Document:
        for name in names:
            if document.text.startswith(name) and document.text != name:
                return replace(document, text=document.text[len(name) :])
        return document

    splits = {split: [stripped(document) for document in texts] for split, texts in documents.splits.items()}
    return replace(documents, splits=splits)


def _own_start(encoder: TextEncoder) -> str | None:
    """The name of the start token, if the tokenizer puts it in front of a text."""
    tokenizer = encoder.tokenizer
    if tokenizer.bos_token_id is None:
        return None
    ids = tokenizer("a")["input_ids"]
    return tokenizer.bos_token if len(ids) > 1 and ids[0] == tokenizer.bos_token_id else None


def _names(encoders: TextEncoders) -> tuple[list[str], set[str]]:
    """All names, and those that tell of a template."""
    names: set[str] = set()
    evidence: set[str] = set()
    for encoder in (encoders.student, encoders.teacher):
        tokenizer = encoder.tokenizer
        own = {name for name in special_names(encoder) if name.strip()}
        fillers = {getattr(tokenizer, role, None) for role in _NO_EVIDENCE}
        ends = {tokenizer.bos_token, tokenizer.eos_token}
        names |= own
        evidence |= own - (fillers - ends)
    return sorted(names), evidence


def _pattern(names: Sequence[str]) -> re.Pattern[str] | None:
    """Finds the names in a text, the longest first. Names are grouped by their first character: that is what the search
    runs through a text for."""
    groups: dict[str, list[str]] = {}
    for name in sorted(names, key=len, reverse=True):
        groups.setdefault(name[0], []).append(name[1:])
    branches = [f"{re.escape(first)}(?:{'|'.join(map(re.escape, rest))})" for first, rest in groups.items()]
    return re.compile("|".join(branches)) if branches else None

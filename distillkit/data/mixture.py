"""Several sources as one data set: each with its own splits, and its share of every part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from distillkit.console import Console
from distillkit.data.cleaning import text_digest
from distillkit.data.document import Document, DocumentSet
from distillkit.data.examples import Example
from distillkit.data.sources import load_documents, source_configs
from distillkit.data.splitting import DocumentSplits, split_documents
from distillkit.errors import UsageError
from distillkit.settings.data_values import mix_sources
from distillkit.settings.parameters import Parameters
from distillkit.wording import counted

_PARTS = ("test", "validation", "train")
_COUNTED = ("bytes", "student_tokens", "teacher_tokens")


class Builder(Protocol):
    """Makes examples of documents: `ExampleBuilder`, `ConversationExampleBuilder`."""

    def build(self, documents: Sequence[Document], wanted: int, /) -> Iterator[Example]:
        """At most `wanted` of them."""
        ...


@dataclass
class Mixture:
    """The sources of a run: one, or those of `--mix`.

    Attributes:
        names: as they were given.
        weights: of the sources; they need not sum to 1.
        sources: their documents.
    """

    names: list[str]
    weights: list[float]
    sources: list[DocumentSet]

    @classmethod
    def load(
        cls, config: Parameters, console: Console, output_dir: Path | None = None, end_marks: Sequence[str] = ()
    ) -> Mixture:
        """Read all of them, as `load_documents` reads each.

        Raises:
            UsageError: as `load_documents`; some of the sources are conversations and others are plain texts.
            PreconditionError: as `load_documents`.
        """
        named = mix_sources(config.mix) if config.mix is not None else {"": "1"}
        sources = [load_documents(own, console, output_dir, end_marks) for own in source_configs(config)]
        talks = [any(map(_is_conversation, _all_documents(source))) for source in sources]
        if any(talks) and not all(talks):
            raise UsageError(
                f"--mix: {_first(named, talks, True)} holds conversations and {_first(named, talks, False)} plain texts",
                hint="mix sources of one kind",
            )
        return cls(list(named), [float(weight) for weight in named.values()], sources)

    @classmethod
    def of(cls, documents: DocumentSet) -> Mixture:
        """The one source of a run that mixes none."""
        return cls([""], [1.0], [documents])

    def as_one(self) -> DocumentSet:
        """All of them as one set, to look at and to tell of; it is split by `split`."""
        if len(self.sources) == 1:
            return self.sources[0]
        splits: dict[str, list[Document]] = {}
        fingerprint: dict[str, str] = {}
        notes: list[str] = []
        reading: dict[str, Any] = {}
        for name, source in zip(self.names, self.sources, strict=True):
            for split, documents in source.splits.items():
                splits.setdefault("all" if split == "all" else f"{name} {split}", []).extend(documents)
            fingerprint |= {f"{name} {key}": value for key, value in source.fingerprint.items()}
            notes += [f"{name}: {note}" for note in source.notes]
            reading = _both(reading, {**source.reading, "remarks": _named(name, source.reading.get("remarks", []))})
        told = [
            f"{100 * share:.3g} % {source.description}" for share, source in zip(self.shares, self.sources, strict=True)
        ]
        return DocumentSet(" + ".join(told), splits, fingerprint, notes, reading)

    @property
    def shares(self) -> list[float]:
        """The weights, of which the sum is 1."""
        return [weight / sum(self.weights) for weight in self.weights]

    def amounts(self, wanted: int) -> list[int]:
        """`wanted` divided by weight, by the largest remainders."""
        exact = [share * wanted for share in self.shares]
        amounts = [int(amount) for amount in exact]
        order = sorted(range(len(exact)), key=lambda index: (amounts[index] - exact[index], index))
        for index in order[: wanted - sum(amounts)]:
            amounts[index] += 1
        return amounts

    def split(self, *, seed: int, max_length: int, held_out_size: int) -> MixedSplits:
        """Each source divided as it would be alone; then no text stays in two parts, whichever sources it is in.

        Raises:
            UsageError: a source has too few documents for three parts.
        """
        splits = [
            split_documents(source, seed=seed, max_length=max_length, held_out_size=max(1, amount))
            for source, amount in zip(self.sources, self.amounts(held_out_size), strict=True)
        ]
        mixed = MixedSplits(self, splits)
        for name, split in zip(self.names, splits, strict=True):
            where = f"{name}: " if len(splits) > 1 else ""
            mixed.notes += [f"{where}{note}" for note in split.notes]
            for what, count in split.duplicates.items():
                mixed.duplicates[what] = mixed.duplicates.get(what, 0) + count
        if len(splits) > 1 and (repeated := _remove_shared(splits)):
            what = "documents left out because another source has them too"
            mixed.duplicates[what] = repeated
            mixed.notes.append(f"{what}: {repeated:,}")
        return mixed


@dataclass
class MixedSplits:
    """The documents of every source, divided.

    Attributes:
        mixture: the sources.
        splits: of each.
        notes, duplicates: as of `DocumentSplits`, of all together.
        built: part -> source -> what has been built of it.
    """

    mixture: Mixture
    splits: list[DocumentSplits]
    notes: list[str] = field(default_factory=list)
    duplicates: dict[str, int] = field(default_factory=dict)
    built: dict[str, list[dict[str, int]]] = field(default_factory=dict)

    def build(self, builder: Builder, part: str, wanted: int) -> Iterator[Example]:
        """At most `wanted` examples of a part: of each source its share, evenly mingled. The first so many of them have the
        same shares, to one example of each source."""
        amounts = self.mixture.amounts(wanted)
        documents: list[list[Document]] = [getattr(split, part) for split in self.splits]
        running = {index: builder.build(documents[index], amount) for index, amount in enumerate(amounts) if amount > 0}
        counts = self.built[part] = [dict.fromkeys(("examples", *_COUNTED), 0) for _ in self.splits]
        # Documents are numbered through all sources.
        first = [sum(map(len, documents[:index])) for index in range(len(documents))]
        while running:
            index = min(running, key=lambda index: ((counts[index]["examples"] + 0.5) / amounts[index], index))
            example = next(running[index], None)
            if example is None:
                del running[index]
                continue
            counts[index]["examples"] += 1
            for name in _COUNTED:
                counts[index][name] += getattr(example, name)
            yield replace(example, document=example.document + first[index])

    def record(self) -> list[dict[str, Any]] | None:
        """The sources of a mixture for data/stats.json; None for a single one."""
        mixture = self.mixture
        if len(self.splits) == 1:
            return None
        return [
            {
                "source": name,
                "description": source.description,
                "share": share,
                "fingerprint": source.fingerprint,
                "splits": {part: counts[index] for part, counts in self.built.items()},
            }
            for index, (name, share, source) in enumerate(
                zip(mixture.names, mixture.shares, mixture.sources, strict=True)
            )
        ]

    def shortages(self, sample_size: int) -> list[str]:
        """A line for each source of a mixture that has less to train on than its share."""
        if len(self.splits) == 1:
            return []
        wanted = self.mixture.amounts(sample_size)
        given = [counts["examples"] for counts in self.built["train"]]
        return [
            f"--mix: {name} gives {counted(have, 'training example')}, fewer than its share of {share:,}"
            for name, have, share in zip(self.mixture.names, given, wanted, strict=True)
            if have < share
        ]


def _remove_shared(splits: Sequence[DocumentSplits]) -> int:
    """Remove what another source holds too: it stays in the part that judges most, and there in the first source."""
    judging: set[bytes] = set()
    removed = 0
    for part in _PARTS:
        own: set[bytes] = set()
        for split in splits:
            kept = []
            for document in getattr(split, part):
                digest = text_digest(document.text)
                if digest in judging or digest in own:
                    removed += 1
                else:
                    own.add(digest)
                    kept.append(document)
            setattr(split, part, kept)
        judging |= own
    return removed


def _both(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Two records of `ReadingNotes`: numbers add up, lists follow each other, mappings are joined likewise."""
    both = dict(one)
    for name, value in other.items():
        if name not in both:
            both[name] = value
        elif isinstance(value, Mapping):
            both[name] = _both(both[name], value)
        elif isinstance(value, int | list) and not isinstance(value, bool):
            both[name] = both[name] + value
        else:
            both[name] = value
    return both


def _named(name: str, remarks: Sequence[str]) -> list[str]:
    return [f"{name}: {remark}" for remark in remarks]


def _all_documents(source: DocumentSet) -> Iterator[Document]:
    for documents in source.splits.values():
        yield from documents


def _is_conversation(document: Document) -> bool:
    return document.conversation is not None


def _first(named: Mapping[str, str], talks: Sequence[bool], wanted: bool) -> str:
    return next(name for name, talk in zip(named, talks, strict=True) if talk is wanted)

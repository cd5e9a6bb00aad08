"""On which held-out texts runs are compared: those that all of them have, else the first run's that no other has learnt from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from distillkit.comparing.documents import HeldOutDocument, learnt_texts, said
from distillkit.comparing.leaks import KnownTexts
from distillkit.comparing.opened import OpenedRun
from distillkit.console import Console
from distillkit.errors import UsageError
from distillkit.evaluation.bootstrap import fewest_documents
from distillkit.interrupts import check_interrupted

LEVEL = 0.95


@dataclass(frozen=True, eq=False)
class ChosenTexts:
    """The documents that a comparison is made on.

    Attributes:
        documents: as the first run has them.
        numbers: of each run, the numbers that these documents have in it; None where they are not those of its test part.
        how: "shared": all runs have them in their test parts; "first run": they are of that of the first one.
        of: how many the test part of the first run has.
        learnt: run to how many of the first run's documents were left out because it has learnt from them.
    """

    documents: list[HeldOutDocument]
    numbers: list[list[int] | None]
    how: Literal["shared", "first run"]
    of: int
    learnt: dict[str, int] = field(default_factory=dict)


def choose_texts(runs: Sequence[OpenedRun], console: Console) -> ChosenTexts:
    """The texts on which runs are compared.

    Documents that all runs hold out are taken where there are enough of them for an interval; each run has kept them out of
    its training. Else the first run's test part is taken, without what any other has learnt from.

    Raises:
        UsageError: no document is left.
        Interrupted: a signal arrived.
    """
    first = runs[0].documents
    by_digest = [{one.digest: one.number for one in run.documents} for run in runs]
    digests = [one.digest for one in first]
    shared = [
        (one, digest) for one, digest in zip(first, digests, strict=True) if all(digest in of for of in by_digest)
    ]
    if len(shared) >= min(fewest_documents(LEVEL), len(first)):
        numbers: list[list[int] | None] = [[of[digest] for _, digest in shared] for of in by_digest]
        return ChosenTexts([one for one, _ in shared], numbers, "shared", len(first))
    left, learnt = _not_learnt(runs, digests, by_digest, console)
    if not left:
        known = ", ".join(f"{name} {count}" for name, count in learnt.items())
        raise UsageError(
            f"no held-out text of {runs[0].name} is left to compare on: of its {len(first)} documents others have learnt "
            f"from ({known})",
            hint="name another run first, or make runs of the same texts with the same --seed and --held-out-size",
        )
    return ChosenTexts(
        left, [[one.number for one in left], *([None] * (len(runs) - 1))], "first run", len(first), learnt
    )


def _not_learnt(
    runs: Sequence[OpenedRun], digests: Sequence[bytes], by_digest: Sequence[dict[bytes, int]], console: Console
) -> tuple[list[HeldOutDocument], dict[str, int]]:
    """The documents of the first run that no other has learnt from, and how many each of them has."""
    chat = runs[0].chat
    scored = ("assistant",)
    left = dict(zip(digests, runs[0].documents, strict=True))
    learnt: dict[str, int] = {}
    for run, own in zip(runs[1:], by_digest[1:], strict=True):
        # What a run holds out itself it has kept out of its training.
        asked = [(digest, one) for digest, one in left.items() if digest not in own]
        texts = [
            [text for piece in one.pieces for text in said(piece, conversation=chat, by=scored)] for _, one in asked
        ]
        known = KnownTexts(texts)
        with console.progress(f"looking for them in what {run.short} has learnt from", unit="texts") as progress:
            for text in learnt_texts(run.run):
                check_interrupted()
                for part in said(text, conversation=chat):
                    known.read(part)
                progress.advance()
        met = [digest for (digest, _), is_met in zip(asked, known.met(), strict=True) if is_met]
        for digest in met:
            del left[digest]
        if met:
            learnt[run.name] = len(met)
    return list(left.values()), learnt

"""`distillkit import-logprobs`: rows of somebody else's teacher become a data set and its targets."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from distillkit.alignment.token_bytes import token_bytes
from distillkit.console import Console
from distillkit.errors import PreconditionError, UsageError
from distillkit.importing.arcee_rows import arcee_sequences
from distillkit.importing.axolotl_rows import axolotl_sequence
from distillkit.importing.compression import Compression
from distillkit.importing.read_rows import read_rows
from distillkit.importing.sequences import BadRowError, ScoredSequence
from distillkit.interrupts import check_interrupted
from distillkit.models.loading import load_tokenizer
from distillkit.models.locating import locate
from distillkit.models.references import parse_reference
from distillkit.storage import write_bytes, write_folder
from distillkit.teachers.imported_folder import RECORD, TEXTS, tokens_digest, write_part, write_record
from distillkit.wording import counted

RowForm = Literal["arcee", "axolotl"]
# Entries of a part, which is in memory while it is made.
_ENTRIES_EACH = 1 << 22
# Places after which it is clear by how many tokens the rows are shifted, and how much likelier the shifted tokens then are: as
# likely as texts are to any language model. (One that was never trained may repeat the token before.)
_ENOUGH_PLACES, _MUCH_LIKELIER, _LIKELY = 100, 2.0, 0.2


@dataclass(frozen=True)
class ImportRequest:
    """What is imported.

    Attributes:
        rows: a file or folder of rows.
        form: whose rows they are.
        tokenizer: a model whose tokenizer is the teacher's.
        out: the folder to write.
        compression: the compression_config.yaml of compressed rows.
        logprobs, messages: columns of conversations.
        overwrite: replace what an earlier import wrote.
        trust_remote_code: a model's own code may run.
    """

    rows: Path
    form: RowForm
    tokenizer: str
    out: Path
    compression: Path | None = None
    logprobs: str = "logprobs"
    messages: str = "messages"
    overwrite: bool = False
    trust_remote_code: bool = False


@dataclass
class _Sums:
    """Of all texts so far; `shifted` has the probability of the token before each place, at it and behind it."""

    texts: int = 0
    tokens: int = 0
    places: int = 0
    tail: float = 0.0
    shifted: np.ndarray = field(default_factory=lambda: np.zeros(3))

    def add(self, sequence: ScoredSequence) -> None:
        known = sequence.counts > 0
        self.texts += 1
        self.tokens += len(sequence.ids)
        self.places += int(known.sum())
        self.tail += float(known.sum() - sequence.probabilities.sum(dtype=np.float64))
        at = np.repeat(np.arange(len(sequence.ids)), sequence.counts)
        for index, shift in enumerate((-1, 0, 1)):
            other = at + shift
            inside = (other >= 0) & (other < len(sequence.ids))
            same = sequence.entries[inside] == sequence.ids[other[inside]]
            self.shifted[index] += float(sequence.probabilities[inside][same].sum(dtype=np.float64))


def import_rows(request: ImportRequest, console: Console) -> dict[str, Any]:
    """Write the folder; gives its record.

    Raises:
        UsageError: a row cannot be used (it says which), or the rows are shifted.
        PreconditionError: the tokenizer is out of reach; something else lies at `out`.
        DistillkitError: the folder cannot be written.
        Interrupted: a signal arrived; nothing is left.
    """
    if request.out.exists() and not (request.overwrite and (request.out / RECORD).is_file()):
        raise PreconditionError(
            f"{request.out} exists", hint="choose another --out, or add --overwrite to replace an earlier import"
        )
    compression = None if request.compression is None else Compression.read(request.compression)
    trust = request.trust_remote_code
    located = locate(parse_reference(request.tokenizer, role="tokenizer"), console, trust_remote_code=trust)
    tokenizer = load_tokenizer(located, trust_remote_code=trust)
    table = token_bytes(tokenizer)
    vocabulary = len(tokenizer)
    if request.form == "axolotl" and not tokenizer.chat_template:
        raise UsageError(
            f"{request.tokenizer} has no chat template, and these rows are conversations",
            hint="give the teacher's chat model as --tokenizer",
        )

    def texts(row: Mapping[str, Any]) -> Iterator[ScoredSequence]:
        if request.form == "arcee":
            return arcee_sequences(row, tokenizer, vocabulary, compression)
        return axolotl_sequence(row, tokenizer, vocabulary, logprobs=request.logprobs, messages=request.messages)

    record: dict[str, Any] = {}

    def fill(folder: Path) -> None:
        record.update(_write(folder, request, texts, console))
        record["tokenizer"] = {"reference": request.tokenizer, "digest": tokens_digest(table)}
        write_record(folder, record)

    write_folder(request.out, fill)
    return record


def _write(
    folder: Path,
    request: ImportRequest,
    texts: Callable[[Mapping[str, Any]], Iterator[ScoredSequence]],
    console: Console,
) -> dict[str, Any]:
    sums, parts, lines = _Sums(), [], []
    waiting: list[ScoredSequence] = []

    def flush() -> None:
        if waiting:
            stored = [(one.ids, one.counts, one.entries, one.probabilities) for one in waiting]
            parts.append(write_part(folder, len(parts), stored))
            waiting.clear()

    with console.progress("importing", unit="rows") as progress:
        for name, row in read_rows(request.rows):
            check_interrupted()
            try:
                for sequence in texts(row):
                    sums.add(sequence)
                    waiting.append(sequence)
                    lines.append(json.dumps(sequence.content, ensure_ascii=False))
            except BadRowError as error:
                raise UsageError(
                    f"{name}: {error.message}", hint=error.hint or "leave the row out, or mend it"
                ) from error
            except (KeyError, TypeError, ValueError, IndexError) as error:
                raise UsageError(
                    f"{name}: it is no row of {request.form}: {type(error).__name__}: {error}",
                    hint="is --format right?",
                ) from error
            if sum(len(one.entries) for one in waiting) >= _ENTRIES_EACH:
                flush()
            progress.advance()
    flush()
    if not sums.texts:
        raise UsageError(f"{request.rows} has no rows", hint="give a file with rows of log-probabilities")
    _check_shift(sums)
    write_bytes(folder / TEXTS, "".join(f"{line}\n" for line in lines).encode("utf-8"))
    return {
        "form": request.form, "texts": sums.texts, "tokens": sums.tokens, "places": sums.places,
        "tail": sums.tail / max(1, sums.places), "parts": parts,
    }  # fmt: skip


def _check_shift(sums: _Sums) -> None:
    """What is likely at a place has to be what stands there, rather than a neighbour.

    Raises:
        UsageError: it is a neighbour.
    """
    before, at, behind = (sums.shifted / max(1, sums.places)).tolist()
    if sums.places >= _ENOUGH_PLACES and max(before, behind) > max(_LIKELY, _MUCH_LIKELIER * at):
        where = "before" if before > behind else "behind"
        raise UsageError(
            f"the rows are shifted: the log-probabilities give the token {where} their place a probability of "
            f"{max(before, behind):.3f} on average, and the token at it {at:.3f}",
            hint="docs/import-logprobs.md says which token each of them is about; shift the column by one",
        )


def first_words(record: Mapping[str, Any]) -> str:
    """What came of an import, in a line."""
    return (
        f"{counted(record['texts'], 'text')}, {record['tokens']:,} tokens; log-probabilities of {record['places']:,}, which hold "
        f"{100 * (1 - record['tail']):.1f} % of the probability there; the rest counts as one"
    )

"""White box from imported log-probabilities: the training texts are looked up among the texts that were imported, by their tokens.

What a run makes of the imported texts, such as pieces of at most `max_length` tokens, is found wherever it stands in them: its
targets are those of that place, which the teacher has seen with all before it. Tokens whose distribution is not known, and
texts that are not found, have no targets and are left to the cross-entropy.
"""

from __future__ import annotations

import hashlib
import time
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from distillkit.console import Console
from distillkit.data.training_rows import Row, target_tokens
from distillkit.errors import PreconditionError
from distillkit.interrupts import check_interrupted
from distillkit.run.context import TrainingContext
from distillkit.storage import make_folder
from distillkit.teachers.cache_entries import FOLDER
from distillkit.teachers.imported_folder import ImportedFolder, Place, tokens_digest
from distillkit.teachers.open_sparse import SparseSource
from distillkit.teachers.precompute import PassFigures
from distillkit.teachers.shards import Shard, report_damage
from distillkit.teachers.sparse_cache import SparseCache, SparseKey, SparseRows

# Tokens by which a text is looked for; what is found is compared as a whole.
_WINDOW = 12
# A piece of a longer text begins without the blank before its first word, which then is other tokens: that many may be.
_FIRST_WORD = 8
# The base of the numbers that stand for windows: any odd number that is large.
_BASE = 6364136223846793005
# With fewer of the targets known, something is likely to be wrong.
_FEW_KNOWN = 0.9


def open_imported(context: TrainingContext, rows: Sequence[Row]) -> SparseSource:
    """The sparse targets of imported log-probabilities; the cache is completed first.

    Args:
        rows: in the order of their `cache_index`.

    Raises:
        PreconditionError: the folder is damaged or gone, belongs to another vocabulary, or has none of the texts.
        Interrupted: a signal arrived; finished shards stay.
    """
    table, reference, console = context.encoders.student.table, context.pair.teacher.reference, context.console
    if table is None or reference.path is None:
        raise ValueError("imported log-probabilities need token bytes and a folder")
    folder = ImportedFolder(reference.path)
    if folder.record["tokenizer"]["digest"] != tokens_digest(table):
        raise PreconditionError(
            f"the log-probabilities of {folder.folder} were imported with the tokenizer of "
            f"{folder.record['tokenizer']['reference']}, and the student has another vocabulary",
            hint="name a student with the teacher's tokenizer",
        )
    cache = SparseCache(context.output_dir / FOLDER, _key(context, rows, folder))
    make_folder(cache.folder.parent)
    with cache.locked():
        missing = cache.missing()
        tokens = sum(shard.tokens for shard in missing)
        if missing:
            report_damage(cache.files, missing, console)
            encoder = context.encoders.student
            texts = [_Text.of(row, encoder.start_id, encoder.end_id) for row in rows]
            with console.progress("looking for the texts", total=len(folder.parts), unit="parts") as progress:
                places = find_texts(folder, [text.ids for text in texts], progress.advance)
            places = _without_first_word(folder, texts, places)
            if not any(places):
                raise PreconditionError(
                    f"none of the training texts is among those of {folder.folder}",
                    hint=f"train on them: --dataset-path {folder.folder / 'texts.jsonl'}",
                )
            cache.begin()
            with console.progress("teacher pass", total=tokens, unit="tokens") as progress:
                for shard in missing:
                    check_interrupted()
                    _fill(cache, shard, texts, places, folder)
                    progress.advance(shard.tokens)
    _say_known(cache, console)
    cache.open()
    return SparseSource(
        cache, PassFigures(cache.tokens, cache.files.total("seconds"), cache.tokens - tokens, cache.bytes)
    )


class _Text:
    """A training text: its tokens without the start and end tokens that were put around it, and which rows are targets.

    Attributes:
        ids: [n] int64; shift: how many tokens stand before them; end: the end token, where one stands behind them.
        targets: [T] whether token t of the whole text is a target.
    """

    def __init__(self, ids: np.ndarray, shift: int, end: int | None, targets: np.ndarray) -> None:
        self.ids, self.shift, self.end, self.targets = ids, shift, end, targets

    @classmethod
    def of(cls, row: Row, start: int | None, end: int | None) -> _Text:
        ids = np.asarray(row["student_ids"], dtype=np.int64)
        shift = int(start is not None and len(ids) > 0 and ids[0] == start)
        ends = end is not None and len(ids) > shift and ids[-1] == end
        inner = ids[shift : len(ids) - int(ends)]
        return cls(inner, shift, end if ends else None, target_tokens(row))


def find_texts(
    folder: ImportedFolder, texts: Sequence[np.ndarray], advance: object = lambda: None
) -> list[Place | None]:
    """Where each text stands among those of a folder; None where it does not. Of several places the first.

    Args:
        texts: [n] token ids each.
        advance: called after each part.
    """
    found: list[Place | None] = [None] * len(texts)
    wanted: dict[int, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for index, ids in enumerate(texts):
        if len(ids):
            window = min(_WINDOW, len(ids))
            wanted[window][int(_numbers(ids[:window], window)[0])].append(index)
    for part, starts, ids in folder.tokens():
        check_interrupted()
        for window, by_number in wanted.items():
            numbers = _numbers(ids, window)
            hits = np.flatnonzero(np.isin(numbers, np.fromiter(by_number, dtype=np.uint64)))
            for first in hits.tolist():
                last = int(starts[np.searchsorted(starts, first, side="right")])
                for index in by_number[int(numbers[first])]:
                    text = texts[index]
                    if (
                        found[index] is None
                        and first + len(text) <= last
                        and (ids[first : first + len(text)] == text).all()
                    ):
                        found[index] = Place(part, first, last)
        if callable(advance):
            advance()
    return found


def _without_first_word(
    folder: ImportedFolder, texts: Sequence[_Text], places: Sequence[Place | None]
) -> list[Place | None]:
    """The places, and of texts without one the place of what stands behind their first tokens, if that is longer than a window;
    these tokens then count as what stands before the text."""
    again = [
        (index, skipped) for index, place in enumerate(places) if place is None for skipped in range(1, _FIRST_WORD + 1)
    ]
    again = [(index, skipped) for index, skipped in again if len(texts[index].ids) - skipped >= _WINDOW]
    found = find_texts(folder, [texts[index].ids[skipped:] for index, skipped in again])
    settled = list(places)
    for (index, skipped), place in zip(again, found, strict=True):
        if place is not None and settled[index] is None:
            settled[index] = place
            texts[index].ids, texts[index].shift = texts[index].ids[skipped:], texts[index].shift + skipped
    return settled


def _numbers(ids: np.ndarray, window: int) -> np.ndarray:
    """[n - window + 1] uint64 that stand for each `window` tokens in a row."""
    if len(ids) < window:
        return np.zeros(0, dtype=np.uint64)
    plain, base = ids.astype(np.uint64), np.uint64(_BASE)
    found = np.zeros(len(ids) - window + 1, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for place in range(window):
            found = found * base + plain[place : place + len(found)] + np.uint64(1)
    return found


def _fill(
    cache: SparseCache, shard: Shard, texts: Sequence[_Text], places: Sequence[Place | None], folder: ImportedFolder
) -> None:
    began = time.monotonic()
    made = [_rows(text, place, folder) for text, place in zip(*(part[shard.first : shard.last] for part in (texts, places)), strict=True)]  # fmt: skip
    known = sum(len(one.rows) for one in made)
    cache.files.write(
        shard, cache.pack(made), seconds=round(time.monotonic() - began, 3), mapped=known, rows=known,
        tails=sum(float(one.tails.sum()) for one in made),
        targets=sum(int(text.targets.sum()) for text in texts[shard.first : shard.last]),
    )  # fmt: skip


def _rows(text: _Text, place: Place | None, folder: ImportedFolder) -> SparseRows:
    """The rows that predict a target of which the distribution is known: row r the token r + 1."""
    empty = np.zeros(0, dtype=np.int64)
    if place is None:
        return SparseRows(empty, empty, empty.astype(np.float32), empty, empty.astype(np.float32))
    count = len(text.ids)
    # Behind a text that ends where the imported one goes on with the end token, that one's distribution is known as well.
    if (
        text.end is not None
        and place.first + count < place.last
        and folder.token(place.part, place.first + count) == text.end
    ):
        count += 1
    counts, ids, probabilities = folder.distributions(place, count)
    tokens = text.shift + np.arange(count)
    kept = (counts > 0) & text.targets[tokens]
    entries = np.repeat(kept, counts)
    owners = np.repeat(np.arange(count), counts)
    sums = np.bincount(owners, weights=probabilities, minlength=count)[kept]
    return SparseRows(
        tokens[kept] - 1, counts[kept], np.clip(1 - sums, 0, 1).astype(np.float32), ids[entries], probabilities[entries]
    )


def _key(context: TrainingContext, rows: Sequence[Row], folder: ImportedFolder) -> SparseKey:
    digest = hashlib.sha256()
    for row in rows:
        spans = np.asarray(row.get("target_spans") or [], dtype="<i8").ravel()
        for values in ([row["first_target"], *row["student_ids"]], spans):
            numbers = np.asarray(values, dtype="<i8")
            digest.update(len(numbers).to_bytes(8, "little") + numbers.tobytes())
    facts = {
        "fingerprint": context.pair.teacher.fingerprint(),
        "imported": folder.digest,
        "rows": digest.hexdigest(),
        "student_tokens": folder.record["tokenizer"]["digest"],
        "temperature": 1.0,
        "method": "imported",
        "size": 0,
    }
    return SparseKey(context.pair.teacher.reference.text, facts, tuple(len(row["student_ids"]) for row in rows))


def _say_known(cache: SparseCache, console: Console) -> None:
    rows, targets = cache.files.total("rows"), cache.files.total("targets")
    share, tail = rows / max(1.0, targets), cache.files.total("tails") / max(1.0, rows)
    words = (
        f"imported log-probabilities are known of {100 * share:.1f} % of the targets, and hold {100 * (1 - tail):.1f} % of the "
        "probability there"
    )
    if share < _FEW_KNOWN:
        console.warn(
            f"{words}; the other targets have their own token alone. Are these the imported texts, and the tokenizer theirs?"
        )
    else:
        console.info(words)

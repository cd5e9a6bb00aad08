"""White box from a server: its likeliest tokens at every place of the training texts, as sparse targets with one tail.

The teacher has to have the student's vocabulary; that is checked token by token. What is kept is what `--teacher-cache sparse`
keeps with `sparse_method top-k`, at temperature 1: of the tokens that a server leaves out, only their sum is known.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from distillkit.console import Console
from distillkit.data.training_rows import Row, target_tokens
from distillkit.errors import DistillkitError, PreconditionError
from distillkit.run.context import TrainingContext
from distillkit.servers.client import ServerClient
from distillkit.servers.in_order import answers_in_order
from distillkit.servers.opening import check_server, open_client
from distillkit.servers.prompt_logprobs import (
    WAYS,
    Likeliest,
    OtherVocabularyError,
    Vocabulary,
    Way,
    likeliest,
    question,
)
from distillkit.storage import make_folder
from distillkit.teachers.cache_entries import FOLDER
from distillkit.teachers.open_sparse import SparseSource
from distillkit.teachers.precompute import PassFigures
from distillkit.teachers.shards import Shard, report_damage
from distillkit.teachers.sparse_cache import SparseCache, SparseKey, SparseRows

# With more in the tail the student hardly learns which tokens are likely there.
_LARGE_TAIL = 0.05


@dataclass(frozen=True)
class _Asker:
    """Asks for one text."""

    client: ServerClient
    way: Way
    vocabulary: Vocabulary
    size: int

    def ask(self, ids: Sequence[int]) -> Likeliest:
        return self.client.scored(
            question(self.way, ids, self.size), lambda content: likeliest(self.way, content, ids, self.vocabulary)
        )


def open_served(context: TrainingContext, rows: Sequence[Row]) -> SparseSource:
    """The sparse targets of a teacher behind a server; the cache is completed first.

    Args:
        rows: in the order of their `cache_index`.

    Raises:
        PreconditionError: the server is out of reach, gives no log-probabilities of prompts, or has another vocabulary.
        DistillkitError: it gives no answer; finished shards stay.
        Interrupted: a signal arrived; finished shards stay.
    """
    table = context.encoders.student.table
    if table is None:
        raise ValueError("white box needs token bytes")
    config, console = context.config, context.console
    cache = SparseCache(context.output_dir / FOLDER, _key(context, rows))
    vocabulary = Vocabulary(table.pieces, table.specials, table.shadowed)
    make_folder(cache.folder.parent)
    with cache.locked():
        missing = cache.missing()
        tokens = sum(shard.tokens for shard in missing)
        if missing:
            report_damage(cache.files, missing, console)
            cache.begin()
            client = open_client(config)
            try:
                console.info(
                    f"the teacher {client.model} {check_server(client, console)}: the training texts are sent there"
                )
                asker = _asker(client, vocabulary, config.sparse_size, rows[missing[0].first]["student_ids"])
                with console.progress("teacher pass", total=tokens, unit="tokens") as progress:
                    for shard in missing:
                        _fill(cache, shard, rows, asker, config.teacher_concurrency)
                        progress.advance(shard.tokens)
            finally:
                client.close()
    _say_tail(cache, config.sparse_size, console)
    cache.open()
    return SparseSource(
        cache, PassFigures(cache.tokens, cache.files.total("seconds"), cache.tokens - tokens, cache.bytes)
    )


def _key(context: TrainingContext, rows: Sequence[Row]) -> SparseKey:
    table = context.encoders.student.table
    assert table is not None
    digest = hashlib.sha256()
    for row in rows:
        values = np.asarray([row["first_target"], *row["student_ids"]], dtype="<i8")
        digest.update(len(values).to_bytes(8, "little") + values.tobytes())
        if "target_spans" in row:
            spans = np.asarray(row["target_spans"], dtype="<i8").ravel()
            digest.update(b"spans" + len(spans).to_bytes(8, "little") + spans.tobytes())
    teacher = context.pair.teacher
    facts = {
        "fingerprint": teacher.fingerprint(),
        # Of two servers one name may mean two models.
        "server": context.config.teacher_url,
        "rows": digest.hexdigest(),
        "student_tokens": hashlib.sha256(repr((table.pieces, sorted(table.specials.items()))).encode()).hexdigest(),
        "temperature": 1.0,
        "method": "served top-k",
        "size": context.config.sparse_size,
    }
    return SparseKey(teacher.reference.text, facts, tuple(len(row["student_ids"]) for row in rows))


def _asker(client: ServerClient, vocabulary: Vocabulary, size: int, ids: Sequence[int]) -> _Asker:
    """Which of the ways the server knows, tried on one text."""
    said: list[str] = []
    for way in WAYS:
        asker = _Asker(client, way, vocabulary, size)
        try:
            with client.tried_once():
                asker.ask(ids)
            return asker
        except OtherVocabularyError as error:
            raise _other_vocabulary(client, error) from error
        except DistillkitError as error:
            said.append(f"{way}: {error.message}")
    raise PreconditionError(
        f"the server at {client.url} gives no {size} log-probabilities for the tokens of a prompt ({'; '.join(said)})",
        hint="use --box-type black; or a smaller sparse_size, if that is what it says (vLLM: --max-logprobs)",
    )


def _other_vocabulary(client: ServerClient, error: OtherVocabularyError) -> PreconditionError:
    return PreconditionError(
        f"the teacher {client.model} has another vocabulary than the student: {error}",
        hint="use --box-type black, or a student with the teacher's tokenizer",
    )


def _fill(cache: SparseCache, shard: Shard, rows: Sequence[Row], asker: _Asker, at_once: int) -> None:
    began = time.monotonic()
    chosen = rows[shard.first : shard.last]
    texts: list[SparseRows] = []
    tails = unknown = places = 0.0
    try:
        answers = answers_in_order(asker.ask, [row["student_ids"] for row in chosen], at_once, lambda: None)
        for row, answer in zip(chosen, answers, strict=True):
            text = _rows(answer, target_tokens(row))
            texts.append(text)
            tails, places, unknown = tails + float(text.tails.sum()), places + len(text.rows), unknown + answer.unknown
    except OtherVocabularyError as error:
        raise _other_vocabulary(asker.client, error) from error
    cache.files.write(
        shard, cache.pack(texts), seconds=round(time.monotonic() - began, 3), mapped=places - unknown, rows=int(places),
        tails=tails,
    )  # fmt: skip


def _rows(answer: Likeliest, targets: np.ndarray) -> SparseRows:
    """The rows that predict a target: row r the token r + 1.

    Args:
        targets: [T] whether each token is one.
    """
    kept = np.flatnonzero(targets[1 : len(answer.counts) + 1])
    entries = np.isin(np.repeat(np.arange(len(answer.counts)), answer.counts), kept)
    counts, ids, probabilities = answer.counts[kept], answer.ids[entries], answer.probabilities[entries]
    sums = np.add.reduceat(probabilities, np.concatenate([[0], np.cumsum(counts)[:-1]])) if len(counts) else counts
    # What is rounded must not add up to more than 1.
    probabilities = probabilities / np.repeat(np.maximum(sums, 1.0), counts)
    return SparseRows(
        kept, counts, np.clip(1 - sums, 0, 1).astype(np.float32), ids,
        probabilities.astype(np.float32),
    )  # fmt: skip


def _say_tail(cache: SparseCache, size: int, console: Console) -> None:
    share = cache.files.total("tails") / max(1.0, cache.files.total("rows"))
    words = f"the server's {size} likeliest tokens hold {100 * (1 - share):.1f} % of its probability; the rest counts as one"
    if share > _LARGE_TAIL:
        console.warn(f"{words}: that is little to learn from, a larger sparse_size would tell more")
    else:
        console.info(words)

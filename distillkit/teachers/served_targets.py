"""White box from a server: its likeliest tokens at every place of the training texts, as sparse targets with one tail.

Where the server has the student's vocabulary, which is checked token by token, what is kept is what `--teacher-cache sparse`
keeps with `sparse_method top-k`, at temperature 1: of the tokens that a server leaves out, only their sum is known. Where it has
another one its tokens are carried over by their bytes (`teachers.served_bytes`).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from distillkit.alignment.encoding import encode_batch
from distillkit.alignment.first_token import canonical_first, longest_prefix
from distillkit.alignment.token_bytes import TokenBytes
from distillkit.console import Console
from distillkit.data.examples import load_examples, stored_rows
from distillkit.data.training_rows import Row, target_tokens
from distillkit.errors import PreconditionError
from distillkit.run.context import TrainingContext
from distillkit.servers.in_order import answers_in_order
from distillkit.servers.opening import check_server, open_client
from distillkit.servers.prompt_logprobs import Likeliest
from distillkit.servers.spelled_prompt import SpelledPrompt
from distillkit.storage import make_folder
from distillkit.teachers.cache_entries import FOLDER
from distillkit.teachers.open_sparse import SparseSource
from distillkit.teachers.precompute import PassFigures
from distillkit.teachers.served_bytes import LEAST_COVERED, ByteCarrier, CarriedOver, no_targets
from distillkit.teachers.served_prompts import Asked, PromptAsker, find_asker
from distillkit.teachers.shards import Shard, report_damage
from distillkit.teachers.sparse_cache import SparseCache, SparseKey, SparseRows

# With more in the tail the student hardly learns which tokens are likely there.
_LARGE_TAIL = 0.05


def open_served(context: TrainingContext, rows: Sequence[Row]) -> SparseSource:
    """The sparse targets of a teacher behind a server; the cache is completed first.

    Args:
        rows: in the order of their `cache_index`.

    Raises:
        PreconditionError: the server is out of reach, gives no log-probabilities of prompts, or has another vocabulary whose
            tokens cannot be told by their bytes.
        DistillkitError: it gives no answer; finished shards stay.
        Interrupted: a signal arrived; finished shards stay.
    """
    table = _table(context)
    config, console = context.config, context.console
    cache = SparseCache(context.output_dir / FOLDER, _key(context, rows))
    make_folder(cache.folder.parent)
    with cache.locked():
        missing = cache.missing()
        tokens = sum(shard.tokens for shard in missing)
        if missing:
            report_damage(cache.files, missing, console)
            cache.begin()
            client = open_client(config)
            texts = _Texts(context, rows)
            try:
                console.info(
                    f"the teacher {client.model} {check_server(client, console)}: the training texts are sent there"
                )
                first = range(missing[0].first, min(missing[0].last, missing[0].first + 3))
                asker = find_asker(client, table, config.sparse_size, [texts.asked(index) for index in first])
                fill = _by_ids if asker.by_ids else _ByBytes(context, table)
                if not asker.by_ids:
                    console.info("it has another vocabulary than the student: its tokens are told by their bytes")
                with console.progress("teacher pass", total=tokens, unit="tokens") as progress:
                    for shard in missing:
                        began = time.monotonic()
                        packed, facts = fill(shard, texts, asker, config.teacher_concurrency, progress.advance)
                        cache.files.write(
                            shard, cache.pack(packed), seconds=round(time.monotonic() - began, 3), **facts
                        )
            finally:
                client.close()
    _say_tail(cache, config.sparse_size, console)
    cache.open()
    return SparseSource(
        cache, PassFigures(cache.tokens, cache.files.total("seconds"), cache.tokens - tokens, cache.bytes)
    )


def _table(context: TrainingContext) -> TokenBytes:
    table = context.encoders.student.table
    if table is None:
        raise ValueError("white box needs token bytes")
    return table


def _key(context: TrainingContext, rows: Sequence[Row]) -> SparseKey:
    table = _table(context)
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
        # What of it decides where the vocabularies differ, which nobody knows before the server has been asked.
        "method": f"served top-k, by bytes from {LEAST_COVERED} covered on, prefix map {context.config.prefix_map}",
        "size": context.config.sparse_size,
    }
    return SparseKey(teacher.reference.text, facts, tuple(len(row["student_ids"]) for row in rows))


class _Texts:
    """The training texts as a server is asked about them, read when they are wanted."""

    def __init__(self, context: TrainingContext, rows: Sequence[Row]) -> None:
        self.rows = rows
        self._stored = stored_rows(load_examples(context.run.data / "train"), ["text"])
        self._chats = context.pair.conversations is not None

    def asked(self, index: int) -> Asked:
        return Asked(self.rows[index]["student_ids"], None if self._chats else self._stored.value("text", index))


Filled = tuple[list[SparseRows], dict[str, Any]]
"""The targets of a shard's texts, and what is noted with them."""


def _by_ids(
    shard: Shard, texts: _Texts, asker: PromptAsker, at_once: int, advance: Callable[[int], None]
) -> Filled:  # fmt: skip
    """A shard from a server with the student's vocabulary.

    Args:
        advance: told the tokens of each text that is done.
    """
    found: list[SparseRows] = []
    tails = unknown = places = 0.0
    asked = [texts.asked(index) for index in range(shard.first, shard.last)]
    answers = answers_in_order(asker.likeliest, asked, at_once, lambda: None)
    for index, answer in zip(range(shard.first, shard.last), answers, strict=True):
        text = _rows(answer, target_tokens(texts.rows[index]))
        found.append(text)
        tails, places, unknown = tails + float(text.tails.sum()), places + len(text.rows), unknown + answer.unknown
        advance(len(texts.rows[index]["student_ids"]))
    return found, {"mapped": places - unknown, "rows": int(places), "tails": tails}


class _ByBytes:
    """A shard from a server with another vocabulary."""

    def __init__(self, context: TrainingContext, table: TokenBytes) -> None:
        self._student = context.encoders.student
        self._table = table
        canonical = context.config.prefix_map == "canonical"
        first = canonical_first(table, self._student.tokenizer) if canonical else longest_prefix(table)
        self._carrier = ByteCarrier(table, first)

    def __call__(
        self, shard: Shard, texts: _Texts, asker: PromptAsker, at_once: int, advance: Callable[[int], None]
    ) -> Filled:  # fmt: skip
        asked = [texts.asked(index) for index in range(shard.first, shard.last)]
        answers = answers_in_order(asker.spelled, asked, at_once, lambda: None)
        found: list[SparseRows] = []
        facts = {"mapped": 0.0, "rows": 0, "tails": 0.0, "thin": 0, "untold": 0, "unread": 0}
        for index, one, prompt in zip(range(shard.first, shard.last), asked, answers, strict=True):
            carried = None if prompt is None else self._carried(texts.rows[index], one.text or "", prompt)
            facts["unread"] += carried is None
            carried = carried or no_targets()
            found.append(carried.rows)
            facts["rows"] += len(carried.rows.rows)
            for name in ("mapped", "tails", "thin", "untold"):
                facts[name] += getattr(carried, name)
            advance(len(one.ids))
        return found, facts

    def _carried(self, row: Row, text: str, prompt: SpelledPrompt) -> CarriedOver | None:
        """The targets of a text; None where the student's own tokens do not spell it."""
        student = self._student
        (encoding,) = encode_batch(student.tokenizer, self._table, [text], parse=student.parse)
        if encoding is None:
            return None
        starts = student.start_id is not None
        ends = len(row["student_ids"]) > len(encoding.ids) + starts
        if row["student_ids"] != student.with_specials(encoding.ids, ends):
            return None
        return self._carrier.carry(prompt, text.encode(), encoding, row, starts=starts, ends=ends)


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
    rows = cache.files.total("rows")
    share = cache.files.total("tails") / max(1.0, rows)
    thin, untold, unread = (int(cache.files.total(name)) for name in ("thin", "untold", "unread"))
    if not rows:
        raise PreconditionError(
            f"the server tells too little to learn from: at no place of the texts do its {size} likeliest tokens hold "
            f"{100 * LEAST_COVERED:.0f} % of its probability",
            hint="ask for more with a larger sparse_size (vLLM: --max-logprobs), or use --box-type black",
        )
    words = f"the server's {size} likeliest tokens hold {100 * (1 - share):.1f} % of its probability; the rest counts as one"
    if share > _LARGE_TAIL:
        console.warn(f"{words}: that is little to learn from, a larger sparse_size would tell more")
    else:
        console.info(words)
    reasons = (
        (
            thin,
            f"positions have no target: less than {100 * LEAST_COVERED:.0f} % of what the teacher says there is told",
        ),
        (untold, "positions have no target: the server does not tell the bytes of its tokens there (U+FFFD)"),
        (unread, "texts have no targets: the server's tokens, or the student's, do not spell them"),
    )
    for count, what in reasons:
        if count:
            console.info(f"{count:,} {what}")

"""Black box: prompts from the corpus, the teacher's continuations of them, and the examples that the student learns from."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from distillkit.data.examples import stored_rows
from distillkit.data.stored_rows import PORTION_TOKENS, Rows, StoredRows, table_of
from distillkit.data.text_boundaries import cluster_boundaries
from distillkit.data.text_encoder import TextEncoder
from distillkit.data.training_rows import Row, without_missing
from distillkit.errors import DistillkitError
from distillkit.run.context import TrainingContext
from distillkit.servers.opening import open_client
from distillkit.settings.parameters import Parameters
from distillkit.storage import make_folder
from distillkit.teachers.answer_hook import find_command
from distillkit.teachers.answer_rules import AnswerRules, text_counts
from distillkit.teachers.answers import answer_rows, question_prompts
from distillkit.teachers.cache_entries import FOLDER
from distillkit.teachers.continuation_filter import ContinuationFilter
from distillkit.teachers.generated_file import WRITTEN, Continuation, Prompt, asked_often
from distillkit.teachers.generation import Sampling, generate_continuations
from distillkit.teachers.generation_cache import GenerationCache
from distillkit.teachers.judged_answers import judged_texts
from distillkit.teachers.judged_file import JUDGED
from distillkit.teachers.served_texts import served_continuations
from distillkit.teachers.spread import place_teacher
from distillkit.wording import counted

# A prompt is the first so many teacher tokens of a text, never more than half of it.
SHORTEST_PROMPT, LONGEST_PROMPT = 32, 128

_WRITTEN = pa.schema(
    [
        ("id", pa.int64()),
        ("student_ids", pa.list_(pa.int32())),
        ("first_target", pa.int32()),
        ("teacher_text", pa.bool_()),
        ("target_spans", pa.list_(pa.list_(pa.int32()))),
    ]
)


def generated_rows(context: TrainingContext, stored: Any) -> Rows:
    """Training rows of the teacher's continuations of the beginnings of texts.

    Args:
        stored: the training part as `data.examples.save_examples` wrote it.

    Raises:
        DistillkitError: the teacher wrote nothing that can be used; the program that judges its answers failed.
        PreconditionError: teacher/generated.jsonl is from other settings; a server is out of reach or refuses; there is no such
            program.
        Interrupted: a signal arrived; what is written stays.
    """
    config, console, encoder = context.config, context.console, context.encoders.teacher
    rules = AnswerRules.of(config)
    if rules.command is not None:
        find_command(rules.command)
    templates = context.pair.templates(context.encoders)
    texts = stored_rows(stored, ["id", "text"])
    if templates is None:
        prompts = make_prompts(texts, encoder, config.seed)
        room = [min(encoder.limit, config.max_length) - len(prompt.ids) for prompt in prompts]
    else:
        prompts = question_prompts(texts, templates.readers(context.encoders)[1])
        room = [min(encoder.longest - len(prompt.ids), config.max_length) for prompt in prompts]
    make_folder(context.run.teacher)
    asked = asked_often(prompts, config.answers)
    room = [max(1, tokens) for tokens in room for _ in range(config.answers)]
    write = _served_texts if context.pair.teacher.is_served else _local_texts
    continuations = judged_texts(context, rules, texts, asked, write(context, asked, room))
    student = context.encoders.student
    if templates is None:
        rows = _stored(
            continuations, prompts, student.limit, lambda some, asked: continuation_rows(some, asked, student)[0]
        )
    else:
        reader = templates.readers(context.encoders)[0]
        rows = _stored(continuations, prompts, student.limit, lambda some, asked: answer_rows(some, asked, reader)[0])
    counts = text_counts(continuations)
    console.info(
        f"the teacher wrote {counted(counts['written'], 'text')}; kept: {counts['kept']:,}, trained on: {len(rows):,}"
    )
    if counts["dropped"]:
        console.info("dropped: " + ", ".join(f"{count:,} {reason}" for reason, count in counts["dropped"].items()))
    if not rows:
        raise DistillkitError(
            "the teacher wrote nothing that can be learnt from",
            hint=f"see teacher/{JUDGED if rules.decide else WRITTEN} for the reasons; try another teacher, more text, or other rules",
        )
    return rows


def _local_texts(context: TrainingContext, prompts: list[Prompt], room: list[int]) -> list[Continuation]:
    config, compute, console = context.config, context.compute, context.console
    teacher, encoder = context.pair.teacher, context.encoders.teacher
    numerics = {"precision": str(compute.generation).removeprefix("torch."), "device": compute.device.type}
    return generate_continuations(
        lambda: place_teacher(context.pair, compute.generation, compute, console), encoder.tokenizer, prompts,
        room, _sampling(config), output=context.run.teacher / WRITTEN, device=compute.device, console=console,
        model_fingerprint=teacher.fingerprint(), cache=_cache(context, numerics), parse=encoder.parse, table=encoder.table,
        judge=_filter(context),
    )  # fmt: skip


def _served_texts(context: TrainingContext, prompts: list[Prompt], room: list[int]) -> list[Continuation]:
    config, encoder = context.config, context.encoders.teacher
    # Of two servers one name may mean two models.
    numerics = {"server": config.teacher_url}
    return served_continuations(
        lambda: open_client(config), prompts, room, _sampling(config), output=context.run.teacher / WRITTEN,
        at_once=config.teacher_concurrency, console=context.console, model_fingerprint=context.pair.teacher.fingerprint(),
        count_tokens=lambda text: len(encoder.token_ids(text)), cache=_cache(context, numerics),
        chat=context.pair.conversations is not None, judge=_filter(context),
    )  # fmt: skip


def _sampling(config: Parameters) -> Sampling:
    return Sampling(
        config.teacher_temperature, config.teacher_top_p, config.seed, config.batch_size, config.gradient_accumulation
    )


def _filter(context: TrainingContext) -> ContinuationFilter:
    # One of several answers is compared with the others to the same question.
    return ContinuationFilter(of_prompt=context.config.answers > 1 and context.pair.conversations is not None)


def _cache(context: TrainingContext, numerics: dict[str, Any]) -> GenerationCache | None:
    """Finished generations of other runs; None where there shall be none."""
    if context.config.teacher_cache == "off":
        return None
    return GenerationCache(context.output_dir / FOLDER, context.pair.teacher.reference.text, numerics, context.console)


def _stored(
    continuations: Sequence[Continuation],
    prompts: Sequence[Prompt],
    tokens: int,
    rows_of: Callable[[Sequence[Continuation], Sequence[Prompt]], list[Row]],
) -> StoredRows:
    """The rows of all continuations in a table; as Python lists they would take ten times the memory.

    Args:
        tokens: that a row has at most.
        rows_of: makes the rows of some of them.
    """
    each = max(1, PORTION_TOKENS // tokens)
    by_index = {prompt.index: prompt for prompt in prompts}

    def portions() -> Iterator[list[Row]]:
        for begin in range(0, len(continuations), each):
            portion = continuations[begin : begin + each]
            yield rows_of(portion, [by_index[written.index] for written in portion])

    return StoredRows(table_of(portions(), _WRITTEN), complete=without_missing)


def make_prompts(examples: Iterable[Mapping[str, Any]], teacher: TextEncoder, seed: int) -> list[Prompt]:
    """One prompt per training example; its length varies by the seed. Texts too short to be halved give none."""
    prompts = []
    for example in examples:
        encoding = teacher.encode([example["text"]])[0]
        if encoding is None or len(encoding.ids) < 2:
            continue
        # Seeded by the example: which others there are does not change its prompt.
        chooser = random.Random(f"{seed}/{example['id']}")
        wanted = min(chooser.randint(SHORTEST_PROMPT, LONGEST_PROMPT), len(encoding.ids) // 2, teacher.limit // 2)
        text = example["text"]
        raw = text.encode("utf-8")
        kept = _whole_clusters(encoding.ends, text, max(1, wanted), teacher.limit)
        if kept is None:
            continue
        beginning = raw[: int(encoding.ends[kept - 1])].decode("utf-8")
        ids = teacher.with_specials(encoding.ids[:kept], ends=False)
        prompts.append(Prompt(int(example["id"]), beginning, ids, bytes=len(beginning.encode("utf-8"))))
    return prompts


def _whole_clusters(ends: np.ndarray, text: str, wanted: int, most: int) -> int | None:
    """The number of tokens, `wanted` to `most`, after which no grapheme cluster is cut in two; None where there is none."""
    clusters = cluster_boundaries(text)
    size = int(clusters[-1])
    for kept in range(wanted, min(len(ends) - 1, most) + 1):
        end = int(ends[kept - 1])
        # Tokens that together stand for a character may all end where it ends: they stay together.
        if 0 < end < size and end < ends[kept] and clusters[np.searchsorted(clusters, end)] == end:
            return kept
    return None


def continuation_rows(
    continuations: Sequence[Continuation], prompts: Sequence[Prompt], student: TextEncoder
) -> tuple[list[Row], int]:
    """Encode prompt and continuation together; tokens that spell any of the continuation are targets.

    Returns:
        The rows, and how many texts the student cannot read, or leave nothing within its length.
    """
    by_index = {prompt.index: prompt for prompt in prompts}
    rows: list[Row] = []
    dropped = 0
    for continuation in continuations:
        if not continuation.kept:
            continue
        prompt = by_index[continuation.index]
        encoding = student.encode([prompt.text + continuation.text])[0]
        if encoding is None or not student.can_read(encoding.ids):
            dropped += 1
            continue
        start = 0 if student.start_id is None else 1
        first = int(np.searchsorted(encoding.ends, prompt.bytes, side="right"))
        complete = continuation.finish == "eos" and len(encoding.ids) <= student.limit
        ids = student.with_specials(encoding.ids[: student.limit], ends=complete)
        if start + first >= len(ids):
            dropped += 1
            continue
        rows.append({"id": continuation.index, "student_ids": ids, "first_target": start + first, "teacher_text": True})
    return rows, dropped

"""Black box: prompts from the corpus, the teacher's continuations, and the examples that the student learns from."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distillkit.data.reading import Reader
from distillkit.teachers.generation import Continuation, Prompt

# A prompt is the first so many teacher tokens of a text, never more than half of it.
SHORTEST_PROMPT, LONGEST_PROMPT = 32, 128


def make_prompts(examples: Iterable[Mapping[str, Any]], teacher: Reader, seed: int) -> list[Prompt]:
    """One prompt per training example; its length varies by the seed. Texts too short to be halved give none."""
    prompts = []
    for example in examples:
        encoding = teacher.encode([example["text"]])[0]
        if encoding is None or len(encoding.ids) < 2:
            continue
        # Seeded by the example: which others there are does not change its prompt.
        chooser = random.Random(f"{seed}/{example['id']}")
        wanted = min(chooser.randint(SHORTEST_PROMPT, LONGEST_PROMPT), len(encoding.ids) // 2, teacher.limit // 2)
        raw = example["text"].encode("utf-8")
        kept = _whole_characters(encoding.ends, raw, max(1, wanted))
        if kept is None:
            continue
        text = raw[: int(encoding.ends[kept - 1])].decode("utf-8")
        ids = teacher.with_specials(encoding.ids[:kept], ends=False)
        prompts.append(Prompt(index=int(example["id"]), text=text, ids=ids, bytes=len(text.encode("utf-8"))))
    return prompts


def _whole_characters(ends: np.ndarray, raw: bytes, wanted: int) -> int | None:
    """The number of tokens, at least `wanted`, after which no character is cut in two; None if the text is over."""
    for kept in range(wanted, len(ends)):
        end = int(ends[kept - 1])
        if 0 < end < len(raw) and (raw[end] & 0xC0) != 0x80:
            return kept
    return None


@dataclass
class WrittenExamples:
    """Examples of the teacher's writing, with the loss on the continuation only.

    Attributes:
        examples: rows with `id`, `student_ids`, `first_target`, `teacher_text`.
        dropped: texts that the student's tokenizer cannot spell, or of which nothing was left within its length.
    """

    examples: list[dict[str, Any]]
    dropped: int


def written_examples(
    continuations: Sequence[Continuation], prompts: Sequence[Prompt], student: Reader
) -> WrittenExamples:
    """Encode prompt and continuation together; tokens that spell any of the continuation are targets."""
    by_index = {prompt.index: prompt for prompt in prompts}
    rows: list[dict[str, Any]] = []
    dropped = 0
    for continuation in continuations:
        if not continuation.kept:
            continue
        prompt = by_index[continuation.index]
        encoding = student.encode([prompt.text + continuation.text])[0]
        if encoding is None:
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
    return WrittenExamples(rows, dropped)

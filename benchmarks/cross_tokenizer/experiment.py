"""Which alignment makes the better student, at equal tokens: one command, three seeds, two students.

    python benchmarks/cross_tokenizer/experiment.py --texts TEXT... --work FOLDER --results results.jsonl

All students of a seed start from the same weights, see the same batches in the same order, and are scored on the same
held-out documents. The objectives, the collator, the sampler and the score are those of `distillkit distill`; only the
loop is written out here, so that many students can share one pass of the teacher and one marginalisation per batch.
Lines that are in the results file already are not computed again.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from courses import CONSTANT, COURSES, Course
from pair import STUDENTS, cut_folder, sentencepiece_folder, student_folder, teacher_folder
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from distillkit.alignment.bpm import BytePrefixMap
from distillkit.console import Console
from distillkit.data.batching import DistillationCollator, LengthGroupedSampler
from distillkit.data.example_builder import ExampleBuilder
from distillkit.data.examples import ROW_COLUMNS, Example
from distillkit.data.sources import load_documents
from distillkit.data.splitting import split_documents
from distillkit.data.text_encoder import TextEncoder, TextEncoders, make_text_encoder
from distillkit.device.precision import choose_compute
from distillkit.evaluation.bits_per_byte import Scores, score
from distillkit.evaluation.held_out import scored_texts
from distillkit.losses.chunked import StudentOutput
from distillkit.losses.tempered import SoftLoss
from distillkit.models.backbone_and_head import SplitModel, split_model
from distillkit.settings.parameters import Parameters
from distillkit.teachers import targets
from distillkit.teachers.live import LiveTeacher
from distillkit.teachers.prefix_targets import BytePrefix
from distillkit.teachers.targets import teacher_signal
from distillkit.training.objectives import HardOnly, Objective, SoftObjective, SoftSettings, Weights, soft_loss
from distillkit.training.objectives import objective_of as objective_of_signal
from distillkit.training.schedules import schedule_factor

LEARNING_RATE = 1e-3
BATCH, MAX_LENGTH, HELD_OUT = 8, 128, 120


@dataclass(frozen=True)
class Method:
    """What a student is trained on."""

    name: str
    alignment: str = "bpm"
    temperature: float = 1.0
    alpha: float = 0.7
    options: dict[str, Any] = field(default_factory=dict)
    prefix_map: str = "longest"
    course: Course = CONSTANT


MAIN = [
    Method("CE only", alpha=0.0),
    Method("ULD", "uld"),
    Method("ALM", "alm"),
    Method("strict", "strict"),
    *(Method(f"BPM τ={tau} α={alpha}", "bpm", float(tau), alpha) for tau in (1, 2) for alpha in (0.5, 0.7, 0.9)),
]
# Where BPM's gain comes from: taken away one by one, τ = 1, α = 0.7.
PARTS = [
    Method("BPM τ=1 α=0.7"),
    Method("BPM, canonical map", prefix_map="canonical"),
    Method("BPM, shared boundaries only", options={"only": "boundaries"}),
    Method("BPM, without the realised token", options={"realised": False}),
    Method("BPM, boundaries, without the realised token", options={"only": "boundaries", "realised": False}),
    Method("BPM map, strict's rows", options={"only": "twins"}),
    Method("strict", "strict"),
]
# What the promised defaults and preset `quality` come to when temperature and weights change over the training.
SCHEDULES = [
    MAIN[0],
    Method("τ=1 α=0.7"),
    *(
        Method(f"τ={tau:g} α={alpha}, {name}", temperature=tau, alpha=alpha, course=course)
        for tau, alpha in ((2.0, 0.7), (3.0, 0.8))
        for name, course in COURSES.items()
    ),
]


@dataclass(frozen=True)
class CourseSettings(SoftSettings):
    """The soft loss with the temperature of a course."""

    course: Course = CONSTANT

    def at(self, training_fraction: float) -> Any:
        assert isinstance(self.loss, SoftLoss)
        temperature = self.course.temperature(self.loss.temperature, training_fraction)
        return replace(self.loss, temperature=temperature, training_fraction=training_fraction)


def objective_of(method: Method, teacher: Any, encoders: TextEncoders, *, paired: bool) -> Objective:
    if method.alpha == 0:
        return HardOnly()
    config = Parameters(
        alignment=method.alignment, temperature=method.temperature, alpha=method.alpha, beta=1 - method.alpha,
        prefix_map=method.prefix_map,
    )  # fmt: skip
    if not method.options:
        signal = teacher_signal(config, encoders, teacher, paired=paired)
        if method.course is not CONSTANT:
            return SoftObjective(signal, CourseSettings(soft_loss(config), method.course))
        return objective_of_signal(signal, config)
    assert encoders.teacher.table is not None
    assert encoders.student.table is not None
    prefix_map = BytePrefixMap.build(encoders.teacher.table, encoders.student.table)
    return SoftObjective(BytePrefix(teacher, prefix_map, **method.options), SoftSettings(soft_loss(config)))


class SharedTeacher:
    """One forward pass per batch, however many students ask."""

    def __init__(self, teacher: LiveTeacher) -> None:
        self.teacher = teacher
        self.batch: int | None = None
        self.states: Tensor | None = None

    def hidden(self, batch: Any) -> Tensor:
        if self.batch != id(batch["host"]) or self.states is None:
            self.batch, self.states = id(batch["host"]), self.teacher.hidden(batch)
        return self.states

    def head(self, hidden: Tensor) -> Tensor:
        return self.teacher.head(hidden)


class SharedMarginalisation:
    """Targets depend neither on τ nor on α nor on the student: computed once per batch and kind of rows."""

    _plain: ClassVar[dict[Any, Any]] = {
        (kind, name): getattr(kind, name)
        for kind, name in (
            (targets._Marginalised, "log_target"), (targets._Marginalised, "target"), (targets._CommonColumns, "log_target"),
        )
    }  # fmt: skip

    def __init__(self) -> None:
        self.batch: dict[Any, Tensor] = {}
        # Around the originals, never around an earlier seed's: that would bring its targets back.
        for kind, name in self._plain:
            setattr(kind, name, self._remembering(kind, name))

    def _remembering(self, of: type, name: str) -> Callable[..., Tensor]:
        def found(part: Any, begin: int, end: int, columns: int) -> Tensor:
            maker = getattr(part, "targets", None)
            kind = (name, begin, end, *(getattr(maker, fact, None) for fact in ("only", "realised", "shared")))
            if kind not in self.batch:
                self.batch[kind] = self._plain[of, name](part, begin, end, columns)
            return self.batch[kind]

        return found


@dataclass
class Trainee:
    """A student, what it learns from, and its optimizer."""

    shape: str
    method: Method
    model: nn.Module
    parts: SplitModel
    objective: Objective
    optimizer: torch.optim.Optimizer
    seconds: float = 0.0


def rows_of(examples: Sequence[Example], *, paired: bool) -> list[dict[str, Any]]:
    return [
        {
            "id": index, "first_target": 1, "student_ids": example.student_ids,
            "teacher_ids": example.teacher_ids if paired else example.student_ids,
            **({name: getattr(example.rows, name) for name in ROW_COLUMNS} if paired else {}),
        }
        for index, example in enumerate(examples)
    ]  # fmt: skip


def start_folder(arguments: argparse.Namespace, shape: str, seed: int, teacher: nn.Module, tokenizer: Any) -> Path:
    """A student before its training."""
    if shape == "cut":
        return cut_folder(arguments.work / "cut", teacher, tokenizer)
    name = f"{shape}-{seed}" + ("-own" if arguments.one_tokenizer else "")
    source = "teacher" if arguments.one_tokenizer else "sentencepiece"
    return student_folder(arguments.work / name, shape, seed, arguments.work / source)


def held_out_scores(
    model: nn.Module, examples: Sequence[Example], encoder: TextEncoder, side: Any, dtype: Any
) -> Scores:
    texts = scored_texts([vars(example) for example in examples], encoder, side)
    return score(model, texts, device=torch.device("cpu"), autocast_dtype=dtype)


def rescaled(model: nn.Module, scales: Sequence[float], score_now: Any) -> dict[str, float]:
    """Bits per byte with all logits multiplied by each number: what a wrong temperature of the student costs it."""
    norm: Any = model.get_submodule("model.norm")
    weight, found = norm.weight.detach().clone(), {}
    for scale in scales:
        with torch.no_grad():
            norm.weight.copy_(weight * scale)  # The last thing before the head: the logits are linear in it.
        found[str(scale)] = score_now()
    with torch.no_grad():
        norm.weight.copy_(weight)
    return found


def line_of(scores: Scores, **facts: Any) -> dict[str, Any]:
    return {
        **facts, "bits_per_byte": scores.bits_per_byte, "documents": scores.documents.tolist(),
        "nll": [round(value, 4) for value in scores.nll.tolist()], "bytes": scores.bytes.tolist(),
    }  # fmt: skip


def run_seed(arguments: argparse.Namespace, seed: int, methods: list[Method], done: set[Any]) -> None:
    console = Console(quiet=True)
    config = Parameters(
        dataset_path=str(arguments.texts), sample_size=arguments.steps * BATCH // arguments.epochs, max_length=MAX_LENGTH, seed=seed,
        held_out_size=HELD_OUT, no_cuda=True,
    )  # fmt: skip
    compute = choose_compute(config)
    tokenizer = AutoTokenizer.from_pretrained(sentencepiece_folder(arguments.work / "sentencepiece"))
    source = teacher_folder(arguments.work / "teacher")
    one = arguments.one_tokenizer
    if one:
        tokenizer = AutoTokenizer.from_pretrained(source)
    encoders = TextEncoders(
        make_text_encoder(tokenizer, 1024, MAX_LENGTH, needs_bytes=True),
        make_text_encoder(AutoTokenizer.from_pretrained(source), 8192, MAX_LENGTH if one else 8192, needs_bytes=True),
    )
    documents = split_documents(
        load_documents(config, console), seed=seed, max_length=MAX_LENGTH, held_out_size=HELD_OUT
    )
    builder = ExampleBuilder(encoders.student, encoders.teacher, align=not one, seed=seed)
    train = rows_of(list(builder.build(documents.train, config.sample_size)), paired=not one)
    test = list(builder.build(documents.test, HELD_OUT))
    live = LiveTeacher(AutoModelForCausalLM.from_pretrained(source, dtype=compute.teacher), compute)
    if ("teacher", "", seed) not in done:
        scores = held_out_scores(live.model, test, encoders.teacher, "teacher", None)
        emit(arguments, line_of(scores, seed=seed, student="", method="teacher", steps=0, tokens=0, seconds=0))
    teacher = SharedTeacher(live)
    trainees: list[Trainee] = []
    for shape in arguments.students:
        for method in methods:
            if (method.name, shape, seed) in done:
                continue
            start = arguments.start / f"{shape}-{seed}" if arguments.start else None
            folder = start or start_folder(arguments, shape, seed, live.model, tokenizer)
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).train()
            optimizer = torch.optim.AdamW(model.parameters(), lr=arguments.learning_rate, weight_decay=0.0)
            objective = objective_of(method, teacher, encoders, paired=not one)
            if isinstance(objective, SoftObjective) and isinstance(objective.targets, BytePrefix):
                objective.targets.shared = f"{method.alignment}/{method.prefix_map}"  # type: ignore[attr-defined]
            trainees.append(Trainee(shape, method, model, split_model(model), objective, optimizer))
    if arguments.start:
        for trainee in {trainee.shape: trainee for trainee in trainees}.values():
            scores = held_out_scores(trainee.model, test, encoders.student, "student", compute.autocast)
            emit(
                arguments,
                line_of(scores, seed=seed, student=trainee.shape, method="before", steps=0, tokens=0, seconds=0),
            )
    tokens = train_all(arguments, seed, train, trainees, compute.autocast)
    for trainee in trainees:
        model = trainee.model
        scores = held_out_scores(model, test, encoders.student, "student", compute.autocast)
        facts: dict[str, Any] = {
            "seed": seed, "student": trainee.shape, "method": trainee.method.name, "steps": arguments.steps,
            "tokens": tokens, "seconds": round(trainee.seconds, 1),
        }  # fmt: skip
        if arguments.rescale:
            facts["rescaled"] = rescaled(
                model,
                arguments.rescale,
                lambda model=model: (
                    held_out_scores(model, test, encoders.student, "student", compute.autocast).bits_per_byte
                ),
            )
        emit(arguments, line_of(scores, **facts))
        if arguments.save:
            folder = arguments.save / f"{trainee.shape}-{seed}"
            trainee.model.save_pretrained(folder)  # type: ignore[operator]
            tokenizer.save_pretrained(folder)


def train_all(
    arguments: argparse.Namespace, seed: int, train: list[dict[str, Any]], trainees: list[Trainee], autocast: Any
) -> int:
    marginalisation = SharedMarginalisation()
    collator = DistillationCollator(white_box=True, aligned=not arguments.one_tokenizer)
    lengths = [len(row["student_ids"]) for row in train]
    order = [
        index for epoch in range(arguments.epochs) for index in LengthGroupedSampler(lengths, BATCH, seed + 100 * epoch)
    ]
    tokens = 0
    began = time.monotonic()
    for step in range(min(arguments.steps, math.ceil(len(order) / BATCH))):
        batch = collator([train[index] for index in order[step * BATCH : (step + 1) * BATCH]])
        targets = torch.tensor(batch["host"].targets)
        tokens += int(targets)
        marginalisation.batch.clear()
        for trainee in trainees:
            start = time.monotonic()
            factor = schedule_factor("linear", round(0.05 * arguments.steps), arguments.steps, step)
            for group in trainee.optimizer.param_groups:
                group["lr"] = arguments.learning_rate * factor
            method = trainee.method
            done = step / max(1, arguments.steps - 1)
            alpha, beta = method.course.weights(method.temperature, method.alpha, done)
            with torch.autocast("cpu", dtype=autocast, enabled=autocast is not None):
                parts = trainee.parts
                output = StudentOutput(parts.hidden(batch), parts.head, parts.parameters, parts.columns)
                weights = Weights(alpha, beta, targets, done, compile_kernels=not arguments.no_compile)
                prepared = {**batch, "prepared": trainee.objective.prepare(batch)}
                terms = trainee.objective(output, prepared, weights)
            assert torch.isfinite(terms.loss), (trainee.method.name, step)
            terms.loss.backward()
            nn.utils.clip_grad_norm_(trainee.model.parameters(), 1.0)
            trainee.optimizer.step()
            trainee.optimizer.zero_grad()
            trainee.seconds += time.monotonic() - start
        if step % 10 == 0:
            print(f"seed {seed} step {step} of {arguments.steps}, {time.monotonic() - began:.0f} s", flush=True)
    return tokens


def emit(arguments: argparse.Namespace, line: dict[str, Any]) -> None:
    line = {"experiment": arguments.experiment, **line}
    with arguments.results.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(line, ensure_ascii=False) + "\n")
    print({name: value for name, value in line.items() if name not in ("documents", "nll", "bytes")}, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--texts", type=Path, required=True, help="a text file or a folder of them")
    parser.add_argument("--work", type=Path, required=True, help="models are built here")
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--experiment", default="main", help="a name for the lines of the results file")
    parser.add_argument("--methods", choices=("main", "parts", "ce", "schedules"), default="main")
    parser.add_argument("--only", nargs="*", help="names of methods")
    parser.add_argument("--students", nargs="+", choices=[*STUDENTS, "cut"], default=list(STUDENTS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=1, help="go over the texts so often; steps stay as they are")
    parser.add_argument("--learning-rate", type=float, default=LEARNING_RATE)
    parser.add_argument("--start", type=Path, help="a folder of trained students to begin from")
    parser.add_argument(
        "--one-tokenizer", action="store_true", help="the students have the teacher's tokenizer (`cut` always has)"
    )
    parser.add_argument("--save", type=Path, help="where to keep the students")
    parser.add_argument("--rescale", nargs="+", type=float, help="score with the logits multiplied by these too")
    parser.add_argument("--no-compile", action="store_true")
    arguments = parser.parse_args()
    done: set[Any] = set()
    if arguments.results.exists():
        for text in arguments.results.read_text(encoding="utf-8").splitlines():
            line = json.loads(text)
            if line["experiment"] == arguments.experiment:
                done.add((line["method"], line["student"], line["seed"]))
    methods = {"main": MAIN, "parts": PARTS, "ce": MAIN[:1], "schedules": SCHEDULES}[arguments.methods]
    if arguments.only and (unknown := set(arguments.only) - {method.name for method in methods}):
        parser.error(f"no such methods: {', '.join(sorted(unknown))}")
    for seed in arguments.seeds:
        run_seed(arguments, seed, [one for one in methods if not arguments.only or one.name in arguments.only], done)


if __name__ == "__main__":
    main()

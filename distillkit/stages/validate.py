"""validate: teacher (as it came, and tuned where it was), student before and student after on texts that neither training nor
selection has seen, and the control where there is one.

Writes validation.json and puts the figures into the model card of the student that was measured.
"""

from __future__ import annotations

import gc
import shlex
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from distillkit.alignment.rows import within
from distillkit.alignment.token_bytes import common_ids
from distillkit.console import Console
from distillkit.data.examples import ROW_COLUMNS, load_examples, stored_rows
from distillkit.data.stored_rows import StoredRows
from distillkit.data.text_encoder import TextEncoders
from distillkit.data.training_rows import same_rows
from distillkit.device.memory import free_memory_bytes
from distillkit.device.precision import Compute, choose_compute
from distillkit.errors import PreconditionError
from distillkit.evaluation.agreement import Agreement, PairedText, agreement
from distillkit.evaluation.bits_per_byte import Scores, score
from distillkit.evaluation.bootstrap import Interval, gap_closed, paired_bootstrap, verdict
from distillkit.evaluation.held_out import scored_texts
from distillkit.evaluation.speed import generation_speed, model_size
from distillkit.losses.target_rows import restrict_columns
from distillkit.losses.tempered import temper
from distillkit.models.loading import LocatedModel
from distillkit.reports.teacher_share import share_sentence, teacher_verdict
from distillkit.run.directory import RunDirectory
from distillkit.run.pair import ModelPair, open_pair
from distillkit.settings.conditions import needs_control
from distillkit.settings.parameters import Parameters
from distillkit.stages import StageResult
from distillkit.storage import write_json
from distillkit.teachers.blocks import BlockwiseTeacher
from distillkit.teachers.choices import StreamingChoice, choose_streaming
from distillkit.teachers.loader import teacher_memory
from distillkit.teachers.targets import OwnEnds, prefix_map_of
from distillkit.training.decisions import tunes_teacher
from distillkit.training.export import write_card
from distillkit.training.tuned_teacher import tuned_model


def extra_inputs(config: Parameters, run: RunDirectory) -> dict[str, str]:
    """Inputs besides those of the data: the gate is part of the outcome, and the device and format of the figures."""
    return {"quality_gate": config.quality_gate, "no_cuda": str(config.no_cuda), "precision": config.precision}


def run(config: Parameters, run: RunDirectory, console: Console, *, from_scratch: bool = False) -> StageResult:
    """Score the models, compare them, decide.

    Raises:
        PreconditionError: a model has changed since the data were prepared, or the trained student is damaged; the gate
            compares with a control, and there is none.
        DistillkitError: a score is no number, or a result cannot be written.
        Interrupted: a signal arrived.
    """
    if needs_control(vars(config)) and run.best_control is None:
        make_it = f"distillkit control --run {shlex.quote(str(run.path))}"
        error = PreconditionError(
            f"quality gate {config.quality_gate!r}: this run has no control to compare the student with",
            hint=f"make it: {make_it}",
        )
        error.next_command = make_it
        raise error
    compute = choose_compute(config)
    pair = open_pair(config, run, console)
    test = stored_rows(load_examples(run.data / "test"))
    scores, figures = _measurements(run, pair, test, compute, console)
    validation = {
        **figures,
        **_tuned_teacher(config, run, pair, test, compute, console),
        **_comparison(scores, config.seed),
        "documents": len(np.unique(test.numbers("document"))),
        "examples": len(test),
        "bytes": int(test.numbers("bytes").sum()),
        "student": run.best_student.relative_to(run.path).as_posix(),
    }
    write_json(run.path / "validation.json", validation)
    # The figures are those of the student that was measured; another one's card says nothing of them.
    write_card(run.best_student, pair, config, run, validation)
    teacher_gain = validation.get("teacher_gain")
    gate = _gate_failure(config, validation["verdict"], teacher_gain)
    named = ("verdict", "gap_closed", "gain", "teacher_gain")
    metrics = {**{name: validation[name] for name in named if name in validation}, "gate_failure": gate}
    before, after = (figures[name]["bits_per_byte"] for name in ("before", "after"))
    summary = f"{before:.4f} -> {after:.4f} bits per byte, {validation['verdict']}"
    if teacher_gain is not None:
        summary += f"; {share_sentence(validation['gain'], teacher_gain)}"
    return StageResult([run.path / "validation.json"], metrics, summary, gate_failure=gate)


def _measurements(
    run: RunDirectory, pair: ModelPair, test: StoredRows, compute: Compute, console: Console
) -> tuple[dict[str, Scores], dict[str, dict[str, Any]]]:
    """Scores, and figures for validation.json, of student before, student after and control, and of a teacher that is here."""
    encoders = pair.text_encoders(pair.config)
    scores: dict[str, Scores] = {}
    figures: dict[str, dict[str, Any]] = {}
    trained = {"after": run.best_student}
    if run.best_control is not None:
        trained["control"] = run.best_control
    if pair.teacher.is_served:
        console.info("the teacher is behind a server: it is not measured, only the student is")
    with console.progress("validating", total=4 + len(trained), unit="measurements") as progress:
        teacher, streams = None, False
        if not pair.teacher.is_served:
            streaming = choose_streaming(pair.config, teacher_memory(pair, compute))
            teacher, streams = _teacher(pair, compute, streaming, console, pair.teacher), streaming.on
            scores["teacher"], figures["teacher"] = _measure(teacher, test, encoders, "teacher", compute)
        progress.advance()
        students: dict[str, nn.Module] = {"before": pair.load_student(console)}
        students |= {name: pair.load_trained_student(folder, console) for name, folder in trained.items()}
        for name, student in students.items():
            scores[name], figures[name] = _measure(
                student.to(compute.device).eval(), test, encoders, "student", compute
            )
            progress.advance()
        if teacher is not None:
            for name, with_teacher in _agreement(pair, encoders, teacher, students, test, compute).items():
                figures[name]["teacher_agreement"] = with_teacher.top1
                figures[name]["teacher_kl"] = with_teacher.kl
        progress.advance()
        # The control is as fast as the student after.
        students.pop("control", None)
        for name, model in {**({} if teacher is None else {"teacher": teacher}), **students}.items():
            slow = name == "teacher" and streams
            speed = None if slow else _generation_speed(model, test[0], name, encoders, compute)
            figures[name]["generated_tokens_per_second"] = speed
        progress.advance()
    del teacher, students
    gc.collect()
    return scores, figures


def _tuned_teacher(
    config: Parameters,
    run: RunDirectory,
    pair: ModelPair,
    test: StoredRows,
    compute: Compute,
    console: Console,
) -> dict[str, dict[str, Any]]:
    """What the teacher was worth when it taught, if it was tuned and better for it. Nothing is compared with it: the student is
    to be judged by the teacher that it was named."""
    located = tuned_model(pair, run) if tunes_teacher(config) else None
    if located is None:
        return {}
    with console.progress("validating the tuned teacher", total=1, unit="measurements") as progress:
        model = _teacher(pair, compute, choose_streaming(config, teacher_memory(pair, compute)), console, located)
        _, figures = _measure(model, test, pair.text_encoders(config), "teacher", compute)
        progress.advance()
    return {"tuned_teacher": figures}


def _comparison(scores: dict[str, Scores], seed: int) -> dict[str, Any]:
    """What the student has gained, how much of it is the teacher's, how sure that is, and the verdict."""
    interval = paired_bootstrap(scores["before"], scores["after"], seed=seed)
    gap = ("teacher", "before", "after")
    compared: dict[str, Any] = {
        # Nobody knows how far away a teacher is that was not measured.
        "gap_closed": gap_closed(*(scores[name].bits_per_byte for name in gap)) if "teacher" in scores else None,
        "gain": _gain(interval),
        "verdict": verdict(interval),
    }
    if "control" in scores:
        compared["teacher_gain"] = _gain(paired_bootstrap(scores["control"], scores["after"], seed=seed))
    return compared


def _gain(interval: Interval) -> dict[str, Any]:
    ci95 = None if interval.low is None or interval.high is None else [interval.low, interval.high]
    return {"bits_per_byte": interval.estimate, "ci95": ci95}


def _teacher(
    pair: ModelPair, compute: Compute, streaming: StreamingChoice, console: Console, located: LocatedModel
) -> nn.Module:
    """The teacher, whole in memory or block by block from the disk."""
    if not streaming.on:
        return pair.load_teacher(compute.teacher, console, instead=located).to(compute.device).eval()
    console.info(f"the teacher is read from the disk block by block, for every batch: {streaming.why}")
    return BlockwiseTeacher(located, compute.teacher, compute.device).whole_model()


def _gate_failure(config: Parameters, decision: str, teacher_gain: Mapping[str, Any] | None) -> str | None:
    """Why the student does not pass the quality gate of the configuration; None if it does."""
    if needs_control(vars(config)) and teacher_gain is not None:
        found = teacher_verdict(teacher_gain)
        comparison = "worse than" if found == "harmed" else "not shown to be better than"
        failure = f"quality gate {config.quality_gate!r}: the student is {comparison} its control, trained without the teacher"
        return None if found == "helped" else failure
    if config.quality_gate == "off" or decision == "improved":
        return None
    if decision == "inconclusive" and config.quality_gate == "not-worse":
        return None
    comparison = "worse than" if decision == "worse" else "not shown to be better than"
    return f"quality gate {config.quality_gate!r}: the student is {comparison} before"


def _measure(
    model: nn.Module, examples: StoredRows, encoders: TextEncoders, role: Literal["teacher", "student"],
    compute: Compute,
) -> tuple[Scores, dict[str, Any]]:  # fmt: skip
    """The scores of a model, and its figures for validation.json."""
    encoder = encoders.teacher if role == "teacher" else encoders.student
    # The teacher's weights are already in the format that it computes in.
    autocast = None if role == "teacher" else compute.autocast
    scores = score(model, scored_texts(examples, encoder, role), device=compute.device, autocast_dtype=autocast)
    size = model_size(model)
    return scores, {
        "bits_per_byte": scores.bits_per_byte,
        "perplexity": scores.perplexity,
        "tokens": int(scores.tokens.sum()),
        "parameters": size.parameters,
        "size_bytes": size.bytes,
    }


def _generation_speed(
    model: nn.Module, example: dict[str, Any], name: str, encoders: TextEncoders, compute: Compute
) -> float | None:
    """New tokens per second in the format in which the model would be used here; None where memory forbids it."""
    weight_format = next(model.parameters()).dtype
    if compute.device.type == "cpu" and weight_format != compute.generation:
        if free_memory_bytes(torch.device("cpu")) < 1.5 * 4 * model_size(model).parameters:
            return None
        model.to(compute.generation)
    role, encoder = ("teacher", encoders.teacher) if name == "teacher" else ("student", encoders.student)
    prompt = example[f"{role}_ids"][:16]
    return generation_speed(model, prompt, device=compute.device, context=encoder.context)


def _agreement(
    pair: ModelPair,
    encoders: TextEncoders,
    teacher: nn.Module,
    students: dict[str, nn.Module],
    examples: StoredRows,
    compute: Compute,
) -> dict[str, Agreement]:
    """The students' agreement with the teacher where it is defined: the same tokenizer, or rows that the alignment pairs; {}
    for black box across tokenizers."""
    student_table, teacher_table = encoders.student.table, encoders.teacher.table
    if student_table is None or teacher_table is None:
        return {}
    if pair.same_tokenizer:
        common = torch.from_numpy(common_ids(teacher_table, student_table)).to(compute.device)
        ends = OwnEnds.of(encoders)

        def log_target(teacher_logits: Tensor, columns: int) -> Tensor:
            restricted = restrict_columns(teacher_logits, common, columns)
            if ends is not None and not ends.parse and (theirs := ends.teacher_column(teacher_logits)) is not None:
                restricted = ends.moved(restricted, theirs)
            return temper(restricted, 1.0)
    else:
        prefix_map = prefix_map_of(encoders).to(compute.device)

        def log_target(teacher_logits: Tensor, columns: int) -> Tensor:
            return prefix_map.project(teacher_logits, columns).log_target

    texts = [_paired_text(example, encoders, bool(pair.same_tokenizer)) for example in examples]
    texts = [text for text in texts if len(text.student_rows)]
    if not texts:
        return {}
    return agreement(
        teacher, students, texts, log_target=log_target, device=compute.device, autocast_dtype=compute.autocast
    )


def _paired_text(example: dict[str, Any], encoders: TextEncoders, same_tokenizer: bool) -> PairedText:
    """A test text as both models read it, with the rows at which both predict the same."""
    if same_tokenizer:
        ids = example["student_ids"], example["teacher_ids"]
        students, teachers = same_rows(len(ids[0]), len(ids[1]), encoders.start_shift, example["target_spans"])
        ends = OwnEnds.of(encoders)
        if ends is not None and ends.parse and ends.move is not None and (ids[0][-1], ids[1][-1]) == ends.move[::-1]:
            # Inside these texts the teacher's end token stands for itself, at their end for the student's.
            students, teachers = students[:-1], teachers[:-1]
        return PairedText(*ids, students, teachers)
    # Elsewhere the teacher's distribution over the student's tokens depends on what follows.
    columns = [np.array(example[name], dtype=np.int64) for name in ROW_COLUMNS]
    keep = within(*columns[1:])
    rows = [column[keep].tolist() for column in columns[:2]]
    return PairedText(example["student_ids"], example["teacher_ids"], *rows)

"""validate: teacher (as it came, and tuned where it was), student before and student after on texts that neither training nor
selection has seen, and the control where there is one; of conversations also whether they end their answers; on request the
tasks of lm-evaluation-harness.

Writes validation.json, validation_details.json and validation_scores.json, and puts the figures into the model card of the student
that was measured.
"""

from __future__ import annotations

import gc
import shlex
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from distillkit.console import Console, ProgressHandle
from distillkit.data.examples import load_examples, stored_rows
from distillkit.data.stored_rows import StoredRows
from distillkit.data.text_encoder import TextEncoders
from distillkit.device.memory import free_memory_bytes
from distillkit.device.precision import Compute, choose_compute
from distillkit.errors import PreconditionError
from distillkit.evaluation.bits_per_byte import Scores, score
from distillkit.evaluation.bootstrap import bootstrap
from distillkit.evaluation.comparison import compare
from distillkit.evaluation.details import token_counts, validation_details
from distillkit.evaluation.held_out import scored_texts
from distillkit.evaluation.judgement import gate_failure, interval_ends, judged
from distillkit.evaluation.speed import generation_speed, model_size
from distillkit.evaluation.stopping import ask, held_out_questions, stopping_problem
from distillkit.harness.of_run import evaluate_run
from distillkit.harness.tasks import provide_harness, tasks_fingerprint
from distillkit.models.answering import answer_endings
from distillkit.reports.early_stop import early_remark
from distillkit.reports.teacher_share import share_sentence
from distillkit.run.directory import RunDirectory
from distillkit.run.kept_scores import keep_scores, kept_scores
from distillkit.run.pair import ModelPair, open_pair
from distillkit.settings.conditions import has_several_teachers, needs_control
from distillkit.settings.parameters import Parameters
from distillkit.stages import StageResult
from distillkit.storage import write_json
from distillkit.teachers.choices import choose_streaming
from distillkit.teachers.followed_texts import compared_texts, teacher_log_target
from distillkit.teachers.served_score import served_scores
from distillkit.teachers.several_agreement import several_agreement
from distillkit.teachers.several_scores import several_scores
from distillkit.teachers.spread import teacher_memory
from distillkit.teachers.whole_model import whole_teacher
from distillkit.training.decisions import tunes_teacher
from distillkit.training.export import write_card
from distillkit.training.tuned_teacher import tuned_model


def extra_inputs(config: Parameters, run: RunDirectory) -> dict[str, str]:
    """Inputs besides those of the data: the gate is part of the outcome, and the device and format of the figures."""
    tasks = {} if config.lm_eval is None else {"lm_eval files": tasks_fingerprint(config.lm_eval)}
    return {"quality_gate": config.quality_gate, "no_cuda": str(config.no_cuda), "precision": config.precision, **tasks}


def run(config: Parameters, run: RunDirectory, console: Console, *, from_scratch: bool = False) -> StageResult:
    """Score the models, compare them, decide.

    Raises:
        PreconditionError: a model has changed since the data were prepared, or the trained student is damaged; the gate
            compares with a control, and there is none; lm-evaluation-harness is wanted and missing.
        UsageError: a task of it is unknown.
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
    provide_harness(config, console)
    compute = choose_compute(config)
    pair = open_pair(config, run, console)
    validation = None if from_scratch else kept_scores(config, run, console)
    if validation is None:
        validation = _scored(config, run, pair, compute, console)
    else:
        console.info("the scores of the same models on the same texts are kept")
        write_json(run.path / "validation.json", validation)
    if config.lm_eval is not None:
        # The last thing, on models loaded one at a time: it may take long, or fail, and what is above then stands.
        validation |= evaluate_run(config, run, pair, compute, console, from_scratch=from_scratch)
        write_json(run.path / "validation.json", validation)
    # The figures are those of the student that was measured; another one's card says nothing of them.
    write_card(run.best_student, pair, config, run, validation)
    teacher_gain = validation.get("teacher_gain")
    gate = gate_failure(config, validation["verdict"], teacher_gain)
    named = ("verdict", "gap_closed", "gain", "teacher_gain")
    metrics = {**{name: validation[name] for name in named if name in validation}, "gate_failure": gate}
    before, after = (validation[name]["bits_per_byte"] for name in ("before", "after"))
    named_verdict = console.say(f"verdict.{validation['verdict']}")
    summary = console.say("summary.validate", before=f"{before:.4f}", after=f"{after:.4f}", verdict=named_verdict)
    if teacher_gain is not None:
        summary += f"; {share_sentence(validation['gain'], teacher_gain, console.lang)}"
    trained = run.record("distill")
    if trained is not None:
        summary += early_remark(trained.metrics.get("train", {}), console.lang)
    written = [run.path / "validation.json", run.path / "validation_details.json"]
    return StageResult(written, metrics, summary, gate_failure=gate)


def _scored(
    config: Parameters, run: RunDirectory, pair: ModelPair, compute: Compute, console: Console
) -> dict[str, Any]:
    """Score the models and compare them: validation.json, which is written with its details, without tasks of the harness."""
    test = stored_rows(load_examples(run.data / "test"))
    encoders = pair.text_encoders(pair.config)
    scores, figures = _measurements(run, pair, encoders, test, compute, console)
    several = _several_teachers(config, run, pair, scores, figures, test, compute, console)
    for name, of_model in scores.items():
        figures[name]["bits_per_byte_ci95"] = interval_ends(bootstrap(of_model, seed=config.seed))
    validation = {
        **figures,
        **several,
        **_tuned_teacher(config, run, pair, test, compute, console),
        **judged(scores, config.seed),
        "documents": len({example["document"] for example in test}),
        "examples": len(test),
        "bytes": sum(example["bytes"] for example in test),
        "student": run.best_student.relative_to(run.path).as_posix(),
    }
    write_json(run.path / "validation.json", validation)
    # A column as it lies on the disk: texts one by one would take minutes of a large data set.
    trained_on = load_examples(run.data / "train").data.column("student_ids")
    seen = token_counts(part.flatten().to_numpy() for part in trained_on.chunks)
    details = validation_details(scores, test, seen, encoders)
    write_json(run.path / "validation_details.json", details)
    keep_scores(config, run, validation)
    return validation


def _measurements(
    run: RunDirectory,
    pair: ModelPair,
    encoders: TextEncoders,
    test: StoredRows,
    compute: Compute,
    console: Console,
) -> tuple[dict[str, Scores], dict[str, dict[str, Any]]]:
    """Scores, and figures for validation.json, of student before, student after and control, and of a teacher that is here."""
    trained = {"after": run.best_student}
    if run.best_control is not None:
        trained["control"] = run.best_control
    models: dict[str, nn.Module] = {}
    streams = False
    if not pair.teacher.is_served:
        streaming = choose_streaming(pair.config, teacher_memory(pair, compute))
        models["teacher"], streams = whole_teacher(pair, compute, streaming, console, pair.teacher), streaming.on
    models["before"] = pair.load_student(console)
    models |= {name: pair.load_trained_student(folder, console) for name, folder in trained.items()}
    for name in {"before", *trained}:
        models[name].to(compute.device).eval()
    scores, figures = _scores(pair, encoders, models, test, compute, console)
    if (
        pair.teacher.is_served
        and not pair.teacher.is_imported
        and (served := _served_teacher(pair, encoders, test, console)) is not None
    ):
        scores["teacher"], figures["teacher"] = served, _score_figures(served)
    if streams:
        # It reads all its weights from the disk for every token.
        del models["teacher"]
        figures["teacher"]["generated_tokens_per_second"] = None
    fits = {name: _in_generation_format(model, compute) for name, model in models.items()}
    for name, answers in _answers(pair, encoders, models, test, compute, console).items():
        figures[name]["answers"] = answers
    if streams and pair.conversations is not None:
        console.info("the teacher is read from the disk block by block: it is not asked, only the students are")
    # The control is as fast as the student after.
    models.pop("control", None)
    with console.progress("generating", total=len(models), unit="models") as progress:
        for name in models:
            speed = _generation_speed(models[name], test[0], name, encoders, compute) if fits[name] else None
            figures[name]["generated_tokens_per_second"] = speed
            progress.advance()
    del models
    gc.collect()
    return scores, figures


def _served_teacher(
    pair: ModelPair, encoders: TextEncoders, test: StoredRows, console: Console
) -> Scores | None:  # fmt: skip
    """The score of a teacher behind a server; None where that does not tell."""
    templates = pair.templates(encoders)
    reader = None if templates is None else templates.readers(encoders)[0]
    return served_scores(pair.config, encoders.student, reader, test, console)


def _scores(
    pair: ModelPair,
    encoders: TextEncoders,
    models: dict[str, nn.Module],
    test: StoredRows,
    compute: Compute,
    console: Console,
) -> tuple[dict[str, Scores], dict[str, dict[str, Any]]]:
    """What each model makes of the texts, and how closely the students follow the teacher where that is defined: then in one
    pass."""
    students = {name: model for name, model in models.items() if name != "teacher"}
    teacher, texts, same = models.get("teacher"), None, bool(pair.same_tokenizer)
    if teacher is not None:
        texts = compared_texts(test, encoders, same)
    if teacher is not None and texts is not None:
        with console.progress("validating", total=len(texts), unit="texts") as progress:
            found = compare(
                teacher, students, texts, log_target=teacher_log_target(encoders, compute.device, same),
                device=compute.device, autocast_dtype=compute.autocast, progress=progress,
            )  # fmt: skip
        scores = {"teacher": found.teacher, **found.students}
        figures = {name: _figures(scores[name], model) for name, model in models.items()}
        for name, with_teacher in found.agreement.items():
            figures[name] |= {"teacher_agreement": with_teacher.top1, "teacher_kl": with_teacher.kl}
        return scores, figures
    with console.progress("validating", total=len(models) * len(test), unit="texts") as progress:
        scores = {name: _score(model, test, encoders, name, compute, progress) for name, model in models.items()}
    return scores, {name: _figures(scores[name], model) for name, model in models.items()}


def _answers(
    pair: ModelPair,
    encoders: TextEncoders,
    models: dict[str, nn.Module],
    test: StoredRows,
    compute: Compute,
    console: Console,
) -> dict[str, dict[str, Any]]:
    """How many answers each model ends by itself; {} where the texts are no conversations, or no question fits."""
    templates = pair.templates(encoders)
    if templates is None:
        return {}
    student, teacher = templates.readers(encoders)
    questions = held_out_questions(test, student, teacher, pair.config.max_length)
    if not questions.student:
        return {}
    found: dict[str, dict[str, Any]] = {}
    with console.progress("answering", total=len(models) * len(questions.student), unit="answers") as progress:
        for number, (name, model) in enumerate(models.items(), start=1):
            reader = teacher if name == "teacher" else student
            endings = answer_endings(model, reader)
            # Weights that are not fp32 are in the format that they compute in; a CPU writes faster without autocast.
            in_fp32 = next(model.parameters()).dtype == torch.float32
            answers = ask(
                model, questions.teacher if name == "teacher" else questions.student, endings,
                vocabulary=max(len(reader.encoder.tokenizer), 1 + max(endings, default=0)), limit=questions.limit,
                device=compute.device, progress=progress,
                autocast_dtype=compute.autocast if in_fp32 and compute.device.type != "cpu" else None,
            )  # fmt: skip
            found[name] = answers.record()
            progress.update(completed=number * len(questions.student))
    for name, record in found.items():
        if record["asked"] < len(questions.student):
            console.info(
                f"{name}: {record['asked']} of {len(questions.student)} questions were asked, all would have taken too long"
            )
    if problem := stopping_problem(found.get("teacher"), found.get("after"), console.lang):
        console.warn(problem)
    return found


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
    model = whole_teacher(pair, compute, choose_streaming(config, teacher_memory(pair, compute)), console, located)
    with console.progress("validating the tuned teacher", total=len(test), unit="texts") as progress:
        scores = _score(model, test, pair.text_encoders(config), "teacher", compute, progress)
    return {"tuned_teacher": _figures(scores, model)}


def _student_loaders(
    run: RunDirectory, pair: ModelPair, compute: Compute, console: Console
) -> dict[str, Callable[[], nn.Module]]:
    """How student before, student after and control are loaded, each on the device that computes."""
    trained = {"after": run.best_student, "control": run.best_control}
    return {
        "before": lambda: pair.load_student(console).to(compute.device),
        **{
            name: partial(lambda folder: pair.load_trained_student(folder, console).to(compute.device), folder)
            for name, folder in trained.items()
            if folder is not None
        },
    }


def _several_teachers(
    config: Parameters,
    run: RunDirectory,
    pair: ModelPair,
    scores: dict[str, Scores],
    figures: dict[str, dict[str, Any]],
    test: StoredRows,
    compute: Compute,
    console: Console,
) -> dict[str, Any]:
    """Figures of each of several teachers; {} of one. In `scores` and `figures` the teacher becomes their mixture: that is what the
    student was trained to follow, and how closely it does is measured where all of them fit into memory."""
    if not has_several_teachers(vars(config)):
        return {}
    found = several_scores(config, run, pair, scores["teacher"], test, compute, console)
    if found.left_out:
        console.warn(f"{found.left_out:,} test texts are read by no teacher: the mixture is measured on the others")
    teachers: list[dict[str, Any]] = []
    for (name, weight, of_one), further in zip(found.teachers, [figures["teacher"], *found.further], strict=True):
        ends = interval_ends(bootstrap(of_one, seed=config.seed))
        teachers.append(
            {"name": name, "weight": weight, **further, **_score_figures(of_one), "bits_per_byte_ci95": ends}
        )
    scores["teacher"] = found.mixture
    sizes = {key: sum(one[key] for one in teachers) for key in ("parameters", "size_bytes")}
    figures["teacher"] = {**_score_figures(found.mixture), **sizes, "generated_tokens_per_second": None}
    for of_student in figures.values():
        of_student.pop("teacher_agreement", None)
        of_student.pop("teacher_kl", None)
    students = _student_loaders(run, pair, compute, console)
    together = several_agreement(
        config, run, pair, students, 4 * figures["before"]["parameters"], test, compute, console
    )
    for name, with_teachers in together.items():
        if with_teachers.rows:
            figures[name] |= {"teacher_agreement": with_teachers.top1, "teacher_kl": with_teachers.kl}
    return {"teachers": teachers}


def _score(
    model: nn.Module,
    examples: StoredRows,
    encoders: TextEncoders,
    name: str,
    compute: Compute,
    progress: ProgressHandle,
) -> Scores:
    # The teacher's weights are already in the format that it computes in.
    is_teacher = name == "teacher"
    texts = scored_texts(examples, *((encoders.teacher, "teacher") if is_teacher else (encoders.student, "student")))
    autocast = None if is_teacher else compute.autocast
    return score(model, texts, device=compute.device, autocast_dtype=autocast, progress=progress)


def _figures(scores: Scores, model: nn.Module) -> dict[str, Any]:
    """For validation.json."""
    size = model_size(model)
    return {**_score_figures(scores), "parameters": size.parameters, "size_bytes": size.bytes}


def _score_figures(scores: Scores) -> dict[str, Any]:
    return {
        "bits_per_byte": scores.bits_per_byte,
        "perplexity": scores.perplexity,
        "tokens": int(scores.tokens.sum()),
    }


def _in_generation_format(model: nn.Module, compute: Compute) -> bool:
    """Bring the weights into the format in which the model would be used here; False where memory forbids it."""
    if getattr(model, "is_quantized", False):  # It has the format of its library.
        return True
    if compute.device.type == "cpu" and next(model.parameters()).dtype != compute.generation:
        if free_memory_bytes(torch.device("cpu")) < 1.5 * 4 * model_size(model).parameters:
            return False
        model.to(compute.generation)
    return True


def _generation_speed(
    model: nn.Module, example: dict[str, Any], name: str, encoders: TextEncoders, compute: Compute
) -> float:
    """New tokens per second."""
    role, encoder = ("teacher", encoders.teacher) if name == "teacher" else ("student", encoders.student)
    prompt = example[f"{role}_ids"][:16]
    return generation_speed(model, prompt, device=compute.device, context=encoder.context)

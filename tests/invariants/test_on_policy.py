"""On-policy steps: the loss on what the student wrote against the plain form, what both models read of it, and trainings with
such steps that are interrupted or computed in other micro-batches."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from bare_runs import distill, loss_lines, metric_lines, prepared_run, stop_at, update_of
from conversation_runs import chat_models
from conversation_runs import prepared as prepared_conversations
from plain_objective import combine, same_vocabulary_terms
from safetensors.torch import load_file
from settings_file import settings_file
from tiny_models import (
    save_model_folder,
    tiny_model,
    tiny_sentencepiece_tokenizer,
    tiny_tokenizer,
    write_texts,
)

from distillkit.alignment.rows import LEAD
from distillkit.alignment.token_bytes import common_ids
from distillkit.cli import main as cli
from distillkit.console import Console
from distillkit.data.batching import DistillationCollator
from distillkit.data.examples import ROW_COLUMNS, load_examples
from distillkit.data.sampled_texts import PairedTexts
from distillkit.data.samples import Sample
from distillkit.data.text_encoder import token_tables
from distillkit.losses.chunked import StudentOutput
from distillkit.models.backbone_and_head import split_model
from distillkit.run.context import TrainingContext
from distillkit.run.directory import RunDirectory
from distillkit.settings.parameters import Parameters
from distillkit.stages import distill as distill_stage
from distillkit.storage import files_below
from distillkit.training.inputs import decide, teacher_part
from distillkit.training.objectives import Weights, soft_loss
from distillkit.training.on_policy import OnPolicy

QUIET = Console(quiet=True)
NEW = 12
SETTINGS: dict[str, Any] = {
    "sample_size": 16, "max_length": 48, "held_out_size": 4, "epochs": 2, "batch_size": 4, "checkpoint_interval": 100,
    "learning_rate": 2e-3, "temperature": 2.0,
    "on_policy_fraction": 0.5, "on_policy_max_new_tokens": NEW,
}  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("on_policy")
    tokenizer, other = tiny_tokenizer(384), tiny_tokenizer(300, bos="<s>")
    save_model_folder(folder / "teacher", tiny_model("gpt2", 384, layers=1, hidden=16, seed=1), tokenizer)
    save_model_folder(folder / "other", tiny_model("llama", 300, layers=1, hidden=16, seed=3), other)
    # Dropout draws from the random states of the training, which writing must not touch.
    student = tiny_model("gpt2", 384, layers=1, hidden=16, seed=2, dropout=0.1)
    save_model_folder(folder / "student", student, tokenizer)
    pieces = tiny_sentencepiece_tokenizer(folder / "pieces")
    llama = tiny_model("llama", len(pieces), layers=1, hidden=16, seed=5)
    save_model_folder(folder / "sentencepiece", llama, pieces)
    write_texts(folder / "texts.txt", 60, sentences=2)
    return folder


def prepared(models: Path, name: str, **changes: Any) -> Path:
    """A run that has its data."""
    return prepared_run(models, models / "runs", name, **{**SETTINGS, **changes})


def opened(config: Parameters, run: RunDirectory) -> SimpleNamespace:
    """What a training has: `context`, `rows`, `source`, `own`, the student and the teacher, all in float64."""
    context = TrainingContext.open(config, run, QUIET)
    rows, source = teacher_part(context, decide(context))
    own = OnPolicy.of(context, source, rows)
    assert own is not None
    own.live.teacher.model.double()
    student = context.pair.load_student(QUIET).double().eval()
    return SimpleNamespace(context=context, rows=rows, source=source, own=own, student=student)


def opened_run(path: Path) -> SimpleNamespace:
    run = RunDirectory.open(path)
    return opened(Parameters(**run.manifest.config), run)


def sampled_batch(made: SimpleNamespace, step: int = 1, size: int = 4) -> dict[str, Any]:
    """What the student writes for the first texts."""
    rows = [made.rows[index] for index in range(size)]
    aligned = made.context.pairs_rows
    given = DistillationCollator(white_box=True, aligned=aligned)(rows)
    return made.own.batches(step, [given], made.student)[0]


# --- the loss ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("divergence", ["forward-kl", "reverse-kl", "jsd"])
def test_the_loss_and_its_gradient_are_those_of_the_plain_form(models: Path, divergence: str) -> None:
    made = opened_run(prepared(models, f"loss-{divergence}", divergence=divergence))
    batch, student = sampled_batch(made), made.student
    targets = batch["host"].targets
    assert batch["host"].sampled
    assert 0 < targets == int((batch["labels"] != -100).sum())

    parts = split_model(student)
    output = StudentOutput(parts.hidden(batch), parts.head, parts.parameters, parts.columns)
    terms = made.own.objective(output, batch, Weights(1.0, 0.0, torch.tensor(targets)))
    terms.loss.backward()
    found = torch.cat([weights.grad.flatten() for weights in student.parameters()])
    student.zero_grad()

    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    logits = student(**inputs).logits
    with torch.no_grad():
        teachers = made.own.live.teacher.model(**inputs).logits
    common = torch.from_numpy(common_ids(*token_tables(made.context.encoders)))
    plain = same_vocabulary_terms(logits, batch["labels"], teachers, common, soft=soft_loss(made.context.config))
    wanted = combine(plain, 1.0, 0.0, targets)
    wanted.backward()
    expected = torch.cat([weights.grad.flatten() for weights in student.parameters()])
    torch.testing.assert_close(terms.loss.double(), wanted, rtol=1e-9, atol=0)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-12)


# --- what both models read --------------------------------------------------------------------------------------------


def check_rows(made: SimpleNamespace, sample: Sample, row: dict[str, Any]) -> None:
    """The student's tokens are those that it wrote, the targets as well; and at every aligned row both stand at one byte."""
    begin = len(sample.prompt)
    ids, ending = row["student_ids"], made.own.reader.end
    assert tuple(ids[:begin]) == sample.prompt
    if not row["target_spans"]:
        return
    ((first, last),) = row["target_spans"]
    assert (first, last) == (begin, len(ids))
    written = ids[begin:-1] if ids[-1] == ending else ids[begin:]
    assert tuple(written) == sample.written[: len(written)]
    assert sample.ended or ids[-1] != ending
    if not made.context.pairs_rows:
        return
    teacher, student = token_tables(made.context.encoders)
    columns = [np.array(row[name]) for name in ROW_COLUMNS]
    assert len(columns[0]) > 0
    ours = [student.pieces[index] or b"" for index in ids]
    theirs = [teacher.pieces[index] or b"" for index in row["teacher_ids"]]
    for student_row, teacher_row, skip, end_row, end_skip in zip(*columns, strict=True):
        assert begin <= student_row + 1 < len(ids)
        if ids[student_row + 1] == ending:
            assert row["teacher_ids"][teacher_row + 1] in (teacher.eos_id, made.context.encoders.teacher.end_of_turn)
            continue
        # What is behind in the answer, or of the text, on either side: from a place that both have met.
        spelled = ours[student_row + 1]
        inside = theirs[teacher_row + 1 : end_row + 2]
        assert skip != LEAD
        assert b"".join(inside)[skip : skip + len(spelled)] == spelled
        assert (end_row, end_skip) >= (teacher_row, 0)


def samples(made: SimpleNamespace, step: int = 1, size: int = 6) -> list[Sample]:
    return made.own._written(step, [list(range(size))], made.student)


def true_sample(made: SimpleNamespace, text: int) -> Sample:
    """As if the student had written what stands in the data set, and ended it where that ends."""
    reader, row = made.own.reader, made.rows[text]
    prompt, ids = reader.prompt(text, random.Random(text)), row["student_ids"]
    ended = ids[-1] == reader.end
    assert tuple(ids[: len(prompt)]) == prompt
    return Sample(text, prompt, tuple(ids[len(prompt) : len(ids) - ended]), ended)


def check_true_row(made: SimpleNamespace, text: int) -> None:
    """Whoever writes what stands in the data set gets the rows of the data set, those of the beginning left out."""
    sample, given = true_sample(made, text), made.rows[text]
    row, begin = made.own.reader.row(sample), len(sample.prompt)
    assert row["student_ids"] == given["student_ids"]
    assert row["teacher_ids"] == given["teacher_ids"]
    assert row["target_spans"] == [(begin, len(given["student_ids"]))]
    kept = [place for place, found in enumerate(given["student_rows"]) if found + 1 >= begin]
    if made.context.pairs_rows:
        assert len(kept) > 2
        for name in ROW_COLUMNS:
            assert row[name] == [given[name][place] for place in kept]


@pytest.mark.parametrize("student", ["student", "sentencepiece"])
def test_texts_across_tokenizers(models: Path, student: str) -> None:
    changes = {"student_model_path": models / student, "teacher_model_path": models / "other", "max_length": 160}
    made = opened_run(prepared(models, f"across-{student}", **changes))
    texts = [item["text"] for item in load_examples(made.context.run.data / "train")]
    teacher, own = token_tables(made.context.encoders)
    found = samples(made)
    read = 0
    for sample in found:
        row = made.own.reader.row(sample)
        check_rows(made, sample, row)
        if not row["target_spans"]:
            continue
        read += 1
        ours = b"".join(own.pieces[index] or b"" for index in row["student_ids"])
        theirs = b"".join(teacher.pieces[index] or b"" for index in row["teacher_ids"])
        # SentencePiece begins with a space that is not in the text.
        assert ours == b" " * own.leading_space + theirs
        start = b"".join(own.pieces[index] or b"" for index in sample.prompt)[own.leading_space :]
        assert start
        assert texts[sample.text].encode().startswith(start)
    assert read
    for text in range(8):
        check_true_row(made, text)
    assert {true_sample(made, text).ended for text in range(8)} == {False, True}
    # Bytes that are no characters are cut off, with what follows; where nothing else is left, nothing is taught.
    whole, piece = true_sample(made, 0), own.ids_by_bytes[b"\xc3"]
    cut = made.own.reader.row(replace(whole, written=(*whole.written[:2], piece, *whole.written[2:])))
    assert cut["student_ids"] == [*whole.prompt, *whole.written[:2]]
    nothing = made.own.reader.row(replace(whole, written=(piece,)))
    assert nothing["target_spans"] == []
    assert nothing["student_rows"] == []


def test_a_text_that_is_too_long_for_the_teacher_is_cut(models: Path) -> None:
    made = opened_run(prepared(models, "short", teacher_model_path=models / "other"))
    sample, reader = true_sample(made, 0), made.own.reader
    full = reader.row(sample)
    reader.teacher = replace(reader.teacher, limit=len(full["teacher_ids"]) - 7)
    row = reader.row(sample)
    assert len(row["teacher_ids"]) <= reader.teacher.limit + 1
    assert row["student_ids"] == full["student_ids"][: len(row["student_ids"])]
    assert len(sample.prompt) < len(row["student_ids"]) < len(full["student_ids"]) - 1
    check_rows(made, sample, row)


@pytest.mark.parametrize("student", ["same", "llama3", "base"])
def test_conversations(tmp_path: Path, student: str) -> None:
    settings = {"on_policy_fraction": 0.5, "on_policy_max_new_tokens": NEW, "skip_validation": True}
    run = prepared_conversations(tmp_path, chat_models(tmp_path / "models"), student, **settings)
    made = opened(run.config, run.run)
    reader = made.context.pair.templates(made.context.encoders).readers(made.context.encoders)[0]
    for sample in samples(made):
        assert list(sample.prompt) == reader.prompt_ids(made.own.reader.asked(sample.text))
        check_rows(made, sample, made.own.reader.row(sample))
    for text in range(4):
        check_true_answer(made, text)
    figures = metrics_of(run)["on_policy"]
    assert figures["steps"] == 1
    assert figures["sampled_tokens"] > 0


def check_true_answer(made: SimpleNamespace, text: int) -> None:
    """As `check_true_row`; some templates write more behind the end of turn, which nobody answers."""
    reader, given = made.own.reader, made.rows[text]
    prompt, (begin, end) = reader.prompt(text, random.Random(0)), given["target_spans"][-1]
    assert prompt == tuple(given["student_ids"][:begin])
    assert given["student_ids"][end - 1] == reader.end
    row = reader.row(Sample(text, prompt, tuple(given["student_ids"][begin : end - 1]), True))
    assert row["student_ids"] == given["student_ids"][:end]
    assert row["target_spans"] == [(begin, end)]
    assert row["teacher_ids"] == given["teacher_ids"][: len(row["teacher_ids"])]
    if made.context.pairs_rows:
        kept = [place for place, found in enumerate(given["student_rows"]) if found + 1 >= begin]
        assert len(kept) > 2
        for name in ROW_COLUMNS:
            assert row[name] == [given[name][place] for place in kept]


def metrics_of(made: SimpleNamespace) -> dict[str, Any]:
    distill_stage.run(made.config, made.run, QUIET)
    return json.loads((made.run.path / "metrics.json").read_text())


# --- trainings --------------------------------------------------------------------------------------------------------


def own_figures(run: Path) -> dict[str, Any]:
    found = json.loads((run / "metrics.json").read_text(encoding="utf-8"))["on_policy"]
    return {name: value for name, value in found.items() if not name.endswith(("seconds", "per_second"))}


@pytest.fixture(scope="module")
def replayed(models: Path) -> Path:
    """Across tokenizers, from a cache, with a replay buffer: prepared."""
    return prepared(
        models, "replayed", teacher_model_path=models / "other", teacher_cache="exact", on_policy_fraction=0.75,
        replay_buffer=9,
    )  # fmt: skip


def test_an_interrupted_training_with_a_replay_buffer(replayed: Path) -> None:
    """Stopped at on-policy steps, before and after the buffer is used; it and the counts go on."""
    reference, run = (Path(shutil.copytree(replayed, replayed.parent / name)) for name in ("left alone", "stopped"))
    assert distill(reference) == 0
    for step in (3, 6):
        assert stop_at(run, step) == 143
    assert distill(run) == 0
    assert metric_lines(run) == metric_lines(reference)
    assert own_figures(run) == own_figures(reference)
    figures = own_figures(reference)
    # What taught nothing is not kept, so the buffer may fill later.
    assert figures["steps"] == 6
    assert 1 <= figures["replayed_steps"] <= 3
    assert figures["texts"] == 4 * (6 - figures["replayed_steps"])
    names = [path.relative_to(run) for path in files_below(run / "student") if path.name != "README.md"]
    assert [name for name in names if (run / name).read_bytes() != (reference / name).read_bytes()] == []
    on_policy = [line["step"] for line in metric_lines(reference) if "on_policy_loss" in line]
    assert on_policy == [2, 3, 4, 6, 7, 8]
    for line in metric_lines(reference):
        if "loss" in line:
            assert ("hard_loss" in line) is ("soft_loss" in line) is (line["step"] not in on_policy)
            assert line["step"] not in on_policy or line["loss"] == pytest.approx(line["on_policy_loss"], rel=1e-6)


@pytest.mark.parametrize("kind", ["one tokenizer", "two tokenizers"])
def test_the_split_of_a_step_changes_nothing(models: Path, kind: str) -> None:
    changes: dict[str, Any] = {"temperature": 1.0, "replay_buffer": 8}
    if kind == "two tokenizers":
        changes["teacher_model_path"] = models / "other"
    plain = save_model_folder(
        models / "undisturbed", tiny_model("gpt2", 384, layers=1, hidden=16, seed=2), tiny_tokenizer(384)
    )
    data = prepared(models, f"split-{kind}", student_model_path=plain, **changes)
    updates, counted = [], []
    for batch, accumulation in ((4, 1), (2, 2)):
        run = Path(shutil.copytree(data, data.parent / f"{kind}-{batch}"))
        assert distill(run, "--batch-size", str(batch), "--gradient-accumulation", str(accumulation)) == 0
        updates.append(update_of(run, plain))
        figures = {name: value for name, value in own_figures(run).items() if name != "mass_mapped"}
        counted.append((figures, [line["tokens"] for line in loss_lines(run)]))
    assert counted[0] == counted[1]
    assert float((updates[1] - updates[0]).norm() / updates[0].norm()) < 1e-4


def test_the_student_is_the_one_of_before_the_step(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loaders fetch ahead; what is written must not come from an earlier student. Its modes and the random states of the
    training are left alone."""
    seen: list[tuple[int, float]] = []
    batches = OnPolicy.batches

    def noted(self: OnPolicy, step: int, given: Any, student: Any) -> Any:
        state = torch.random.get_rng_state()
        weights = float(sum(value.detach().double().abs().sum() for value in student.parameters()))
        seen.append((step, weights))
        assert student.training
        made = batches(self, step, given, student)
        assert student.training
        assert torch.equal(state, torch.random.get_rng_state())
        return made

    monkeypatch.setattr(OnPolicy, "batches", noted)
    run = prepared(models, "fresh", checkpoint_interval=2)
    assert distill(run) == 0
    assert [step for step, _ in seen] == [1, 3, 5, 7]
    assert len({weights for _, weights in seen}) == 4


def test_every_step_on_policy_needs_no_cache(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = prepared(models, "all", on_policy_fraction=1.0, epochs=1)
    assert distill(run) == 0
    figures = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    assert figures["decisions"]["teacher_cache"] == "off"
    assert figures["teacher_pass"]["tokens"] == 0 < figures["on_policy"]["teacher_tokens"]
    assert figures["on_policy"]["share"] == 1
    assert all("on_policy_loss" in line for line in loss_lines(run))


@pytest.mark.parametrize("alignment", ["auto", "alm"])
def test_a_step_that_teaches_nothing(models: Path, monkeypatch: pytest.MonkeyPatch, alignment: str) -> None:
    """Where the teacher cannot read any of the texts there is no target, and no step away from the student."""
    run = prepared(
        models, f"nothing-{alignment}", teacher_model_path=models / "other", on_policy_fraction=1.0, epochs=1
    )
    monkeypatch.setattr(PairedTexts, "read", lambda self, sample: None)
    settings = settings_file(models, alignment=alignment, replay_buffer=4)
    assert distill(run, "--config", str(settings)) == 0
    figures = own_figures(run)
    assert (figures["unread"], figures["texts"], figures["replayed_steps"]) == (16, 16, 0)
    assert [line["on_policy_loss"] for line in loss_lines(run)] == [0, 0, 0, 0]
    before, after = (load_file(at / "model.safetensors") for at in (models / "student", run / "student" / "final"))
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_several_processes_are_refused(
    models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = prepared(models, "two")
    monkeypatch.setattr("distillkit.processes.taking_part.process_count", lambda: 2)
    assert cli.main(["distill", "--run", str(run), "--quiet"]) == 2
    assert "--on-policy-fraction and 2 processes exclude each other" in capsys.readouterr().err

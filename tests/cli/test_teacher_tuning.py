"""`--tune-teacher`: what the teacher learns, what it never reads, and how runs share or do not share what came of it."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from distillkit import PreconditionError
from distillkit.data.examples import load_examples
from distillkit.errors import DistillkitError
from distillkit.training import teacher_tuning

Distil = Callable[..., Any]
TUNED = {"tune_teacher": 6, "teacher_cache": "off"}


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def tuned_weights(result: Any) -> dict[str, torch.Tensor]:
    return load_file(result.run_directory / "teacher" / "tuned" / "model.safetensors")


def student_bytes(result: Any) -> bytes:
    return (result.run_directory / "student" / "final" / "model.safetensors").read_bytes()


def caches(result: Any) -> dict[str, str]:
    """Fingerprint of the teacher to its name, of every teacher cache beside a run."""
    found = (result.run_directory.parent / ".teacher-cache").glob("*/meta.json")
    return {meta["fingerprint"]: meta["teacher"] for meta in map(read, found) if meta["kind"] == "exact"}


# --- what is learned -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tokenizer", ["same", "foreign"])
def test_two_steps_are_those_of_adamw_on_what_the_teacher_reads(
    distil: Distil, pair: SimpleNamespace, tokenizer: str
) -> None:
    """Against a loop in float64 that knows nothing of batches, chunks or the Trainer: every step reads all texts."""
    from transformers import AutoModelForCausalLM

    student = pair.student if tokenizer == "same" else pair.foreign_student
    result = distil(tune_teacher=2, teacher_cache="off", batch_size=16, student_model_path=student)
    model: Any = AutoModelForCausalLM.from_pretrained(pair.teacher, dtype=torch.float64)
    texts = load_examples(result.run_directory / "data" / "train")["teacher_ids"]
    model.eval()  # As it has no dropout.
    first_moment, second_moment, smallest = {}, {}, {}
    for step, rate in ((1, teacher_tuning.LEARNING_RATE), (2, teacher_tuning.LEARNING_RATE / 2)):
        model.zero_grad()
        # An end-of-text token stands in front of every text: all tokens but it are predicted.
        targets = sum(len(ids) - 1 for ids in texts)
        for ids in texts:
            logits = model(input_ids=torch.tensor([ids])).logits[0]
            (functional.cross_entropy(logits[:-1], torch.tensor(ids[1:]), reduction="sum") / targets).backward()
        norm = torch.sqrt(sum((weights.grad**2).sum() for weights in model.parameters()))
        for name, weights in model.named_parameters():
            gradient = weights.grad / max(1.0, float(norm))
            smallest[name] = torch.minimum(gradient.abs(), smallest.get(name, gradient.abs()))
            first_moment[name] = 0.9 * first_moment.get(name, 0) + 0.1 * gradient
            second_moment[name] = 0.999 * second_moment.get(name, 0) + 0.001 * gradient**2
            mean, spread = first_moment[name] / (1 - 0.9**step), second_moment[name] / (1 - 0.999**step)
            with torch.no_grad():
                weights -= rate * mean / (spread.sqrt() + 1e-8)
    found = tuned_weights(result)
    start: Any = AutoModelForCausalLM.from_pretrained(pair.teacher, dtype=torch.float64)
    before = dict(start.named_parameters())
    for name, weights in model.named_parameters():
        moved, expected = (one.detach() - before[name].detach() for one in (found[name].double(), weights))
        # A gradient next to 0 may have either sign in fp32; weights of 1 are rounded to a thousandth of such steps.
        clear = is_clear(smallest[name])
        assert float((moved - expected).abs()[clear].max()) < 0.02 * teacher_tuning.LEARNING_RATE, name
        assert float(expected.abs()[clear].max()) > 0.5 * teacher_tuning.LEARNING_RATE, name


def is_clear(smallest: torch.Tensor) -> torch.Tensor:
    """Where the gradient was no rounding error in any step: the first step goes by its sign alone."""
    return smallest > 1e-2 * smallest.max()


@pytest.mark.parametrize("changes", [{"epochs": 2, "teacher_cache": "exact"}, {"epochs": 2, "teacher_cache": "sparse"},
                                     {"teacher_precision": "int8"}], ids=str)  # fmt: skip
def test_every_way_of_having_the_teacher(
    distil: Distil, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    """In each of them it is the tuned teacher that teaches, and not the one that it was."""
    monkeypatch.setattr(teacher_tuning, "LEARNING_RATE", 1e-2)  # Much, for a tiny model of large weights.

    def soft(**settings: Any) -> float:
        result = distil(**settings)
        lines = (result.run_directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return float(next(line["soft_loss"] for line in map(json.loads, lines) if "soft_loss" in line))

    plain, tuned = soft(**{"teacher_cache": "off", **changes}), soft(**{**TUNED, **changes})
    assert tuned != pytest.approx(plain, rel=1e-4)  # Of sparse targets the loss is mostly their entropy.
    if changes.get("teacher_cache") == "exact":
        assert tuned == pytest.approx(soft(**TUNED), rel=1e-5)


def test_no_held_out_text_is_trained_on_and_no_test_text_is_read(
    distil: Distil, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    opened: list[str] = []
    load, rows = datasets.load_from_disk, []
    monkeypatch.setattr(datasets, "load_from_disk", lambda path: opened.append(Path(path).name) or load(path))
    kept = teacher_tuning.TrainingRows

    def noted(given: Any) -> Any:
        rows.extend(given)
        return kept(given)

    monkeypatch.setattr(teacher_tuning, "TrainingRows", noted)
    result = distil(**TUNED)
    assert set(opened) == {"train", "validation"}
    data = result.run_directory / "data"
    assert [row["student_ids"] for row in rows] == load(str(data / "train"))["teacher_ids"]


def test_a_teacher_that_gets_worse_teaches_as_it_came(
    distil: Distil, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(teacher_tuning, "LEARNING_RATE", 3.0)
    plain = distil(teacher_cache="off")
    capsys.readouterr()
    tuned = distil(**TUNED, quiet=False, skip_validation=False)
    said = " ".join(capsys.readouterr().err.split())
    assert "tuning did not make the teacher better" in said
    assert "the teacher gets worse" in said
    figures = tuned.metrics["teacher_tuning"]
    assert figures["best_step"] == 0
    assert figures["after"] > figures["before"]
    assert not (tuned.run_directory / "teacher" / "tuned").exists()
    assert tuned.tuned_teacher is None
    assert student_bytes(tuned) == student_bytes(plain)


# --- what is kept ----------------------------------------------------------------------------------------------------


def test_caches_of_the_plain_and_the_tuned_teacher_are_apart(distil: Distil, tmp_path: Path) -> None:
    where = {"output_dir": tmp_path, "teacher_cache": "exact", "epochs": 2}
    plain = distil(**where)
    tuned = distil(**where, tune_teacher=6)
    more = distil(**where, tune_teacher=7)
    again = distil(**where, tune_teacher=6, learning_rate=2e-3)
    passes = [run.metrics["teacher_pass"]["cached_tokens"] > 0 for run in (plain, tuned, more, again)]
    # The same steps on the same texts give the same teacher, to the last bit: its cache is that of the other run.
    assert passes == [False, False, False, True]
    names = caches(plain)
    assert len(names) == 3
    assert sorted(name.endswith(" (tuned)") for name in names.values()) == [False, True, True]
    assert torch.equal(tuned_weights(tuned)["transformer.wte.weight"], tuned_weights(again)["transformer.wte.weight"])
    record = read(tuned.run_directory / "teacher" / "tuned.json")
    assert record["fingerprint"] in names
    assert {file["path"].partition("/")[0] for file in record["files"]} == {"tuned"}
    recorded = {file["path"] for file in read(tuned.run_directory / "manifest.json")["stages"]["distill"]["outputs"]}
    assert {"teacher/tuned/model.safetensors", "teacher/tuned/config.json", "teacher/tuned.json"} <= recorded
    assert not (tuned.run_directory / "teacher" / "checkpoints").exists()


def test_a_new_start_uses_the_same_tuning_and_no_other(
    distil: Distil, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where: dict[str, Any] = {"output_dir": tmp_path, "folder_name": "run", "teacher_cache": "off", "quiet": False}
    weights = tmp_path / "run" / "teacher" / "tuned" / "model.safetensors"

    def start(**settings: Any) -> tuple[Any, bool]:
        capsys.readouterr()
        result = distil(**where, **settings)
        return result, "the teacher was tuned before" in " ".join(capsys.readouterr().err.split())

    assert start(tune_teacher=6)[1] is False
    written = weights.stat().st_mtime_ns
    # Another student of the same teacher.
    assert start(tune_teacher=6, learning_rate=2e-3, force=True)[1] is True
    assert weights.stat().st_mtime_ns == written
    # More epochs for it.
    assert start(tune_teacher=6, learning_rate=2e-3, epochs=2)[1] is True
    with pytest.raises(PreconditionError, match=r"another configuration \(tune_teacher: 6 -> 5"):
        start(tune_teacher=5, learning_rate=2e-3, epochs=2)
    for changes in (
        {"tune_teacher": 5},
        {"tune_teacher": 6, "seed": 3},
        {"tune_teacher": 6, "seed": 3, "batch_size": 8},
    ):
        result, reused = start(**changes, force=True)
        assert reused is False
        assert result.metrics["teacher_tuning"]["steps"] == changes["tune_teacher"]
    # A teacher that is not tuned leaves nothing behind.
    start(tune_teacher=0, force=True)
    assert not weights.exists()


def test_a_damaged_tuned_teacher_is_refused(distil: Distil, tmp_path: Path) -> None:
    where: dict[str, Any] = {"output_dir": tmp_path, "folder_name": "run", **TUNED}
    whole = student_bytes(distil(**where))
    path = tmp_path / "run" / "teacher" / "tuned" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(PreconditionError, match=r"model\.safetensors has changed"):
        distil(**where)
    manifest = tmp_path / "run" / "manifest.json"
    assert read(manifest)["stages"]["distill"]["status"] == "complete"
    # The same where the training is to go on.
    with pytest.raises(PreconditionError, match=r"teacher/tuned is damaged: tuned/model\.safetensors has changed"):
        distil(**where, epochs=2)
    assert student_bytes(distil(**where, force=True)) == whole


def test_the_teacher_is_gone_before_the_student_is_loaded(distil: Distil, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import GPT2LMHeadModel

    from distillkit.run.pair import ModelPair

    alive: list[int] = []
    load = ModelPair.load_student

    def noted(self: ModelPair, console: Any) -> Any:
        alive.append(sum(type(one) is GPT2LMHeadModel and one.config.n_embd == 32 for one in gc.get_objects()))
        return load(self, console)

    monkeypatch.setattr(ModelPair, "load_student", noted)
    gc.collect()
    distil(teacher_cache="exact", tune_teacher=3, epochs=2)
    assert alive == [0]


def test_a_cut_student_starts_from_the_teacher_as_it_came(distil: Distil, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teacher_tuning, "LEARNING_RATE", 1e-2)
    figures = {"student_model": "teacher:1", "skip_validation": False}
    plain, tuned = distil(**figures, teacher_cache="off"), distil(**figures, **TUNED)
    assert tuned.before["bits_per_byte"] == plain.before["bits_per_byte"]
    assert tuned.teacher["bits_per_byte"] == plain.teacher["bits_per_byte"]
    # The gap is that to the teacher as it came; the tuned one is shown beside it.
    closed = (tuned.before["bits_per_byte"] - tuned.after["bits_per_byte"]) / (
        tuned.before["bits_per_byte"] - tuned.teacher["bits_per_byte"]
    )
    assert tuned.gap_closed is None or tuned.gap_closed == pytest.approx(closed)
    card = (tuned.student_path / "README.md").read_text(encoding="utf-8")
    assert "Teacher tuned first on the training texts: `6 steps`" in card
    assert f"| teacher as it taught, tuned | {tuned.tuned_teacher['bits_per_byte']:.4f} |" in card


# --- what is refused -------------------------------------------------------------------------------------------------


def test_a_teacher_that_does_not_fit_is_refused_before_anything_is_tuned(
    distil: Distil, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distillkit.teachers.spread.free_memory_bytes", lambda device: 300_000)
    with pytest.raises(PreconditionError, match=r"does not fit into memory to be tuned: .* are needed"):
        distil(**TUNED, output_dir=tmp_path, folder_name="run")
    assert not (tmp_path / "run" / "teacher").exists()
    distil(teacher_cache="off")  # As it came, it fits.


def test_a_disk_too_small_for_the_tuning_is_said_at_once(
    distil: Distil, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distillkit.training import inputs

    distil(teacher_cache="off", output_dir=tmp_path, folder_name="plain")
    monkeypatch.setattr(inputs, "free_disk_bytes", lambda path: 700_000)
    distil(teacher_cache="off")
    with pytest.raises(DistillkitError, match="of disk are needed to tune the teacher"):
        distil(**TUNED, output_dir=tmp_path, folder_name="tuned")
    assert not (tmp_path / "tuned" / "teacher").exists()


@pytest.mark.skipif(os.name == "nt", reason="a program of its own")
def test_the_plan_counts_the_tuning(
    pair: SimpleNamespace, small: dict[str, Any], tmp_path: Path, distil: Distil
) -> None:
    from distillkit.dry_run.plan import estimate_run
    from distillkit.settings.resolve import resolve

    def plan(**settings: Any) -> dict[str, Any]:
        values = {
            "teacher_model_path": str(pair.teacher), "student_model_path": str(pair.student),
            "dataset_path": str(pair.texts), "output_dir": str(tmp_path), "folder_name": "run", **small, **settings,
        }  # fmt: skip
        return estimate_run(resolve(values).parameters, tmp_path / "run", ["distill"])

    plain, tuned = plan(), plan(tune_teacher=300)
    assert "teacher tuning" not in plain["phases"]
    assert tuned["phases"]["teacher tuning"] > plan(tune_teacher=30)["phases"]["teacher tuning"] > 0
    parameters = plain["teacher_parameters"]
    # Three checkpoints of three copies each and two of the teacher, all in fp32.
    assert tuned["disk_bytes"] == max(44 * parameters, plain["disk_bytes"] + 4 * parameters)
    # A step of one text: the more there are, the more the student's own step takes, with both vocabularies beside it.
    assert plan(tune_teacher=300, batch_size=1)["memory_bytes"] > plan(batch_size=1)["memory_bytes"]
    # What is done is not counted again.
    distil(output_dir=tmp_path, folder_name="run", tune_teacher=3)
    done = plan(tune_teacher=3)
    assert "teacher tuning" not in done["phases"]
    assert done["disk_bytes"] == plain["disk_bytes"]

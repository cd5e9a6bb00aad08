"""Bytes that have changed on the disk: noticed wherever they are, never learnt from, never shown as a result.

Files that are read as a whole are damaged at every kind of place: the first byte, the last, the ends of their parts, random
ones; cut off, made longer, emptied. What is small is damaged at every byte.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import random
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_models import save_model_folder, teacher_of_letters, tiny_model, tiny_tokenizer, write_texts

from distillkit.cli import main as cli
from distillkit.errors import PreconditionError
from distillkit.run.directory import RunDirectory
from distillkit.run.manifest import load_manifest
from distillkit.storage import files_below
from distillkit.teachers import exact_cache as teacher_cache
from distillkit.teachers import generated_file, precompute, shards, sparse_cache
from distillkit.training import checkpoints
from distillkit.training.trainer import DistillTrainer

# More by hand: DAMAGES=5000 in the environment.
DAMAGES = int(os.environ.get("DAMAGES", "12"))


# --- damage ----------------------------------------------------------------------------------------------------------


def damages(content: bytes, seed: int, count: int = DAMAGES) -> Iterator[tuple[str, bytes]]:
    """(what was done, the damaged content), each of them other than `content`."""
    chooser = random.Random(seed)
    size = len(content)
    for words, changed in (
        ("emptied", b""), ("cut in half", content[: size // 2]), ("last byte lost", content[:-1]), ("first byte lost", content[1:]),
        ("a byte more", content + b"\0"), ("a line more", content + b"\n"), ("twice", content * 2), ("zeros", bytes(size)),
        ("a block of zeros", content[: size // 3] + bytes(min(64, size - size // 3)) + content[size // 3 + min(64, size - size // 3) :]),
    ):  # fmt: skip
        if changed != content:
            yield words, changed
    places = [0, 1, 7, 8, size - 1, size - 2, *(chooser.randrange(size) for _ in range(count))]
    for place in places:
        bit = 1 << chooser.randrange(8)
        yield f"bit {bit} of byte {place}", flipped(content, place % size, bit)


def says_the_same(sound: bytes, damaged: bytes) -> bool:
    """Damage to white space in JSON changes nothing."""
    try:
        return json.loads(damaged) == json.loads(sound)
    except (ValueError, RecursionError):
        return False


def flipped(content: bytes, place: int, bit: int = 1) -> bytes:
    return content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :]


def every_byte(content: bytes, most: int, seed: int = 0) -> Iterator[bytes]:
    """A bit turned in each byte; in `most` random ones where there are more."""
    chooser = random.Random(seed)
    most = max(most, DAMAGES)
    places = range(len(content)) if len(content) <= most else sorted(chooser.sample(range(len(content)), most))
    for place in places:
        yield flipped(content, place, 1 << chooser.randrange(7))


# --- runs ------------------------------------------------------------------------------------------------------------

SWITCHES = ("--no-control", "--no-cuda", "--no-save-plot", "--no-install-deps", "--allow-out-of-range", "--quiet")
VALUES = {
    "sample_size": 12, "max_length": 40, "held_out_size": 4, "batch_size": 2, "epochs": 1, "checkpoint_interval": 2,
    "learning_rate": 2e-3, "precision": "fp32",
}  # fmt: skip


def call(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


def stop_at(step: int, *arguments: object) -> int:
    """`call`, with SIGTERM arriving in the loss of a step."""
    compute_loss = DistillTrainer.compute_loss

    @functools.wraps(compute_loss)
    def compute(self: DistillTrainer, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step == step - 1:
            signal.raise_signal(signal.SIGTERM)
        return compute_loss(self, *args, **kwargs)

    DistillTrainer.compute_loss = compute
    try:
        return call(*arguments)
    finally:
        DistillTrainer.compute_loss = compute_loss


class Runs:
    """A finished run and one stopped at step 5, of each kind; tests damage copies."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._made: dict[str, Path] = {}
        tokenizer = tiny_tokenizer(384)
        teacher = teacher_of_letters(tokenizer)
        save_model_folder(root / "teacher", teacher, tokenizer)
        student = tiny_model("gpt2", 384, layers=1, hidden=16, seed=2, dropout=0.1)
        save_model_folder(root / "student", student, tokenizer)
        write_texts(root / "texts.txt", 60, sentences=2)

    def options(self, output: Path, **more: Any) -> list[str]:
        values = {
            "teacher_model_path": self.root / "teacher", "student_model_path": self.root / "student",
            "dataset_path": self.root / "texts.txt", "output_dir": output, "folder_name": "run", **VALUES, **more,
        }  # fmt: skip
        words = [word for name, value in values.items() for word in ("--" + name.replace("_", "-"), str(value))]
        return [*words, *SWITCHES]

    def made(self, kind: str, *, stopped: bool = False) -> Path:
        """The output directory of a run; `kind` is a teacher cache or "black"."""
        name = f"{kind}{'-stopped' if stopped else ''}"
        if name not in self._made:
            output = self.root / name
            more = {"box_type": "black", "teacher_cache": "off"} if kind == "black" else {"teacher_cache": kind}
            arguments = ["distill", *self.options(output, **more)]
            if stopped:
                assert stop_at(5, *arguments, "--skip-validation") == 143
            else:
                assert call(*arguments, "--skip-demo", *(["--skip-validation"] if kind == "black" else [])) == 0
            self._made[name] = output
        return self._made[name]

    def copy(self, place: Path, kind: str, *, stopped: bool = False) -> Path:
        """The run in a copy of its output directory."""
        return Path(shutil.copytree(self.made(kind, stopped=stopped), place)) / "run"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    from huggingface_hub import constants

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        patch.setattr(teacher_cache, "_SHARD_BYTES", 1 << 13)
        patch.setattr(sparse_cache, "TOKENS_PER_SHARD", 128)
        yield Runs(tmp_path_factory.mktemp("corruption"))
    torch.set_num_threads(threads)


def student(run: Path) -> dict[str, bytes]:
    found = {path.relative_to(run).as_posix(): path.read_bytes() for path in files_below(run / "student")}
    return {name: content for name, content in found.items() if not name.endswith("README.md")}


def goes_on_undisturbed(run: Path, runs: Runs, kind: str) -> bool:
    assert call("distill", "--run", run, "--quiet", "--skip-validation") == 0
    return student(run) == student(runs.made(kind) / "run")


# --- what is checked before it is read: every kind of damage, everywhere ---------------------------------------------


def test_checkpoints(runs: Runs, tmp_path: Path) -> None:
    """Every file of a checkpoint, weights, optimizer, schedule, random states and figures alike."""
    root = runs.copy(tmp_path / "out", "off", stopped=True) / "checkpoints"
    newest = root / "step-5"
    content = checkpoints.read_commit(newest)
    assert content is not None
    names = [path.name for path in files_below(newest)]
    assert {*checkpoints.REQUIRED, "model.safetensors", checkpoints.COMMIT_FILE} <= set(names)
    cases = 0
    for path in files_below(newest):
        sound = path.read_bytes()
        for words, damaged in damages(sound, seed=len(sound)):
            if path.name == checkpoints.COMMIT_FILE and says_the_same(sound, damaged):
                continue
            path.write_bytes(damaged)
            found = checkpoints.newest_valid(root, content["fingerprint"])
            assert found.path == root / "step-4", (path.name, words)
            assert len(found.passed_over) == 1
            assert path.name in found.passed_over[0]
            cases += 1
        path.write_bytes(sound)
    assert checkpoints.newest_valid(root, content["fingerprint"]).path == newest
    assert cases > 20 * len(names)


def test_every_byte_of_a_commit(runs: Runs, tmp_path: Path) -> None:
    root = runs.copy(tmp_path / "out", "off", stopped=True) / "checkpoints"
    path = root / "step-5" / checkpoints.COMMIT_FILE
    sound, content = path.read_bytes(), checkpoints.read_commit(root / "step-5")
    assert content is not None
    for damaged in every_byte(sound, 400):
        path.write_bytes(damaged)
        found = checkpoints.newest_valid(root, content["fingerprint"])
        assert found.path == root / "step-4", damaged
    path.write_bytes(sound)
    (root / "step-5").rename(root / "step-50")
    found = checkpoints.newest_valid(root, content["fingerprint"])
    assert found.passed_over == (f"step-50: {checkpoints.COMMIT_FILE} is of another step",)


@pytest.mark.parametrize("kind", ["exact", "sparse"])
def test_teacher_caches(runs: Runs, tmp_path: Path, kind: str) -> None:
    """Every damaged shard is missing; so is the whole cache without its head or its description."""
    runs.copy(tmp_path / "out", kind)
    (folder,) = [path for path in (tmp_path / "out" / ".teacher-cache").iterdir() if path.is_dir()]
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    records = sorted(folder.glob("shard-*.json"))
    assert len(records) > 2
    texts = [json.loads(path.read_text(encoding="utf-8"))["texts"] for path in records]
    plan = [shards.Shard(number, first, last, last - first) for number, (first, last) in enumerate(texts)]
    files = shards.ShardFiles(folder, plan)
    assert files.missing() == []
    shard = plan[1]
    for path in (files.content(shard), files.record_path(shard)):
        sound = path.read_bytes()
        small = every_byte(sound, 300) if path.suffix == ".json" else iter(())
        for words, damaged in [*damages(sound, seed=len(sound)), *(("a bit", content) for content in small)]:
            if path.suffix == ".json" and says_the_same(sound, damaged):
                continue
            path.write_bytes(damaged)
            assert files.missing() == [shard], (path.name, words)
        path.write_bytes(sound)
    assert files.missing() == []
    if kind == "sparse":
        return
    cache = SimpleNamespace(folder=folder, width=meta["width"])
    whole: Callable[[], bool] = lambda: precompute.head_is_whole(cache)  # type: ignore[arg-type]  # noqa: E731
    assert whole()
    for name in ("meta.json", "head.json", "head.safetensors"):
        sound = (folder / name).read_bytes()
        small = every_byte(sound, 300) if name == "meta.json" else iter(())
        for words, damaged in [*damages(sound, seed=len(sound)), *(("a bit", content) for content in small)]:
            (folder / name).write_bytes(damaged)
            # What the head's record says besides its digest is for people.
            harmless = name.endswith("json") and (says_the_same(sound, damaged) or _same_digest(name, sound, damaged))
            assert whole() == harmless, (name, words, damaged)
        (folder / name).write_bytes(sound)
    assert whole()


def _same_digest(name: str, sound: bytes, damaged: bytes) -> bool:
    try:
        return name == "head.json" and json.loads(damaged)["sha256"] == json.loads(sound)["sha256"]
    except (ValueError, KeyError, TypeError):
        return False


def test_every_file_that_a_stage_recorded(runs: Runs, tmp_path: Path) -> None:
    """Prepared data, both students, figures: whatever a later stage reads."""
    run = runs.copy(tmp_path / "out", "off")
    opened = RunDirectory.open(run)
    recorded = {stage: [output.path for output in record.outputs] for stage, record in opened.manifest.stages.items()}
    assert {"data/train/data-00000-of-00001.arrow", "data/models.json", "data/stats.json"} <= set(
        recorded["prepare-data"]
    )
    assert {"student/best/model.safetensors", "student/final/tokenizer.json", "metrics.jsonl"} <= set(
        recorded["distill"]
    )
    assert recorded["validate"] == ["validation.json", "validation_details.json"]
    unrecorded = {path.relative_to(run).as_posix() for path in files_below(run)} - {
        name for names in recorded.values() for name in names
    }
    assert {name for name in unrecorded if not name.startswith(("checkpoints/", "."))} == {
        "manifest.json", "config.yaml", "report.html", "student/best/README.md", "student/final/README.md", "validation_scores.json"
    }  # fmt: skip
    for stage, names in recorded.items():
        for name in names:
            path = run / name
            sound = path.read_bytes()
            for words, damaged in damages(sound, seed=len(sound), count=3):
                path.write_bytes(damaged)
                problem = opened.output_problem(stage)
                assert problem is not None, (name, words)
                assert name in problem
            path.write_bytes(sound)
        assert opened.output_problem(stage) is None


def test_every_byte_of_a_manifest(runs: Runs, tmp_path: Path) -> None:
    folder = runs.copy(tmp_path / "out", "off")
    path = folder / "manifest.json"
    sound = path.read_bytes()
    for damaged in [*every_byte(sound, 250), *(content for _, content in damages(sound, seed=3))]:
        if says_the_same(sound, damaged):
            continue
        path.write_bytes(damaged)
        with pytest.raises(PreconditionError, match=re.escape(str(path))) as caught:
            load_manifest(folder)
        assert caught.value.hint
        assert "\n" not in caught.value.message
        assert path.read_bytes() == damaged


def test_every_byte_of_a_written_text(runs: Runs, tmp_path: Path) -> None:
    """generated.jsonl: a batch with a damaged line is written again."""
    run = runs.copy(tmp_path / "out", "black")
    path = run / "teacher" / "generated.jsonl"
    sound = path.read_bytes()
    lines = sound.splitlines(keepends=True)
    prompts = [
        generated_file.Prompt(line["index"], line["prompt"], [1], len(line["prompt"].encode()))
        for line in map(json.loads, lines)
    ]
    reused, end = generated_file.whole_batches(path, prompts, 2)
    assert (len(reused), end) == (len(lines), len(sound))
    for damaged in [*every_byte(sound, 300), *(content for _, content in damages(sound, seed=5))]:
        path.write_bytes(damaged)
        again, end = generated_file.whole_batches(path, prompts, 2)
        assert sound[:end] == damaged[:end]
        assert again == reused[: len(again)]
        assert len(again) < len(reused) or damaged.startswith(sound)


# --- through the command line ----------------------------------------------------------------------------------------


def damage(path: Path, place: float = 0.5) -> None:
    content = path.read_bytes()
    path.write_bytes(flipped(content, int(place * (len(content) - 1))))


def test_a_damaged_checkpoint_is_passed_over(runs: Runs, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = runs.copy(tmp_path / "out", "off", stopped=True)
    damage(run / "checkpoints" / "step-5" / checkpoints.COMMIT_FILE, 0.06)  # in the fingerprint
    capfd.readouterr()
    assert goes_on_undisturbed(run, runs, "off")
    assert f"warning: ignored checkpoint step-5: {checkpoints.COMMIT_FILE} is damaged" in capfd.readouterr().err


@pytest.mark.parametrize("kind", ["exact", "sparse"])
def test_damaged_caches_are_computed_again(runs: Runs, tmp_path: Path, kind: str) -> None:
    run = runs.copy(tmp_path / "out", kind, stopped=True)
    (folder,) = [path for path in (tmp_path / "out" / ".teacher-cache").iterdir() if path.is_dir()]
    sound = {path.name: path.read_bytes() for path in folder.glob("*.bin")}
    damage(folder / "shard-00001.bin")
    meta = (folder / "meta.json").read_text(encoding="utf-8")
    (folder / "meta.json").write_text(meta.replace('"width": 16', '"width": 17'), encoding="utf-8")
    assert goes_on_undisturbed(run, runs, kind)
    assert {path.name: path.read_bytes() for path in folder.glob("*.bin")} == sound
    assert (folder / "meta.json").read_text(encoding="utf-8") == meta


def test_a_damaged_note_of_the_cache(runs: Runs, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What `auto` chose must not be chosen anew in the middle of a training."""
    options = runs.options(tmp_path / "out", teacher_cache="auto", epochs=2)
    assert stop_at(3, "distill", *options, "--skip-validation") == 143
    note = tmp_path / "out" / "run" / "teacher" / "cache.json"
    sound = note.read_bytes()
    assert json.loads(sound)["mode"] == "exact"
    note.write_bytes(sound.replace(b"exact", b"exacT"))
    capfd.readouterr()
    assert call("distill", "--run", tmp_path / "out" / "run", "--quiet") == 3
    said = capfd.readouterr().err
    assert f"{note} is damaged" in said
    assert "--force" in said
    note.write_bytes(sound)
    assert call("distill", "--run", tmp_path / "out" / "run", "--quiet", "--skip-validation") == 0


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("data/train/data-00000-of-00001.arrow", "distill"), ("data/test/state.json", "validate"), ("data/models.json", "demo"),
        ("student/best/model.safetensors", "validate"), ("student/best/config.json", "demo"), ("metrics.jsonl", "plot"),
    ],
)  # fmt: skip
def test_a_stage_refuses_damaged_results(
    runs: Runs, tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str, stage: str
) -> None:
    """Exit code 3 with the file and the command that makes it again."""
    run = runs.copy(tmp_path / "out", "off")
    before = student(run)
    damage(run / name)
    capfd.readouterr()
    assert call(stage, "--run", run, *([] if stage == "distill" else ["--force"])) == 3
    said = capfd.readouterr().err
    maker = "prepare-data" if name.startswith("data") else "distill"
    assert name in said
    assert said.splitlines()[-1] == f"continue with: distillkit {maker} --run {run} --force"
    if name != "student/best/model.safetensors":
        assert {key: value for key, value in student(run).items() if key != name} == {
            key: value for key, value in before.items() if key != name
        }
        return
    assert call(maker, "--run", run, "--force", "--quiet") == 0
    assert student(run) == before
    assert call(stage, "--run", run, "--quiet") == 0


def test_a_best_student_damaged_before_the_end(
    runs: Runs, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two attempts nothing has recorded it but the checkpoint."""
    # The student only gets worse: no better one takes the place of the damaged one.
    scores = itertools.count()
    monkeypatch.setattr("distillkit.training.session._held_out_score", lambda *_: lambda *_: 4.0 + next(scores))
    options = runs.options(tmp_path / "out")
    assert stop_at(5, "distill", *options, "--skip-validation") == 143
    run = tmp_path / "out" / "run"
    sound = student(run)["student/best/model.safetensors"]
    damage(run / "student" / "best" / "model.safetensors")
    capfd.readouterr()
    assert call("distill", "--run", run, "--quiet") == 3
    said = capfd.readouterr().err
    assert "the best student is damaged: student/best/model.safetensors has changed" in said
    assert "--force" in said
    assert call("distill", "--run", run, "--force", "--quiet", "--skip-validation") == 0
    assert student(run)["student/best/model.safetensors"] == sound


def test_written_texts_that_changed_are_written_again(runs: Runs, tmp_path: Path) -> None:
    run = runs.copy(tmp_path / "out", "black", stopped=True)
    path = run / "teacher" / "generated.jsonl"
    sound = path.read_bytes()
    place = sound.index(b'"continuation": "') + len(b'"continuation": "') + 1
    # A letter for another: nothing but the check of the line could tell.
    path.write_bytes(sound[:place] + (b"x" if sound[place : place + 1] != b"x" else b"y") + sound[place + 1 :])
    assert goes_on_undisturbed(run, runs, "black")
    assert path.read_bytes() == sound


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_models_that_changed_since_the_data_were_prepared(
    runs: Runs, tmp_path: Path, capfd: pytest.CaptureFixture[str], role: str
) -> None:
    run = runs.copy(tmp_path / "out", "off", stopped=True)
    weights = runs.root / role / "model.safetensors"
    sound = weights.read_bytes()
    try:
        damage(weights, 0.9)
        capfd.readouterr()
        assert call("distill", "--run", run, "--quiet") == 3
        said = capfd.readouterr().err
        assert f"the {role} has changed since prepare-data" in said
        assert f"distillkit prepare-data --run {run} --force" in said
    finally:
        weights.write_bytes(sound)
    assert goes_on_undisturbed(run, runs, "off")

"""Ctrl-C, SIGTERM, a second Ctrl-C and a reader that goes away, in every stage, through the real command line.

A signal arrives at a chosen call of a function in the middle of the stage's work. The run is then continued with the very
command that the program names, and the student of a run that was disturbed in every stage is that of an undisturbed one.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from forked_cli import Done, ForkedCli, Signals, forked_cli
from settings_file import settings_file
from tiny_models import save_model_folder, teacher_of_letters, tiny_model, tiny_tokenizer, write_texts

from distillkit.storage import files_below

if not hasattr(os, "fork"):
    pytest.skip("needs a system that can fork", allow_module_level=True)

INT, TERM = signal.SIGINT, signal.SIGTERM
# Small parts, so that there are several of each.
SMALL_PARTS = {
    "distillkit.teachers.exact_cache:_SHARD_BYTES": 1 << 13,
    "distillkit.teachers.sparse_cache:TOKENS_PER_SHARD": 128,
    "distillkit.reports.drawing:DPI": 40,
}


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkedCli]:
    with forked_cli(tmp_path_factory.mktemp("children")) as server:
        yield server


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A tiny pair, one teacher that writes letters, texts, and the undisturbed students by kind of run."""
    root = tmp_path_factory.mktemp("signals")
    tokenizer = tiny_tokenizer(384)
    teacher = teacher_of_letters(tokenizer)
    save_model_folder(root / "teacher", teacher, tokenizer)
    # Dropout draws from the random states: without them a resumed run could not be the same.
    save_model_folder(root / "student", tiny_model("gpt2", 384, layers=1, hidden=16, seed=2, dropout=0.1), tokenizer)
    save_model_folder(root / "deep", teacher_of_letters(tokenizer, layers=4), tokenizer)
    write_texts(root / "texts.txt", 60, sentences=2)
    return SimpleNamespace(root=root, references={})


def options(made: SimpleNamespace, output: Path, **more: Any) -> list[str]:
    values = {
        "teacher_model_path": made.root / "teacher", "student_model_path": made.root / "student",
        "dataset_path": made.root / "texts.txt", "output_dir": output, "folder_name": "run", "control": False, "sample_size": 12,
        "max_length": 40, "held_out_size": 4, "batch_size": 2, "epochs": 2, "checkpoint_interval": 4,
        "learning_rate": 2e-3, "precision": "fp32", "compile_loss": "off", "no_cuda": True, "install_deps": False,
        "allow_out_of_range": True, "skip_demo": False, **more,
    }  # fmt: skip
    if "student_model" in more:
        values |= {"teacher_model_path": made.root / "deep"}
        del values["student_model_path"]
    return ["--config", str(settings_file(made.root, **values))]


def student(run: Path) -> dict[str, bytes]:
    """Both students but their cards, which name times."""
    found = {path.relative_to(run).as_posix(): path.read_bytes() for path in files_below(run / "student")}
    assert {"student/final/model.safetensors", "student/final/adapter_model.safetensors"} & found.keys()
    return {name: content for name, content in found.items() if not name.endswith("README.md")}


KINDS = {
    "exact": {"teacher_cache": "exact"},
    "sparse": {"teacher_cache": "sparse"},
    "off": {"teacher_cache": "off"},
    "black": {"box_type": "black"},
    "cut": {"student_model": "teacher:2"},
    "tuned": {"teacher_cache": "exact", "tune_teacher": 9},
    "adapter": {"teacher_cache": "off", "adapter": "lora", "lora_rank": 2, "lora_dropout": 0.1, "keep_adapter": True},
}


def reference(cli: ForkedCli, made: SimpleNamespace, kind: str) -> dict[str, bytes]:
    """The students of a run that was left in peace."""
    if kind not in made.references:
        output = made.root / f"reference-{kind}"
        done = cli.run("distill", *options(made, output, **KINDS[kind]), "--skip-validation", "--skip-demo", "--no-save-plot",
                       values=SMALL_PARTS)  # fmt: skip
        assert done.code == 0, done.err
        made.references[kind] = student(output / "run")
    return made.references[kind]


def continue_arguments(done: Done) -> list[str]:
    """What the last line says."""
    label, _, command = done.err.splitlines()[-1].partition(": ")
    assert label == "continue with", done.err
    program, *arguments = shlex.split(command)
    assert program == "distillkit"
    return arguments


def stages(run: Path) -> dict[str, str]:
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    return {name: record["status"] for name, record in manifest["stages"].items()}


# --- every stage -----------------------------------------------------------------------------------------------------

# (stage, function that a signal arrives in, at which call), in the order in which a run gets there.
PLACES: dict[str, list[tuple[str, str, int]]] = {
    "exact": [
        ("check-env", "distillkit.selftests.loss_checks:objective", 3),
        ("prepare-data", "distillkit.data.example_builder:ExampleBuilder._encode", 2),
        ("prepare-data", "distillkit.data.prepared_parts:save_examples", 2),
        ("distill", "distillkit.teachers.precompute:_shard_states", 2),
        ("distill", "distillkit.training.trainer:DistillTrainer._save_optimizer_and_scheduler", 1),
        ("distill", "distillkit.training.export:model_card", 1),
        ("validate", "distillkit.evaluation.comparison:batch_logits", 2),
        ("validate", "distillkit.stages.validate:write_card", 1),
        ("demo", "distillkit.chatting.writing:Writer.write", 2),
        ("plot", "distillkit.reports.drawing:_png", 2),
    ],
    "sparse": [
        ("distill", "distillkit.teachers.fill_sparse:_shard_rows", 2),
        ("distill", "distillkit.teachers.open_sparse:StoredTargets.soft_targets", 3),
    ],
    "tuned": [
        ("distill", "distillkit.training.trainer:DistillTrainer.compute_loss", 3),
        ("distill", "distillkit.training.teacher_tuning:save_student", 1),
        ("distill", "distillkit.training.teacher_tuning:write_record", 1),
        ("distill", "distillkit.teachers.precompute:_shard_states", 2),
    ],
    "black": [
        ("distill", "distillkit.teachers.generation:choose_tokens", 20),
        ("distill", "distillkit.training.trainer:DistillTrainer.compute_loss", 3),
    ],
    "cut": [
        ("prepare-data", "distillkit.models.layer_scores:mean_loss", 3),
        ("prepare-data", "distillkit.models.fitted_start:add_to", 1),
        ("prepare-data", "distillkit.stages.prepare_data:save_student", 1),
        ("distill", "distillkit.training.trainer:DistillTrainer.compute_loss", 3),
    ],
}  # fmt: skip


@pytest.mark.parametrize("kind", PLACES)
def test_a_run_disturbed_in_every_stage(cli: ForkedCli, made: SimpleNamespace, tmp_path: Path, kind: str) -> None:
    """At each place a signal, and once in each stage two at once; the program says how to go on, and that is done."""
    run = tmp_path / "run"
    arguments = ["distill", *options(made, tmp_path, **KINDS[kind]), "--run-tests"]
    if kind not in ("exact", "cut"):
        assert cli.run("prepare-data", *options(made, tmp_path, **KINDS[kind])).code == 0
        arguments = ["distill", "--run", str(run), "--skip-validation", "--skip-demo", "--no-save-plot"]
    for number, (stage, at, call) in enumerate(PLACES[kind]):
        once, twice = (INT, TERM) if number % 2 else (TERM, INT)
        if number == 0 or stage != PLACES[kind][number - 1][0]:
            done = cli.run(*arguments, signals=Signals(at, call, (twice, twice)), values=SMALL_PARTS)
            assert (done.code, stages(run)[stage]) == (128 + twice, "running"), done
            assert "error" not in done.err
        done = cli.run(*arguments, signals=Signals(at, call, (once,)), values=SMALL_PARTS)
        assert done.code == 128 + once, done
        words = f"interrupted by {once.name}"
        assert words in done.err or "it is saved" in done.err, done.err
        assert "Traceback" not in done.err
        arguments = continue_arguments(done)
        assert arguments == ["distill", "--run", str(run)]
    done = cli.run(*arguments, values=SMALL_PARTS)
    assert done.code == 0, done
    assert set(stages(run).values()) == {"complete"}
    assert student(run) == reference(cli, made, kind)


def test_an_adapter_goes_on_to_the_same_bytes(cli: ForkedCli, made: SimpleNamespace, tmp_path: Path) -> None:
    """Its dropout draws from the random states as well."""
    arguments = [
        "distill",
        *options(made, tmp_path, **KINDS["adapter"]),
        "--skip-validation",
        "--skip-demo",
        "--no-save-plot",
    ]
    done = cli.run(*arguments, signals=Signals("distillkit.training.trainer:DistillTrainer.compute_loss", 6, (TERM,)))
    assert done.code == 143, done
    assert "stopped after step 6 of 12; it is saved" in done.err
    assert cli.run(*continue_arguments(done)).code == 0
    assert student(tmp_path / "run") == reference(cli, made, "adapter")


def test_a_later_stage_names_itself(cli: ForkedCli, finished: Path) -> None:
    """`validate`, `demo` and `plot` alone; what they had written before stays until they are through."""
    for stage, at in (
        ("validate", "distillkit.evaluation.comparison:batch_logits"),
        ("demo", "distillkit.chatting.writing:Writer.write"),
        ("plot", "distillkit.reports.drawing:_png"),
    ):
        before = {name: finished.joinpath(name).read_bytes() for name in ("validation.json", "demo.json")}
        done = cli.run(stage, "--run", finished, "--force", signals=Signals(at), values=SMALL_PARTS)
        assert done.code == 130, done
        assert continue_arguments(done) == [stage, "--run", str(finished)]
        assert {name: finished.joinpath(name).read_bytes() for name in before} == before
        assert cli.run(*continue_arguments(done), values=SMALL_PARTS).code == 0
        assert stages(finished)[stage] == "complete"


@pytest.mark.parametrize("number", [INT, TERM])
def test_check_env_without_a_run(cli: ForkedCli, made: SimpleNamespace, tmp_path: Path, number: int) -> None:
    """The self-tests leave nothing behind when they are told to stop."""
    (tmp_path / "tmp").mkdir()
    done = cli.run(
        "check-env", *options(made, tmp_path), "--run-tests", cwd=tmp_path,
        environment={"TMPDIR": str(tmp_path / "tmp")},
        signals=Signals("distillkit.training.trainer:checkpoints.commit", 1, (number,)),
    )  # fmt: skip
    assert done.code == 128 + number, done
    assert done.err.splitlines()[-1] == f"error: interrupted by {signal.Signals(number).name}"
    assert "Traceback" not in done.err
    assert not (tmp_path / "run").exists()
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_signal_in_the_last_moment(cli: ForkedCli, made: SimpleNamespace, tmp_path: Path) -> None:
    """It is answered though everything is done; and between two stages the next one is not begun."""
    done = cli.run(
        "prepare-data", *options(made, tmp_path), signals=Signals("distillkit.run.directory:RunDirectory.finish_stage")
    )
    assert (done.code, stages(tmp_path / "run")) == (130, {"prepare-data": "complete"})
    assert cli.run("prepare-data", "--run", tmp_path / "run").code == 0
    done = cli.run(
        "distill", "--run", tmp_path / "run", signals=Signals("distillkit.run.directory:RunDirectory.finish_stage")
    )
    assert (done.code, stages(tmp_path / "run").keys()) == (130, {"prepare-data", "check-env"})


@pytest.mark.parametrize("call", [1, 2, 3])
def test_a_signal_while_the_run_is_made(cli: ForkedCli, made: SimpleNamespace, tmp_path: Path, call: int) -> None:
    """Its first files are written; there is a run then, or the same command makes one."""
    arguments = ["prepare-data", *options(made, tmp_path)]
    done = cli.run(*arguments, signals=Signals("distillkit.storage:os.fsync", call, (TERM, TERM)))
    assert done.code == 143
    done = cli.run(*arguments, signals=Signals("distillkit.storage:os.fsync", call, (TERM,)))
    assert done.code == 143, done
    assert continue_arguments(done) == ["prepare-data", "--run", str(tmp_path / "run")]
    assert cli.run(*arguments).code == 0


def test_the_second_signal_gives_the_cursor_back(tmp_path: Path) -> None:
    """A live display hides it."""
    import pty

    program = (
        "import os, signal\nfrom distillkit.console import Console\nfrom distillkit.interrupts import graceful_signals\n"
        "with graceful_signals(), Console().progress('work', total=3) as progress:\n"
        "    progress.advance()\n    [os.kill(os.getpid(), signal.SIGINT) for _ in range(2)]\n"
    )
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(sys.executable, [sys.executable, "-c", program], {**os.environ, "TERM": "xterm"})
    written = b""
    with os.fdopen(terminal, "rb", buffering=0) as stream:
        while True:
            try:
                block = stream.read(4096)
            except OSError:
                break
            if not block:
                break
            written += block
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 130
    assert b"\x1b[?25l" in written
    assert written.rfind(b"\x1b[?25h") > written.rfind(b"\x1b[?25l")


# --- readers that go away --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(cli: ForkedCli, made: SimpleNamespace) -> Path:
    """A whole run; tests leave it whole."""
    output = made.root / "finished"
    done = cli.run("distill", *options(made, output, teacher_cache="exact"), values=SMALL_PARTS)
    assert done.code == 0, done
    return output / "run"


@pytest.mark.parametrize(
    ("stage", "json_wanted"),
    [("validate", False), ("demo", False), ("demo", True), ("plot", True), ("runs", False), ("runs", True), ("cache", False),
     ("params", False), ("params", True), ("presets", False), ("distill", False), ("distill", True), ("check-env", True)],
)  # fmt: skip
def test_the_reader_of_stdout_has_gone(cli: ForkedCli, finished: Path, stage: str, json_wanted: bool) -> None:
    """`| head`: exit code 141, not a word about it, and the work is done or done again."""
    where = ["--output-dir", finished.parent] if stage in ("runs", "cache") else ["--run", finished]
    arguments = [stage, *([] if stage in ("params", "presets") else where), *(["--json"] if json_wanted else [])]
    forced = ["--force", "--quiet"] if stage in ("validate", "demo", "plot", "check-env") else []
    done = cli.run(*arguments, *forced, closed=["out"], values=SMALL_PARTS)
    assert done.code == 141, done
    assert "error" not in done.err
    assert "Traceback" not in done.err
    if forced:
        assert done.err == ""
    assert cli.run(*arguments, values=SMALL_PARTS).code == 0
    assert set(stages(finished).values()) == {"complete"}


def test_the_reader_of_stderr_has_gone(cli: ForkedCli, made: SimpleNamespace, tmp_path: Path) -> None:
    """`2>&1 | head`, also where the only thing to say is an error."""
    done = cli.run("distill", *options(made, tmp_path), closed=["out", "err"], values=SMALL_PARTS)
    assert done.code == 141
    assert cli.run("distill", "--run", "absent", closed=["out", "err"]).code == 141
    assert cli.run("distill", "--run", "absent", "--json", closed=["out"]).code == 141

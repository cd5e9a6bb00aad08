"""A run that is killed, told to stop or finds a damaged checkpoint ends with the very bytes of one left in peace."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import warm_python
from bare_runs import distill, loss_lines, metric_lines, prepared_run, stop_at
from tiny_models import save_model_folder, tiny_model, tiny_tokenizer, write_texts

from distillkit.cli import main as cli
from distillkit.errors import DistillkitError
from distillkit.installing import is_satisfied
from distillkit.settings.declared import flag
from distillkit.storage import files_below
from distillkit.training import arguments, checkpoints, session
from distillkit.training.optimizers import BITSANDBYTES

EXAMPLES, BATCH, EPOCHS, INTERVAL = 32, 2, 3, 5
# Optimizer steps of an epoch: each batch is one, or four are.
PLAIN, ACCUMULATED = EXAMPLES // BATCH, EXAMPLES // BATCH // 4
PREPARED: dict[str, Any] = {
    "sample_size": EXAMPLES, "max_length": 40, "held_out_size": 6, "batch_size": BATCH, "epochs": EPOCHS,
    "checkpoint_interval": INTERVAL, "learning_rate": 2e-3,
}  # fmt: skip
NEEDS_BITSANDBYTES = pytest.mark.skipif(not is_satisfied(BITSANDBYTES), reason="bitsandbytes is not installed")


def figures(run: Path) -> dict[str, Any]:
    """The figures of metrics.json that do not depend on the clock or the machine."""
    content = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    kept = {"best": content["best"], "steps": content["train"]["steps"], "tokens": content["train"]["tokens"]}
    if "teacher_pass" in content:
        kept["teacher tokens"] = content["teacher_pass"]["tokens"]
    return kept | {"alignment": content.get("alignment")}


def students(run: Path) -> dict[str, bytes]:
    """Every file of both students but the cards."""
    found = [path for path in files_below(run / "student") if path.name != "README.md"]
    return {path.relative_to(run).as_posix(): path.read_bytes() for path in found}


def committed(run: Path) -> list[str]:
    return sorted(path.parent.name for path in run.glob("checkpoints/step-*/COMMITTED.json"))


def assert_same(run: Path, reference: Path) -> None:
    """Weights byte for byte, figures line for line."""
    assert metric_lines(run) == metric_lines(reference)
    assert figures(run) == figures(reference)
    found, expected = students(run), students(reference)
    assert found.keys() == expected.keys()
    assert "student/final/model.safetensors" in found
    assert [name for name in found if found[name] != expected[name]] == []


def writer() -> tuple[Any, Any]:
    """A teacher that writes nonsense, but of letters, which the filter lets pass; and its tokenizer."""
    tokenizer = tiny_tokenizer(384)
    model = tiny_model("gpt2", 384, layers=1, hidden=16, seed=4, tie_word_embeddings=False)
    letters = [index for piece, index in tokenizer.get_vocab().items() if piece.strip("\u0120").isascii()]
    with torch.no_grad():
        model.get_parameter("transformer.ln_f.bias").fill_(1.0)
        model.get_parameter("lm_head.weight")[letters] += 0.5
    return model, tokenizer


class Runs:
    """Runs whose data are prepared once; every test continues copies of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        tokenizer = tiny_tokenizer(384)
        teacher = tiny_model("gpt2", 384, layers=1, hidden=16, seed=1)
        save_model_folder(folder / "teacher", teacher, tokenizer)
        # Dropout draws from the random states: without them a resumed run could not be the same.
        student = tiny_model("gpt2", 384, layers=1, hidden=16, seed=2, dropout=0.1)
        save_model_folder(folder / "student", student, tokenizer)
        write_texts(folder / "texts.txt", 110, sentences=2)
        self._prepared: dict[str, Path] = {}
        self._references: dict[str, Path] = {}
        self._copies = 0

    def prepared(self, name: str, **changes: Any) -> Path:
        """A run that has its data; `name` stands for `changes`."""
        if name not in self._prepared:
            values = {**PREPARED, **changes}
            self._prepared[name] = prepared_run(self.folder, self.folder / "prepared", name, **values)
        return self._prepared[name]

    def copy(self, prepared: Path) -> Path:
        self._copies += 1
        return Path(shutil.copytree(prepared, self.folder / f"copy-{self._copies}"))

    def reference(self, name: str, **changes: Any) -> Path:
        """The same run, left in peace to the end."""
        if name not in self._references:
            run = self.copy(self.prepared(name, **changes))
            assert distill(run) == 0
            self._references[name] = run
        return self._references[name]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("resume"))


def control(run: Path, *options: str) -> int:
    """`distillkit control --run RUN` in this process; its exit code."""
    return cli.main(["control", "--run", str(run), "--quiet", *options])


# --- signals ---------------------------------------------------------------------------------------------------------


def test_interrupted_at_chosen_steps(runs: Runs) -> None:
    """At the first step, between checkpoints, at one, at the end of an epoch, one before the last, and at the last."""
    reference = runs.reference("plain")
    last = PLAIN * EPOCHS
    run = runs.copy(runs.prepared("plain"))
    for step in (1, 7, 10, PLAIN, last - 1):
        assert stop_at(run, step) == 143
        assert f"step-{step}" in committed(run)
        assert len(committed(run)) <= 2
    assert stop_at(run, last) == 143
    assert distill(run) == 0
    assert_same(run, reference)


def test_interrupted_with_accumulation(runs: Runs) -> None:
    reference = runs.reference("accumulated", gradient_accumulation=4)
    assert figures(reference)["steps"] == ACCUMULATED * EPOCHS
    run = runs.copy(runs.prepared("accumulated"))
    for step in (1, 3, ACCUMULATED, 7, ACCUMULATED * EPOCHS - 1):
        assert stop_at(run, step, signal.SIGINT) == 130
    assert distill(run) == 0
    assert_same(run, reference)


def test_an_interrupted_control(runs: Runs) -> None:
    """It is a training like the other: at the first step, between checkpoints, at one, and before the last."""
    reference = runs.copy(runs.reference("plain"))
    assert control(reference) == 0
    run = runs.copy(runs.reference("plain"))
    for step in (1, 7, 10, PLAIN * EPOCHS - 1):
        assert stop_at(run, step, command=control) == 143
        assert f"step-{step}" in committed(run / "control")
        assert len(committed(run / "control")) <= 2
    assert control(run) == 0
    assert_same(run / "control", reference / "control")
    assert metric_lines(run / "control") != metric_lines(run)
    # The run's own student was not touched.
    assert_same(run, runs.reference("plain"))


def test_interrupted_between_two_lines_of_the_log(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long runs log every few steps: the figures of a line are over all its steps, whoever computed them."""
    monkeypatch.setattr(arguments, "_LINES", 8)
    reference = runs.copy(runs.prepared("plain"))
    assert distill(reference) == 0
    logged = loss_lines(reference)
    assert [line["step"] for line in logged] == list(range(6, 49, 6))
    run = runs.copy(runs.prepared("plain"))
    assert stop_at(run, 8) == 143
    assert distill(run) == 0
    assert_same(run, reference)
    # Each line is the mean over its steps, as a log of every step shows.
    every = [line["loss"] for line in loss_lines(runs.reference("plain"))]
    means = [sum(every[step - 6 : step]) / 6 for step in range(6, 49, 6)]
    assert [line["loss"] for line in logged] == pytest.approx(means, rel=1e-5)


SCHEDULES = {"temperature_schedule": "anneal", "alpha_schedule": "decay"}


def test_interrupted_while_temperature_and_weights_change(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The figures of a line are over all its steps, each with the weights that it had."""
    monkeypatch.setattr(arguments, "_LINES", 8)
    reference = runs.reference("schedules", **SCHEDULES)
    run = runs.copy(runs.prepared("schedules"))
    for step in (1, 8, 46):
        assert stop_at(run, step) == 143
    assert distill(run) == 0
    assert_same(run, reference)
    logged = loss_lines(reference)
    assert [line["step"] for line in logged] == list(range(6, 49, 6))
    for line in logged:
        assert line["alpha"] == pytest.approx(0.7 * (1 - (line["step"] - 1) / 47), abs=1e-6)
        assert line["temperature"] == pytest.approx(2 - (line["step"] - 1) / 47, abs=1e-6)


def test_epochs_that_are_added_stretch_the_schedules(runs: Runs) -> None:
    """As with the learning rate: what is left goes by the new number of steps."""
    run = runs.copy(runs.prepared("schedules of an epoch", epochs=1, **SCHEDULES))
    assert distill(run) == 0
    assert loss_lines(run)[-1]["alpha"] == 0
    assert distill(run, "--epochs", "2") == 0
    logged = loss_lines(run)
    assert len(logged) == 2 * PLAIN
    for line in logged:
        last = (1 if line["step"] <= PLAIN else 2) * PLAIN - 1
        assert line["temperature"] == pytest.approx(2 - (line["step"] - 1) / last, abs=1e-6)


@pytest.mark.parametrize("optimizer", ["adafactor", "muon", pytest.param("adamw-8bit", marks=NEEDS_BITSANDBYTES)])
def test_interrupted_with_another_optimizer(runs: Runs, optimizer: str) -> None:
    """Between checkpoints; what it remembers is in them. What is left to do may be done with less memory."""
    options = ("--epochs", "1", "--optimizer", optimizer, "--weight-decay", "0.1")
    reference, run = (runs.copy(runs.prepared("plain")) for _ in range(2))
    assert distill(reference, *options) == 0
    assert stop_at(run, 7, command=lambda folder: distill(folder, *options)) == 143
    assert distill(run, "--gradient-checkpointing") == 0
    assert_same(run, reference)


@pytest.mark.parametrize(
    "options",
    [("--max-steps", "7"), ("--early-stopping-patience", "2", "--learning-rate", "3", "--lr-schedule", "constant")],
    ids=["max-steps", "early"],
)
def test_cut_off_after_the_last_step(runs: Runs, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]) -> None:
    """The end is in the middle of an epoch, and is not gone beyond by an attempt that only has the student to write."""
    options = (*options, "--checkpoint-interval", "2", "--allow-out-of-range")
    reference, run = (runs.copy(runs.prepared("plain")) for _ in range(2))
    assert distill(reference, *options) == 0
    steps = figures(reference)["steps"]
    assert steps % PLAIN
    with monkeypatch.context() as patch:
        patch.setattr(session, "_check_best", _cut_off)
        assert distill(run, *options) == 1
    assert f"step-{steps}" in committed(run)
    assert distill(run) == 0
    assert_same(run, reference)


def _cut_off(*_: Any) -> None:
    raise DistillkitError("cut off", hint="go on")


def test_interrupted_across_tokenizers(runs: Runs) -> None:
    """The figures of the alignment are over the whole training as well."""
    other = tiny_tokenizer(300, bos="<s>")
    model = tiny_model("llama", 300, layers=1, hidden=16, seed=3)
    teacher = save_model_folder(runs.folder / "other_teacher", model, other)
    reference = runs.reference("across", teacher_model_path=teacher, epochs=1)
    assert figures(reference)["alignment"]["rows"] > 0
    run = runs.copy(runs.prepared("across"))
    assert stop_at(run, 8) == 143
    assert distill(run) == 0
    assert_same(run, reference)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal_to_the_program(runs: Runs, cli_env: Callable[..., dict[str, str]], number: int, code: int) -> None:
    reference = runs.reference("plain")
    run = runs.copy(runs.prepared("plain"))
    process = warm_python.Popen(
        [sys.executable, "-m", "distillkit", "distill", "--run", str(run), "--quiet"],
        env=cli_env(), stderr=subprocess.PIPE, encoding="utf-8",
    )  # fmt: skip
    try:
        wait_for(lambda: trained_steps(run) >= 3, process)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == code, said
    assert said.splitlines()[-1] == f"continue with: distillkit distill --run {run}"
    assert "Traceback" not in said
    assert len(committed(run)) >= 1
    assert distill(run) == 0
    assert_same(run, reference)


# --- kill -9 ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def start(cli_env: Callable[..., dict[str, str]]) -> Callable[[Path], warm_python.Popen]:
    """`start(run)` -> a process of its own that continues `run`."""

    def begin(run: Path) -> warm_python.Popen:
        command = [sys.executable, "-m", "distillkit", "distill", "--run", str(run), "--quiet"]
        return warm_python.Popen(command, env=cli_env(HF_HUB_OFFLINE="1"))

    return begin


def trained_steps(run: Path) -> int:
    """The newest step in metrics.jsonl."""
    path = run / "metrics.jsonl"
    steps = [0]
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            steps.append(json.loads(line)["step"])
        except ValueError:
            continue
    return max(steps)


def wait_for(condition: Callable[[], bool], process: warm_python.Popen, seconds: float = 60) -> bool:
    """True once `condition` holds; False if the process ended before."""
    until = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None:
            return False
        assert time.monotonic() < until, "the run does not get on"
        time.sleep(0.002)
    return True


def kill(process: warm_python.Popen) -> None:
    process.kill()
    assert process.wait(60) == -signal.SIGKILL


def finished(run: Path) -> bool:
    return json.loads((run / "manifest.json").read_text(encoding="utf-8"))["stages"]["distill"]["status"] == "complete"


def test_killed_right_after_checkpoints(runs: Runs, start: Callable[[Path], warm_python.Popen]) -> None:
    reference = runs.reference("plain")
    run = runs.copy(runs.prepared("plain"))
    for step in (5, 20, 40):
        process = start(run)
        assert wait_for(lambda step=step: f"step-{step}" in committed(run), process)
        kill(process)
        assert f"step-{step}" in committed(run)
    assert start(run).wait(120) == 0
    assert finished(run)
    assert_same(run, reference)


def test_killed_at_random_moments(runs: Runs, start: Callable[[Path], warm_python.Popen]) -> None:
    """Also in the middle of a step, a score, a checkpoint or an export, whatever the moment brings."""
    reference = runs.reference("accumulated", gradient_accumulation=4)
    run = runs.copy(runs.prepared("accumulated"))
    chooser = random.Random(20)
    kills = 0
    for _ in range(5):
        process = start(run)
        further = min(trained_steps(run) + chooser.randint(1, 4), ACCUMULATED * EPOCHS)
        if not wait_for(lambda further=further: trained_steps(run) >= further, process):
            break
        time.sleep(chooser.uniform(0, 0.15))
        if process.poll() is not None:
            break
        process.kill()
        kills += process.wait(60) == -signal.SIGKILL
    assert kills >= 2
    assert start(run).wait(120) == 0
    assert finished(run)
    assert_same(run, reference)


def test_black_box_killed_while_writing_and_while_training(
    runs: Runs, start: Callable[[Path], warm_python.Popen]
) -> None:
    teacher = save_model_folder(runs.folder / "writer", *writer())
    changes = {"box_type": "black", "teacher_model_path": teacher, "sample_size": 16, "epochs": 1}
    changes |= {"teacher_cache": "off"}  # Else the reference's texts would do.
    reference = runs.reference("black", **changes)
    run = runs.copy(runs.prepared("black"))
    written = run / "teacher" / "generated.jsonl"
    process = start(run)
    assert wait_for(lambda: written.exists() and written.stat().st_size > 0, process)
    kill(process)
    assert 0 < len(written.read_bytes().splitlines()) < 16
    assert not committed(run)
    process = start(run)
    assert wait_for(lambda: bool(committed(run)), process)
    kill(process)
    assert start(run).wait(120) == 0
    assert finished(run)
    assert written.read_bytes() == (reference / "teacher" / "generated.jsonl").read_bytes()
    assert_same(run, reference)


# --- damaged checkpoints ---------------------------------------------------------------------------------------------


def test_without_random_states_the_result_would_differ(
    runs: Runs, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The negative control of this module, and the reason why such a checkpoint is refused."""
    reference = runs.reference("plain")
    stopped = runs.copy(runs.prepared("plain"))
    assert stop_at(stopped, 13) == 143
    newest = stopped / "checkpoints" / "step-13"
    (newest / "rng_state.pth").unlink()

    ordinary = runs.copy(stopped)
    capfd.readouterr()
    assert distill(ordinary) == 0
    assert "ignored checkpoint step-13: rng_state.pth is missing" in capfd.readouterr().err
    assert_same(ordinary, reference)

    content = checkpoints.read_commit(newest)
    assert content is not None
    (newest / checkpoints.COMMIT_FILE).unlink()
    checkpoints.commit(newest, 13, content["fingerprint"])
    recommitted = runs.copy(stopped)
    capfd.readouterr()
    assert distill(recommitted) == 0
    assert "ignored checkpoint step-13: rng_state.pth is not part of it" in capfd.readouterr().err
    assert_same(recommitted, reference)

    required = tuple(name for name in checkpoints.REQUIRED if name != "rng_state.pth")
    monkeypatch.setattr(checkpoints, "REQUIRED", required)
    assert distill(stopped) == 0
    weights = "student/final/model.safetensors"
    assert students(stopped)[weights] != students(reference)[weights]
    assert metric_lines(stopped)[:16] == metric_lines(reference)[:16]
    assert metric_lines(stopped) != metric_lines(reference)


@pytest.mark.parametrize("name", ["optimizer.pt", "COMMITTED.json"])
def test_the_only_checkpoint_is_torn(runs: Runs, capfd: pytest.CaptureFixture[str], name: str) -> None:
    run = runs.copy(runs.prepared("plain"))
    assert stop_at(run, 2) == 143
    assert committed(run) == ["step-2"]
    path = run / "checkpoints" / "step-2" / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    before = {file: file.read_bytes() for file in files_below(run / "checkpoints")}
    capfd.readouterr()
    assert distill(run) == 3
    said = capfd.readouterr().err
    assert "step-2" in said
    assert name in said
    assert "--force" in said
    assert {file: file.read_bytes() for file in files_below(run / "checkpoints")} == before
    # Asked for in so many words, it begins anew.
    assert distill(run, "--force") == 0
    assert_same(run, runs.reference("plain"))


# --- what may change -------------------------------------------------------------------------------------------------


def test_only_epochs_may_be_added(runs: Runs, capfd: pytest.CaptureFixture[str]) -> None:
    run = runs.copy(runs.prepared("plain"))
    assert stop_at(run, 3) == 143
    config = (run / "config.yaml").read_bytes()
    for name, value in (("learning_rate", "1e-4"), ("seed", "7"), ("batch_size", "4"), ("epochs", "1")):
        capfd.readouterr()
        assert distill(run, flag(name), value) == 3
        assert f"{name}: " in capfd.readouterr().err
    assert (run / "config.yaml").read_bytes() == config
    assert committed(run) == ["step-3"]
    assert distill(run, "--epochs", str(EPOCHS + 1)) == 0
    assert figures(run)["steps"] == PLAIN * (EPOCHS + 1)
    # Before the schedule knew of the fourth epoch, nothing was other than it is without.
    assert metric_lines(run)[:4] == metric_lines(runs.reference("plain"))[:4]


def rates(run: Path) -> list[float]:
    """The learning rate of each step."""
    return [line["learning_rate"] for line in loss_lines(run)]


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_added_epochs_have_the_rates_of_the_new_schedule(runs: Runs, schedule: str) -> None:
    """From the first step on, also where the old schedule had come to its end, at which the rate is nearly 0."""
    name, changes = f"accumulated {schedule}", {"gradient_accumulation": 4, "lr_schedule": schedule}
    whole = runs.copy(runs.prepared(f"{name}, longer", **changes, epochs=EPOCHS + 1))
    assert distill(whole) == 0
    run = runs.copy(runs.reference(name, **changes))
    assert distill(run, "--epochs", str(EPOCHS + 1)) == 0
    done = ACCUMULATED * EPOCHS
    assert rates(run)[:done] == rates(runs.reference(name))
    assert rates(run)[done:] == rates(whole)[done:]
    assert min(rates(run)[done:]) > 0


def test_a_finished_run_goes_on_with_more_epochs(runs: Runs) -> None:
    run = runs.copy(runs.reference("accumulated", gradient_accumulation=4))
    before = torch.load(run / "checkpoints" / f"step-{ACCUMULATED * EPOCHS}" / "optimizer.pt", weights_only=True)
    assert float(before["state"][0]["step"]) == ACCUMULATED * EPOCHS
    assert distill(run, "--epochs", str(EPOCHS + 1)) == 0
    assert figures(run)["steps"] == ACCUMULATED * (EPOCHS + 1)
    assert [line["step"] for line in loss_lines(run)] == list(range(1, ACCUMULATED * (EPOCHS + 1) + 1))

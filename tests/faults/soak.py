"""Kill a real distillation with `kill -9` at random moments, continue it, again and again, until it is done; then compare
with one that nobody disturbed.

    python tests/faults/soak.py --kills 100 [--seed 0] [--box black] [--teacher-cache sparse] [--accumulation 4]

Every attempt is `distillkit distill --run RUN` in a process of its own: forked from this one, which has the libraries
loaded, so that it is the run that gets killed and not its imports; with `--new-processes` from the first line of Python
on. A moment is drawn uniformly over the time that an undisturbed run takes. Runs that get done before the wanted number
of kills begin again. One JSON line says what came of it; the exit code is 0 if every student is bit for bit the undisturbed
one, and nothing temporary was left.

`--negative-control` takes the random states out of each newest checkpoint and makes the program accept that: the
students must then differ, else the comparison could not see anything.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import io_injection  # noqa: E402
from small_runs import leftovers, make_models, prepare_command, student_digest  # noqa: E402

from distillkit.training import checkpoints  # noqa: E402

# A program of its own for each attempt; one constant of it is another in the negative control.
_PROGRAM = """
import sys
without = sys.argv.pop(1)
if without:
    from distillkit.training import checkpoints
    checkpoints.REQUIRED = tuple(name for name in checkpoints.REQUIRED if name != without)
from distillkit.cli import main as cli
sys.exit(cli.main(sys.argv[1:]))
"""
RANDOM_STATES = "rng_state.pth"


def _new_process(command: list[str], without: str, said: int) -> int:
    words = [sys.executable, "-c", _PROGRAM, without, *command]
    return subprocess.Popen(words, stdout=said, stderr=said, start_new_session=True).pid


def _forked_process(command: list[str], without: str, said: int) -> int:
    pid = os.fork()
    if pid:
        # Both sides say so: the group has to be there before the kill, whoever comes first.
        with contextlib.suppress(PermissionError, ProcessLookupError):
            os.setpgid(pid, pid)
        return pid
    os.setpgid(0, 0)
    os.dup2(said, 1)
    os.dup2(said, 2)
    if without:
        checkpoints.REQUIRED = tuple(name for name in checkpoints.REQUIRED if name != without)
    code = 70
    try:
        from distillkit.cli import main as cli

        code = cli.main(command)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


class Soak:
    """One run, killed and continued.

    Args:
        folder: for models, runs and what they say.
        settings: of the runs.
        negative: whether checkpoints lose their random states.
        new_processes: whether every attempt loads the libraries anew.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], *, negative: bool, new_processes: bool) -> None:
        self.folder, self.negative, self.new_processes = folder, negative, new_processes
        self.output = folder / "out"
        self.run = self.output / "run"
        self.kills: Counter[str] = Counter()
        models = make_models(folder / "models", texts=2 * settings["sample_size"])
        self._check(self.attempt(prepare_command(models, self.output, **settings)))
        shutil.copytree(self.run, folder / "prepared")
        began = time.monotonic()
        self._check(self.attempt(self.command))
        self.seconds = time.monotonic() - began
        self.undisturbed = student_digest(self.run)

    @property
    def command(self) -> list[str]:
        return ["distill", "--run", str(self.run), "--only"]

    def attempt(self, command: list[str], kill_after: float | None = None) -> int:
        """The exit code; -9 if it was killed."""
        with (self.folder / "said.txt").open("wb") as said:
            start = _new_process if self.new_processes else _forked_process
            pid = start(command, RANDOM_STATES if self.negative else "", said.fileno())
            deadline = time.monotonic() + (600 if kill_after is None else kill_after)
            while time.monotonic() < deadline:
                found, status = os.waitpid(pid, os.WNOHANG)
                if found:
                    return os.waitstatus_to_exitcode(status)
                time.sleep(0.002)
            os.killpg(pid, signal.SIGKILL)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def _check(self, code: int) -> None:
        if code != 0:
            raise SystemExit(f"exit code {code}:\n{(self.folder / 'said.txt').read_text(encoding='utf-8')[-2000:]}")

    def begin_again(self) -> None:
        """Back to where the data are prepared and nothing else is done; the teacher's cache goes too."""
        shutil.rmtree(self.output)
        shutil.copytree(self.folder / "prepared", self.run)

    def phase(self) -> str:
        """Where the run stood when it was killed."""
        if (self.run / "student" / "final").exists():
            return "ending"
        if any(self.run.glob("student/.tmp-*")) or any(self.run.glob("checkpoints/.tmp-*")):
            return "writing weights"
        if any(self.run.glob("checkpoints/step-*")):
            return "training"
        if (self.run / "metrics.jsonl").exists():
            return "before the first checkpoint"
        return "starting, or the teacher's part"

    def to_the_end(self, chooser: random.Random, kills: int) -> str:
        """Kill up to `kills` times, then let it finish; the student's digest."""
        while sum(self.kills.values()) < kills:
            code = self.attempt(self.command, chooser.uniform(0.0, self.seconds))
            if code == 0:
                break
            if code != -signal.SIGKILL:
                self._check(code)
            self.kills[self.phase()] += 1
            if self.negative:
                self.forget_random_states()
        self._check(self.attempt(self.command))
        return student_digest(self.run)

    def forget_random_states(self) -> None:
        newest = checkpoints.newest(self.run / "checkpoints")
        content = checkpoints.read_commit(newest) if newest else None
        if newest is None or content is None or not (newest / RANDOM_STATES).exists():
            return
        (newest / checkpoints.COMMIT_FILE).unlink()
        (newest / RANDOM_STATES).unlink()
        checkpoints.commit(newest, int(newest.name.removeprefix("step-")), content["fingerprint"])


def soak(
    folder: Path, settings: dict[str, Any], *, kills: int, seed: int, negative: bool, new_processes: bool
) -> dict[str, Any]:
    """What came of it, see the module."""
    began = time.monotonic()
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "NO_COLOR": "1"}
    if not new_processes:
        io_injection.warm_up()
    soaked = Soak(folder, settings, negative=negative, new_processes=new_processes)
    chooser = random.Random(seed)
    runs = different = left = 0
    while runs == 0 or sum(soaked.kills.values()) < kills:
        soaked.begin_again()
        digest = soaked.to_the_end(chooser, kills)
        runs += 1
        different += digest != soaked.undisturbed
        left += len(leftovers(soaked.output))
    return {
        "kills": sum(soaked.kills.values()), "runs": runs, "students_that_differ": different, "temporary_files_left": left,
        "killed_while": dict(soaked.kills), "undisturbed_seconds": round(soaked.seconds, 2), "seed": seed,
        "settings": {name: value for name, value in settings.items() if name in _TOLD}, "negative_control": negative,
        "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip


_TOLD = ("box_type", "teacher_cache", "gradient_accumulation", "epochs")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--box", choices=("white", "black"), default="white")
    parser.add_argument("--teacher-cache", choices=("exact", "sparse", "off"), default="exact")
    parser.add_argument("--accumulation", type=int, default=1)
    parser.add_argument("--examples", type=int, default=240)
    parser.add_argument("--new-processes", action="store_true")
    parser.add_argument("--negative-control", action="store_true")
    given = parser.parse_args()
    settings: dict[str, Any] = {
        "box_type": given.box, "gradient_accumulation": given.accumulation, "sample_size": given.examples,
        "epochs": 2, "checkpoint_interval": max(1, given.examples // 16 // given.accumulation),
    }  # fmt: skip
    if given.box == "white":
        settings["teacher_cache"] = given.teacher_cache
    with tempfile.TemporaryDirectory(prefix="distillkit-soak-") as folder:
        found = soak(
            Path(folder), settings, kills=given.kills, seed=given.seed, negative=given.negative_control,
            new_processes=given.new_processes,
        )  # fmt: skip
    sys.stdout.write(json.dumps(found) + "\n")
    if given.negative_control:
        return 0 if found["students_that_differ"] else 1
    return 1 if found["students_that_differ"] or found["temporary_files_left"] else 0


if __name__ == "__main__":
    sys.exit(main())

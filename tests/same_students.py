"""Show that a change leaves the students as they were: train the same small runs with a base revision and with the
working tree, and compare the students byte for byte.

    python tests/same_students.py BASE_REVISION [--only REGEX] [--keep FOLDER]

For a refactoring: `python tests/same_students.py main`. The base revision is checked out into a temporary `git
worktree`; models, tokenizers and texts are made once, by this script, and are the same for both. Every student has dropout,
every run two epochs and a fixed seed, on the CPU with one thread. Every file of student/final but the model card is compared.

Twenty runs on each side cover one tokenizer, two tokenizers and black box; `--list` names them. The exit code is 0 if all
students are equal, 1 if one differs or a run fails.

A revision that lacks one of the parameters below fails in that run: choose others with `--only`.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent

# Parameters as in a configuration file: there every one is valid, on the command line some are not.
COMMON = {
    "dataset_path": "texts.txt", "sample_size": 24, "max_length": 32, "held_out_size": 6, "batch_size": 2, "epochs": 2,
    "checkpoint_interval": 5, "learning_rate": 2e-3, "no_cuda": True, "skip_validation": True, "save_plot": False, "control": False,
    "install_deps": False, "allow_out_of_range": True,
}  # fmt: skip
WHITE = {"teacher_model_path": "teacher", "student_model_path": "student"}
ACROSS = {"teacher_model_path": "teacher", "student_model_path": "other-student"}
BLACK = {"teacher_model_path": "writer", "student_model_path": "student", "box_type": "black"}
FP32 = {"precision": "fp32"}
RUNS: dict[str, dict[str, Any]] = {
    "same-bf16": WHITE,
    "same-no-cache": WHITE | FP32 | {"teacher_cache": "off"},
    "same-streamed": WHITE | FP32 | {"teacher_streaming": "on", "gradient_accumulation": 2},
    "same-sparse": WHITE | {"teacher_cache": "sparse", "temperature": 1.0},
    "same-compiled-taid": WHITE | {"compile_loss": "on", "divergence": "taid"},
    "same-jsd": WHITE | FP32 | {"divergence": "jsd"},
    "same-cross-entropy": WHITE | {"alpha": 0.0},
    "same-pruned-teacher": {"teacher_model_path": "teacher", "student_model": "teacher:2"},
    "same-alm": WHITE | {"alignment": "alm"},
    "cross-bf16": ACROSS,
    "cross-canonical": ACROSS | {"prefix_map": "canonical", "temperature": 1.0, "alpha": 0.5, "teacher_cache": "exact"},
    "cross-sparse": ACROSS | FP32 | {"teacher_cache": "sparse"},
    "cross-sparse-top-k": ACROSS
    | {"teacher_cache": "sparse", "sparse_method": "top-k", "sparse_size": 16, "teacher_streaming": "on"},
    "cross-strict": ACROSS | FP32 | {"alignment": "strict"},
    "cross-alm": ACROSS | FP32 | {"alignment": "alm"},
    "cross-uld": ACROSS | FP32 | {"alignment": "uld"},
    "cross-compiled-skew": ACROSS | {"divergence": "skew-kl", "compile_loss": "on"},
    "black": BLACK | {"gradient_accumulation": 2},
    "black-cross": BLACK | FP32 | {"student_model_path": "other-student"},
    "black-cross-entropy": BLACK | {"alpha": 0.0},
}


def make_models(folder: Path) -> None:
    """Two teachers, a student of their tokenizer, one of another, and texts; the same bytes each time."""
    sys.path.insert(0, str(HERE))
    from tiny_models import (
        save_model_folder,
        teacher_of_letters,
        tiny_model,
        tiny_sentencepiece_tokenizer,
        tiny_tokenizer,
        write_texts,
    )

    folder.mkdir(parents=True)
    tokenizer = tiny_tokenizer()
    other = tiny_sentencepiece_tokenizer(folder / "sentencepiece")
    size, other_size = len(tokenizer), len(other)
    teacher = tiny_model("llama", size, layers=3, hidden=32, seed=1)
    student = tiny_model("gpt2", size, layers=1, hidden=16, seed=2, dropout=0.1)
    other_student = tiny_model("llama", other_size, layers=1, hidden=16, seed=3, dropout=0.1)
    save_model_folder(folder / "teacher", teacher, tokenizer)
    save_model_folder(folder / "writer", teacher_of_letters(tokenizer), tokenizer)
    save_model_folder(folder / "student", student, tokenizer)
    save_model_folder(folder / "other-student", other_student, other)
    write_texts(folder / "texts.txt", 90, sentences=3)


@contextlib.contextmanager
def checked_out(revision: str, folder: Path) -> Iterator[Path]:
    """The tree of a revision of this repository, for as long as the block lasts."""
    git = ["git", "-C", str(ROOT), "worktree"]
    subprocess.run([*git, "add", "--quiet", "--detach", str(folder), revision], check=True)
    try:
        yield folder
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], check=True)


@dataclass(frozen=True)
class Side:
    """One of the two: whose code it is, where its runs go.

    Attributes:
        name: for people.
        source: the tree whose package trains.
        output: the folder of its runs.
        models: what `make_models` has made.
    """

    name: str
    source: Path
    output: Path
    models: Path

    def train(self, run: str, parameters: Mapping[str, Any]) -> Mapping[str, str]:
        """The sha256 of every file of the student that a run gives; empty where the run fails."""
        self.output.mkdir(parents=True, exist_ok=True)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("DISTILLKIT_")}
        environment |= {
            "PYTHONPATH": str(self.source), "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
            "CUDA_VISIBLE_DEVICES": "", "NO_COLOR": "1",
        }  # fmt: skip
        config = self.output / f"{run}.yaml"
        config.write_text(json.dumps({**COMMON, **parameters}), encoding="utf-8")
        where = ["--output-dir", str(self.output), "--folder-name", run, "--config", str(config), "--quiet"]
        command = [sys.executable, "-m", "distillkit", "distill", *where]
        done = subprocess.run(command, env=environment, cwd=self.models, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{run}: failed with {self.name}, exit code {done.returncode}\n{done.stderr}", file=sys.stderr)
            return {}
        student = self.output / run / "student" / "final"
        files = sorted(path for path in student.rglob("*") if path.is_file() and path.name != "README.md")
        return {path.relative_to(student).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def compare(runs: Mapping[str, Mapping[str, Any]], base: Side, now: Side) -> bool:
    """Train each run on both sides, say what came of it, and whether all students are equal."""
    equal = True
    for run, parameters in runs.items():
        # In the same order on both sides, as later runs read the teacher caches of earlier ones.
        before, after = base.train(run, parameters), now.train(run, parameters)
        differing = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
        good = bool(before and after) and not differing
        equal = equal and good
        weights = after.get("model.safetensors", "")[:16]
        print(
            f"{run:22} {f'equal, {weights}' if good else 'DIFFERS: ' + (', '.join(differing) or 'no student')}",
            flush=True,
        )
    return equal


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Compare the students of a base revision with those of the working tree."
    )
    parser.add_argument("base", nargs="?", help="a revision that git knows: a branch, a tag, a commit")
    parser.add_argument("--only", default="", metavar="REGEX", help="the runs whose names match")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="a new folder, in which all runs are kept")
    parser.add_argument("--list", action="store_true", help="name the runs and their parameters")
    arguments = parser.parse_args()
    runs = {name: parameters for name, parameters in RUNS.items() if re.search(arguments.only, name)}
    if arguments.list:
        print("\n".join(f"{name:22} {json.dumps(parameters)}" for name, parameters in runs.items()))
        return 0
    if arguments.base is None or not runs:
        parser.error("BASE is missing" if runs else f"no run is called like {arguments.only}")
    with contextlib.ExitStack() as stack:
        if arguments.keep is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="same-students-")))
        else:
            folder = arguments.keep.resolve()
            folder.mkdir(parents=True)
        models = folder / "models"
        make_models(models)
        tree = stack.enter_context(checked_out(arguments.base, folder / "base-tree"))
        base = Side(arguments.base, tree, folder / "base", models)
        now = Side("the working tree", ROOT, folder / "now", models)
        equal = compare(runs, base, now)
    print("all students are equal" if equal else "not all students are equal")
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())

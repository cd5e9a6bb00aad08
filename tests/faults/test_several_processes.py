"""Two processes that train together, over gloo on the CPU: the student of one process, and what happens when one of them fails.

`distillkit launch` is tried once; elsewhere the two are forked, with the variables that a launcher sets.
"""

from __future__ import annotations

import itertools
import json
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from forked_cli import Child, Done, ForkedCli, Signals, forked_cli
from safetensors.torch import load_file
from settings_file import settings_file
from tiny_models import save_model_folder, teacher_of_letters, tiny_model, tiny_tokenizer, write_texts
from transformers import AutoConfig, AutoModelForCausalLM

from distillkit.storage import files_below, read_json

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork and gloo")

# Eight examples a step, seven in the last step of an epoch.
SETTINGS: dict[str, Any] = {
    "sample_size": 31, "max_length": 40, "held_out_size": 4, "batch_size": 4, "gradient_accumulation": 2, "epochs": 5,
    "checkpoint_interval": 8, "learning_rate": 1e-3, "precision": "fp32", "no_cuda": True, "skip_validation": True,
    "skip_demo": True, "save_plot": False, "control": False, "install_deps": False, "allow_out_of_range": True,
    "compile_loss": "off",
}  # fmt: skip
STEPS = 20
# So that every cache has several shards.
SHARDS = {
    "distillkit.teachers.exact_cache:_SHARD_BYTES": 1 << 14,
    "distillkit.teachers.sparse_cache:TOKENS_PER_SHARD": 200,
}
TRAINING_STEP = "distillkit.training.trainer:DistillTrainer.compute_loss"
GATHERING = "distillkit.training.divided:DividedStudent.optimizer_state"


@pytest.fixture(scope="module")
def children(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkedCli]:
    with forked_cli(tmp_path_factory.mktemp("children"), TORCH_CPP_LOG_LEVEL="ERROR") as server:
        yield server


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("several")
    tokenizer, other = tiny_tokenizer(384), tiny_tokenizer(300, bos="<s>")
    tied = {"layers": 1, "hidden": 16, "tie_word_embeddings": True}
    save_model_folder(folder / "teacher", tiny_model("llama", 384, layers=1, hidden=16, seed=1), tokenizer)
    save_model_folder(folder / "other", tiny_model("llama", 300, layers=1, hidden=16, seed=3), other)
    save_model_folder(folder / "student", tiny_model("llama", 384, seed=2, **tied), tokenizer)
    dropping = tiny_model("gpt2", 384, layers=1, hidden=16, seed=2, dropout=0.2)
    save_model_folder(folder / "dropping", dropping, tokenizer)
    scaled = AutoConfig.for_model(
        "granite", vocab_size=384, num_hidden_layers=1, hidden_size=16, intermediate_size=32, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, logits_scaling=4.0,
    )  # fmt: skip
    save_model_folder(folder / "scaled", AutoModelForCausalLM.from_config(scaled).eval(), tokenizer)
    save_model_folder(folder / "writer", teacher_of_letters(tokenizer, seed=4), tokenizer)
    write_texts(folder / "texts.txt", 120, sentences=2)
    return folder


class Runs:
    """Runs of one or of two processes."""

    def __init__(self, children: ForkedCli, models: Path) -> None:
        self.children, self.models = children, models
        self.numbers = itertools.count()
        self.output = models / "output"

    def command(self, name: str, output: Path | None = None, **changes: Any) -> list[object]:
        values = {
            "teacher_model_path": self.models / changes.pop("teacher", "teacher"),
            "student_model_path": self.models / changes.pop("student", "student"),
            **({"extra_teachers": self.models / changes.pop("extra")} if "extra" in changes else {}),
            "dataset_path": self.models / "texts.txt", "output_dir": output or self.output, "folder_name": name, **SETTINGS, **changes,
        }  # fmt: skip
        folder = self.models / f"settings-{next(self.numbers)}"
        folder.mkdir()
        return ["distill", "--config", settings_file(folder, **values)]

    def start(self, *arguments: object, processes: int = 2, signals: dict[int, Signals] | None = None) -> list[Child]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        common = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        return [
            self.children.start(
                *arguments, signals=(signals or {}).get(rank), values=SHARDS,
                environment={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            )
            for rank in range(processes)
        ]  # fmt: skip

    def together(self, *arguments: object, **options: Any) -> list[Done]:
        return [child.wait() for child in self.start(*arguments, **options)]

    def two(self, name: str, **changes: Any) -> Path:
        done = self.together(*self.command(name, **changes), "--quiet")
        assert [(one.code, one.err) for one in done] == [(0, "")] * 2
        return self.output / name

    def one(self, name: str, output: Path | None = None, **changes: Any) -> Path:
        """In a folder of its own, so that it does not find the caches of the others."""
        output = output or self.models / "output-of-one"
        done = self.children.run(*self.command(name, output, **changes), "--quiet", values=SHARDS)
        assert (done.code, done.err) == (0, "")
        return output / name


@pytest.fixture(scope="module")
def runs(children: ForkedCli, models: Path) -> Runs:
    return Runs(children, models)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "student" / "final" / "model.safetensors")


def furthest(run: Path, reference: Path) -> float:
    """The largest difference between two students."""
    own, wanted = weights(run), weights(reference)
    return max(float((own[name] - wanted[name]).abs().max()) for name in wanted)


def students(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in files_below(run / "student")}


def caches(run: Path) -> dict[str, bytes]:
    """The shards of all caches beside a run, without the times that are recorded with them."""
    root = run.parent / ".teacher-cache"
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in files_below(root)
        if path.suffix in (".bin", ".safetensors")
    }


def lines(run: Path) -> list[dict[str, Any]]:
    kept = map(json.loads, (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return [{name: value for name, value in line.items() if name != "seconds"} for line in kept]


# --- the student of one process ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def alone(runs: Runs) -> Path:
    return runs.one("alone")


def test_two_processes_train_the_student_of_one(runs: Runs, alone: Path, models: Path) -> None:
    done = runs.together(*runs.command("pair"), "--json")
    assert [one.code for one in done] == [0, 0]
    shown = json.loads(done[0].out)
    assert (shown["status"], done[1].out, done[1].err) == ("complete", "", "")
    assert "2 processes train together: of every step 4 examples × 1 in each" in done[0].err
    run = runs.output / "pair"
    wanted, own = lines(alone), lines(run)
    assert len(wanted) == STEPS + 4
    for line, other in zip(own, wanted, strict=True):
        assert {**line, **other} == pytest.approx(other, rel=1e-5), line
        assert line.get("tokens") == other.get("tokens")
    assert furthest(run, alone) < 1e-6
    # It has learnt, more than rounding does.
    start = load_file(models / "student" / "model.safetensors")
    assert max(float((weights(run)[name] - start[name]).abs().max()) for name in start) > 1e-3
    assert read_json(run / "metrics.json")["train"]["tokens"] == read_json(alone / "metrics.json")["train"]["tokens"]


@pytest.mark.parametrize(("batch", "accumulation"), [(1, 8)])
def test_the_split_of_a_step_changes_nothing(runs: Runs, alone: Path, batch: int, accumulation: int) -> None:
    run = runs.two(f"{batch}x{accumulation}", batch_size=batch, gradient_accumulation=accumulation)
    assert furthest(run, alone) < 1e-6


KINDS: dict[str, dict[str, Any]] = {
    # The last step of an epoch has one example: one process has none.
    "live, a spare batch": {"teacher_cache": "off", "sample_size": 25, "epochs": 1},
    "sparse, two tokenizers": {"teacher_cache": "sparse", "teacher": "other", "epochs": 1},
    "several teachers": {"teacher_cache": "exact", "teacher": "other", "extra": "teacher", "epochs": 1, "sample_size": 16},
    "black box": {"box_type": "black", "teacher": "writer", "epochs": 1, "teacher_cache": "off"},
    "exact, two tokenizers, taid, a control": {
        "control": True, "divergence": "taid", "alpha_schedule": "decay", "epochs": 1, "sample_size": 16, "teacher": "other",
        "teacher_cache": "exact",
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_teacher(runs: Runs, kind: str) -> None:
    alone, pair = runs.one(kind, **KINDS[kind]), runs.two(kind, **KINDS[kind])
    assert furthest(pair, alone) < 1e-6
    if KINDS[kind].get("control"):
        assert furthest(pair / "control", alone / "control") < 1e-6
    one, two = (read_json(run / "metrics.json") for run in (alone, pair))
    for name in ("train", "teacher_pass"):
        if name in one:
            assert two[name]["tokens"] == one[name]["tokens"]
    assert two.get("alignment") == pytest.approx(one.get("alignment"))


def test_the_caches_are_those_of_one_process(alone: Path, runs: Runs) -> None:
    """After the runs above: an exact cache and a sparse one."""
    own, wanted = caches(runs.output / "pair"), caches(alone)
    assert own == wanted
    assert len(wanted) > 8


# --- a student that is divided ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def divided(runs: Runs) -> Path:
    done = runs.together(*runs.command("divided", parallel="fsdp"), "--json")
    assert [one.code for one in done] == [0, 0]
    assert json.loads(done[0].out)["status"] == "complete"
    assert "4 examples × 1 in each, and the student is divided between them" in done[0].err
    assert (done[1].out, done[1].err) == ("", "")
    return runs.output / "divided"


def test_a_divided_student_is_that_of_one_process(divided: Path, alone: Path) -> None:
    """Its embedding is its head. That it is divided: tests/unit/training/test_divided.py."""
    assert furthest(divided, alone) < 1e-6
    for line, other in zip(lines(divided), lines(alone), strict=True):
        assert {**line, **other} == pytest.approx(other, rel=1e-5), line
    assert sorted(students(divided)) == sorted(students(alone))


def test_a_divided_student_of_any_kind(runs: Runs) -> None:
    """Its head is more than a layer, its layers are computed twice; TAID from two teachers, one with another tokenizer; a control."""
    kind = KINDS["exact, two tokenizers, taid, a control"]
    kind = kind | {"student": "scaled", "gradient_checkpointing": True, "extra": "teacher"}
    alone, run = runs.one("scaled", **kind), runs.two("divided-scaled", parallel="fsdp", **kind)
    assert furthest(run, alone) < 1e-6
    assert furthest(run / "control", alone / "control") < 1e-6


def test_a_divided_training_goes_on_to_the_same_bytes_and_in_one_process_too(
    runs: Runs, divided: Path, alone: Path, models: Path
) -> None:
    asking = {1: Signals(TRAINING_STEP, call=11, numbers=(signal.SIGTERM,))}
    folder = models / "output-divided"
    done = runs.together(*runs.command("stopped", folder, parallel="fsdp"), "--quiet", signals=asking)
    assert [one.code for one in done] == [143, 143]
    assert "stopped after step 12 of 20" in done[0].err
    shutil.copytree(folder, models / "output-whole-again")
    done = runs.together("distill", "--run", folder / "stopped", "--quiet")
    assert [(one.code, one.err) for one in done] == [(0, "")] * 2
    assert students(folder / "stopped") == students(divided)
    assert lines(folder / "stopped") == lines(divided)
    assert furthest(runs.one("stopped", models / "output-whole-again"), alone) < 1e-6


def test_a_training_of_an_adapter_goes_on_divided(runs: Runs, models: Path) -> None:
    """It has two teachers, in memory."""
    adapter = {"adapter": "lora", "lora_rank": 2, "epochs": 2, "extra": "other", "teacher_cache": "off"}
    alone = runs.one("adapter", **adapter)
    folder = models / "output-then-divided"
    stopping = Signals(TRAINING_STEP, call=9, numbers=(signal.SIGTERM,))
    done = runs.children.run(*runs.command("adapter", folder, **adapter), "--quiet", values=SHARDS, signals=stopping)
    assert (done.code, "stopped after step 5 of 8" in done.err) == (143, True)
    run = folder / "adapter"
    done = runs.together(*runs.command("adapter", folder, parallel="fsdp", **adapter), "--quiet")
    assert [(one.code, one.err) for one in done] == [(0, "")] * 2
    assert furthest(run, alone) < 1e-6
    assert len(lines(run)) == len(lines(alone))


# --- what happens when one fails --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def undisturbed(runs: Runs) -> Path:
    return runs.two("undisturbed", student="dropping")


def test_dropout_is_drawn_by_each_process(undisturbed: Path) -> None:
    folder = undisturbed / "checkpoints" / "step-20"
    states = [torch.load(folder / name, weights_only=False)["cpu"] for name in ("rng_state.pth", "rng_state_1.pth")]
    assert not torch.equal(*states)


SHARD = "distillkit.teachers.exact_cache:TeacherCache.write"


@pytest.mark.parametrize(("rank", "place", "call"), [(1, TRAINING_STEP, 13), (0, TRAINING_STEP, 13), (1, SHARD, 2)])
def test_one_is_killed_and_the_run_goes_on_to_the_same_bytes(
    runs: Runs, undisturbed: Path, models: Path, rank: int, place: str, call: int
) -> None:
    output = models / f"output-{rank}-{place.rpartition('.')[2]}"
    killing = Signals(place, call=call, numbers=(signal.SIGKILL,))
    done = runs.together(*runs.command("run", output, student="dropping"), "--quiet", signals={rank: killing})
    assert done[rank].code == -signal.SIGKILL
    other = done[1 - rank]
    assert other.code == 1
    assert "Traceback" not in other.err
    told = "error: one of the 2 processes has gone: it was killed" if rank else "error: process 0 has gone"
    assert other.err.startswith(told)
    if rank:
        assert other.err.splitlines()[-1].startswith("continue with: distillkit distill --run ")
    done = runs.together("distill", "--run", output / "run", "--quiet")
    assert [(one.code, one.err) for one in done] == [(0, "")] * 2
    assert students(output / "run") == students(undisturbed)
    assert lines(output / "run") == lines(undisturbed)


def test_of_a_divided_training_one_is_killed_and_it_goes_on_divided_whole_and_alone(
    runs: Runs, divided: Path, alone: Path, models: Path
) -> None:
    """Killed while its parts are gathered for a checkpoint: the one before it counts."""
    output = models / "output-divided-killed"
    killing = {1: Signals(GATHERING, call=2, numbers=(signal.SIGKILL,))}
    done = runs.together(*runs.command("run", output, parallel="fsdp"), "--quiet", signals=killing)
    assert [one.code for one in done] == [1, -signal.SIGKILL]
    assert done[0].err.startswith("error: one of the 2 processes has gone: it was killed")
    assert "Traceback" not in done[0].err
    assert done[0].err.splitlines()[-1].startswith("continue with: distillkit distill --run ")
    for how in ("ddp", "one"):
        shutil.copytree(output, models / f"output-divided-{how}")
    done = runs.together("distill", "--run", output / "run", "--quiet")
    assert [(one.code, one.err) for one in done] == [(0, "")] * 2
    assert students(output / "run") == students(divided)
    assert lines(output / "run") == lines(divided)
    whole = models / "output-divided-ddp" / "run"
    done = runs.together("distill", "--run", whole, "--parallel", "ddp", "--quiet")
    assert [(one.code, one.err) for one in done] == [(0, "")] * 2
    assert furthest(whole, alone) < 1e-6
    assert furthest(runs.one("run", models / "output-divided-one"), alone) < 1e-6


def test_a_signal_to_one_stops_all_and_any_number_of_processes_goes_on(
    runs: Runs, undisturbed: Path, alone: Path
) -> None:
    """Stopped by one signal to process 1; then with the same number, and another run with one process."""
    asking = {1: Signals(TRAINING_STEP, call=11, numbers=(signal.SIGTERM,))}
    done = runs.together(*runs.command("stopped", student="dropping"), "--quiet", signals=asking)
    assert [one.code for one in done] == [143, 143]
    assert "stopped after step 12 of 20" in done[0].err
    assert done[1].err == ""
    done = runs.together("distill", "--run", runs.output / "stopped", "--quiet")
    assert [one.code for one in done] == [0, 0]
    assert students(runs.output / "stopped") == students(undisturbed)

    done = runs.together(*runs.command("reduced"), "--quiet", signals=asking)
    assert [one.code for one in done] == [143, 143]
    reduced = runs.one("reduced", runs.output)
    assert furthest(reduced, alone) < 1e-6
    assert lines(reduced)[-1]["step"] == STEPS


def test_the_launcher_ends_with_the_exit_code_of_the_command(run_cli: Any, cli_env: Any) -> None:
    """Of process 0, and told once; the processes are real ones."""
    done = run_cli(
        "launch", "--processes", 2, "--", "validate", "--run", "absent", "--quiet", env=cli_env(OMP_NUM_THREADS="1")
    )
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["error: --run: 'absent' does not exist", "hint: see: distillkit runs"]
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"batch_size": 3, "gradient_accumulation": 1}, "2 processes cannot divide a step of 3 examples"),
        (
            {"on_policy_fraction": 0.5, "on_policy_max_new_tokens": 8},
            "--on-policy-fraction and 2 processes exclude each other",
        ),
    ],
)
def test_what_they_cannot_train_is_refused_before_anything_is_computed(
    runs: Runs, changes: dict[str, Any], told: str
) -> None:
    """Told once; the run directory that was made for it is gone."""
    refused = runs.together(*runs.command("refused", **changes), "--quiet")
    assert [one.code for one in refused] == [2, 2]
    assert told in refused[0].err
    assert refused[1].err == ""
    assert not (runs.output / "refused").exists()


def test_commands_that_share_nothing_run_once(runs: Runs, alone: Path) -> None:
    for command in (["validate", "--run", alone, "--json"], ["presets"], ["--version"], ["params", "alpha"]):
        leader, other = runs.together(*command)
        assert (leader.code, other.code, other.out, other.err) == (0, 0, "", "")
        assert leader.out

"""`kill -9` in every stage, at chosen calls: one run is killed at each of them in turn, continues, and ends as always.

`FAULT_LOOP=1` takes every teacher with and without accumulation. Power cuts are kills after which everything is gone that was not fsynced. Dropout is on everywhere.
"""

from __future__ import annotations

import json
import os
import random
import sys
from pathlib import Path
from typing import Any

import pytest
import warm_python

LONG = {"sample_size": 12, "batch_size": 2, "checkpoint_interval": 2, "held_out_size": 3}
# Six micro-batches are two optimizer steps of four, or of what is left.
ACCUMULATED = {**LONG, "gradient_accumulation": 4, "checkpoint_interval": 1, "epochs": 2}

# (what the path contains, the kind of call, which of them), in the order in which a run comes by.
TEACHERS: dict[str, list[tuple[str, str, int]]] = {
    "exact": [
        ("/.tmp-head.safetensors", "write", 1),
        ("/.tmp-shard-00001.bin", "write", 1),
        ("/shard-00001.json", "rename", 1),
    ],
    "sparse": [("/.tmp-shard-00001.bin", "write", 1), ("/shard-00001.bin", "rename", 1)],
    "off": [],
    "black": [
        ("/generated.settings.json", "rename", 1),
        ("/generated.jsonl", "write", 1),
        ("/generated.jsonl", "write", 2),
    ],
}
TRAINING = [
    ("/metrics.jsonl", "write", 2),
    ("/student/.tmp-best/", "write", 3),
    ("/checkpoints/.tmp-step-{first}/optimizer.pt", "write", 3),
    ("/checkpoints/.tmp-step-{first}/.tmp-COMMITTED.json", "write", 1),
    ("/checkpoints/step-{first}", "rename", 1),
    ("/student/best", "rename", 1),
    ("/checkpoints/step-{first}/", "remove", 2),  # a newer one is committed, this one half deleted
    ("/student/.tmp-final/tokenizer.json", "write", 1),
    ("/metrics.json", "rename", 1),
    ("/run/.tmp-manifest.json", "write", 2),
    ("/run/manifest.json", "rename", 2),
]
# Of the scene "control", whose trainings take two steps.
CONTROL = [
    ("/control/metrics.jsonl", "write", 2),
    ("/control/student/.tmp-best/", "write", 3),
    ("/control/checkpoints/.tmp-step-1/optimizer.pt", "write", 3),
    ("/control/checkpoints/step-1", "rename", 1),
    ("/control/student/best", "rename", 1),
    ("/control/student/.tmp-final/tokenizer.json", "write", 1),
    ("/control/metrics.json", "rename", 1),
    ("/run/manifest.json", "rename", 2),
]
# Eight steps are more than an epoch of six.
TUNING = [
    ("/teacher/.tmp-tuned/", "write", 2),
    ("/teacher/tuned", "rename", 1),
    ("/teacher/checkpoints/.tmp-step-2/optimizer.pt", "write", 3),
    ("/teacher/checkpoints/step-4", "rename", 1),
    ("/teacher/checkpoints/.tmp-step-8/.tmp-COMMITTED.json", "write", 1),
    ("/teacher/checkpoints/step-8", "rename", 1),
    ("/teacher/.tmp-tuned.json", "write", 1),
    ("/teacher/tuned.json", "rename", 1),
    ("/teacher/checkpoints/step-", "remove", 2),  # it counts, and its checkpoints are half deleted
    ("/.tmp-head.safetensors", "write", 1),
    ("/run/checkpoints/step-4", "rename", 1),
    ("/run/manifest.json", "rename", 2),
]
# An adapter is all that a checkpoint and a student hold.
ADAPTER = [
    ("/checkpoints/.tmp-step-1/trained.safetensors", "fsync", 1),
    ("/student/.tmp-best/adapter_model.safetensors", "open", 1),
    ("/checkpoints/.tmp-step-2/optimizer.pt", "write", 3),
    ("/student/.tmp-final/adapter_config.json", "write", 1),
]
PREPARATION = [
    ("/run/.tmp-manifest.json", "write", 1),
    ("/run/manifest.json", "rename", 1),
    ("/run/config.yaml", "rename", 1),
    ("/latest", "rename", 1),
    ("/run/.tmp-examples/train/data-00000-of-00001.arrow", "write", 2),
    ("/run/data", "rename", 1),
    ("/run/manifest.json", "rename", 2),
]
CASES = [("exact", 4), ("sparse", 1), ("black", 4)]
if os.environ.get("FAULT_LOOP"):
    CASES = [(teacher, accumulation) for teacher in TEACHERS for accumulation in (1, 4)]


def killed_along(workshop: Any, scene: Any, points: list[tuple[str, str, int]]) -> list[str]:
    """Kill the command at every point, by turns as `kill -9` and as a power cut; what the runs in between said."""
    from io_injection import Fault

    said: list[str] = []
    for number, (match, kind, at) in enumerate(points):
        fault = Fault(at, ("kill", "power cut")[number % 2], match=match, kinds=(kind,))
        done = workshop.again(scene, fault) if number else workshop.play(scene, fault)
        assert done.code == -9, f"{fault}: {done.code}: {done.said[-500:]}"
        assert done.fired
        said.append(done.said)
    done = workshop.again(scene)
    assert done.code == 0, done.said
    return [*said, done.said]


@pytest.mark.parametrize(("teacher", "accumulation"), CASES)
def test_killed_at_chosen_points(workshop: Any, teacher: str, accumulation: int) -> None:
    first = 2 if accumulation == 1 else 1
    scene = workshop.scene(f"{teacher} x{accumulation}", **(LONG if accumulation == 1 else ACCUMULATED))
    points = [(match.format(first=first), kind, at) for match, kind, at in [*TEACHERS[teacher], *TRAINING]]
    said = killed_along(workshop, scene, points)
    assert workshop.differences(scene) == []
    # What was half written is named by the next attempt.
    run = workshop.output / "run"
    for number, (match, kind, _) in enumerate(points):
        if match.startswith("/checkpoints/.tmp-") or (match == f"/checkpoints/step-{first}" and kind == "rename"):
            assert f"ignored and deleted {run}/checkpoints/.tmp-step-{first}:" in said[number + 1], said[number + 1]
        if match == "/generated.jsonl" and number % 2 == 0:  # after a power cut nothing is half written
            assert "bytes of an unfinished batch are dropped" in said[number + 1]
    assert "Traceback" not in "".join(said)
    assert "continuing from step " in said[-1]


def test_killed_while_the_teacher_is_tuned(workshop: Any) -> None:
    scene = workshop.scene("tuned", **LONG)
    said = killed_along(workshop, scene, TUNING)
    assert workshop.differences(scene) == []
    assert "tuning of the teacher continues from step 6 of 8" in said[5]
    assert "the teacher was tuned before" in said[-1]
    assert "Traceback" not in "".join(said)


def test_an_adapter_killed_at_chosen_points(workshop: Any) -> None:
    scene = workshop.scene("adapter", **LONG | {"sample_size": 6, "checkpoint_interval": 1})
    assert "run/student/best/adapter_model.safetensors" in scene.after
    said = killed_along(workshop, scene, ADAPTER)
    assert workshop.differences(scene) == []
    assert "Traceback" not in "".join(said)
    assert "continuing from step 3" in said[-1]


def test_prepare_data_killed_at_chosen_points(workshop: Any) -> None:
    scene = workshop.scene("prepare-data")
    said = killed_along(workshop, scene, PREPARATION)
    assert workshop.differences(scene) == []
    assert f"ignored and deleted {workshop.output}/run/.tmp-data:" in said[-2]


def test_control_killed_at_chosen_points(workshop: Any) -> None:
    scene = workshop.scene("control")
    said = killed_along(workshop, scene, CONTROL)
    assert workshop.differences(scene) == []
    control = workshop.output / "run" / "control"
    assert f"ignored and deleted {control}/student/.tmp-best:" in said[2]
    assert "continuing from step 2 of 2" in said[-1]


@pytest.mark.parametrize("name", ["exact", "black"])
def test_killed_at_random_writes(workshop: Any, name: str) -> None:
    """A few of the cases that `FAULT_LOOP` goes through one by one (test_io_faults.py)."""
    from fault_loop import judge
    from io_injection import Fault

    scene = workshop.scene(name)
    chooser = random.Random(name)
    for mode in ("kill", "power cut"):
        verdict = judge(workshop, scene, Fault(chooser.randint(2, scene.calls), mode))
        assert verdict.done.fired
        assert not verdict.problems


def test_without_random_states_the_result_differs(workshop: Any) -> None:
    """The negative control: a checkpoint without its random states is refused, and if it were not, one would see it."""
    from io_injection import Fault
    from small_runs import student_digest

    from distillkit.training import checkpoints

    scene = workshop.scene("off x4", **ACCUMULATED)
    undisturbed = scene.after["run/student/final/model.safetensors"]
    # Two checkpoints are committed, the third is being written.
    third = Fault(1, "kill", match="/checkpoints/.tmp-step-3/", kinds=("write",))
    run = workshop.output / "run"
    found: dict[str, str] = {}
    required = tuple(name for name in checkpoints.REQUIRED if name != "rng_state.pth")
    for name, constants in {"refused": {}, "accepted": {"distillkit.training.checkpoints.REQUIRED": required}}.items():
        assert workshop.play(scene, third).code == -9
        newest = run / "checkpoints" / "step-2"
        content = checkpoints.read_commit(newest)
        assert content is not None
        (newest / checkpoints.COMMIT_FILE).unlink()
        (newest / "rng_state.pth").unlink()
        checkpoints.commit(newest, 2, content["fingerprint"])
        command = [word.replace("{output}", str(workshop.output)) for word in scene.command]
        done = workshop.program.run(command, constants={**scene.constants, **constants})
        assert done.code == 0, done.said
        assert ("ignored checkpoint step-2: rng_state.pth is not part of it" in done.said) == (name == "refused")
        found[name] = student_digest(run)
    assert found["refused"] == undisturbed
    assert found["accepted"] != undisturbed


def test_a_short_soak(cli_env: Any) -> None:
    """soak.py with three kills; a hundred and more are for the command line."""
    command = [sys.executable, str(Path(__file__).parent / "soak.py"), "--kills", "3", "--examples", "48"]
    done = warm_python.run(command, env=cli_env(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["kills"] == 3
    assert (found["students_that_differ"], found["temporary_files_left"]) == (0, 0)

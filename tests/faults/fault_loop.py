"""One command, one fault at every call that writes, and what has to hold afterwards."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from io_injection import Done, Fault, Program
from small_runs import SMALL_SHARDS, Scene, leftovers, make_models, prepare_command, result_of

FAILURES = tuple((mode, error) for mode in ("once", "persistent") for error in (errno.ENOSPC, errno.EIO))
SHORT: dict[str, Any] = {"sample_size": 6, "batch_size": 3, "checkpoint_interval": 1, "held_out_size": 3}
SCENES = ("prepare-data", "exact", "sparse", "off", "black", "control", "validate", "demo", "plot")


class Workshop:
    """Models, a program that can fail, and the scenes that it is to play.

    Args:
        folder: of everything; runs lie in `folder/out`, and only what happens there ever fails.
        settings: of the runs, where they are not those of `small_runs`.
    """

    def __init__(self, folder: Path, environment: dict[str, str], settings: dict[str, Any] | None = None) -> None:
        self.output = folder / "out"
        self.program = Program(folder, self.output, environment)
        self.states = folder / "states"
        self.models = make_models(folder / "models")
        self.settings = dict(settings or {})
        self._scenes: dict[str, Scene] = {}

    def scene(self, name: str, **changes: Any) -> Scene:
        """A scene by its name, see SCENES; `name` stands for `changes`."""
        if name not in self._scenes:
            scene = self._make(name, changes)
            # The undisturbed result.
            done = self.play(scene)
            assert done.code == 0, done.said
            scene.after, scene.calls = result_of(self.output), done.calls
            self._scenes[name] = scene
        return self._scenes[name]

    def _make(self, name: str, changes: dict[str, Any]) -> Scene:
        kind = name.split()[0]
        if kind == "prepare-data":
            command = prepare_command(self.models, self.output, **self.settings, **changes)
            return Scene(name, None, command)
        if kind in ("control", "validate", "demo", "plot"):
            return Scene(name, self._state_after("off"), [kind, "--run", "{output}/run"])
        settings: dict[str, Any] = {"box_type": "black"} if kind == "black" else {"teacher_cache": kind}
        if kind == "adapter":
            settings = {
                "teacher_cache": "off",
                "adapter": "lora",
                "lora_rank": 2,
                "lora_dropout": 0.1,
                "keep_adapter": True,
            }
        if kind == "tuned":
            settings = {"teacher_cache": "exact", "tune_teacher": 8}
        prepared = Scene(
            name, None, prepare_command(self.models, self.output, **{**self.settings, **settings, **changes})
        )
        done = self.play(prepared)
        assert done.code == 0, done.said
        command = ["distill", "--run", "{output}/run", "--only"]
        return Scene(name, self._keep(f"before {name}"), command, SMALL_SHARDS)

    def _state_after(self, name: str) -> Path:
        state = self.states / f"after {name}"
        if not state.exists():
            assert self.play(self.scene(name)).code == 0
            self._keep(state.name)
        return state

    def _keep(self, name: str) -> Path:
        return self.output.rename(_parent(self.states) / name)

    def play(self, scene: Scene, fault: Fault | None = None, **how: Any) -> Done:
        """The scene from its beginning."""
        return self.program.run(scene.set_up(self.output), fault, constants=scene.constants, **how)

    def again(self, scene: Scene, fault: Fault | None = None, **how: Any) -> Done:
        """The same command once more, where the last one left off."""
        command = [word.replace("{output}", str(self.output)) for word in scene.command]
        return self.program.run(command, fault, constants=scene.constants, **how)

    def differences(self, scene: Scene) -> list[str]:
        """In what the output directory is not what the undisturbed command leaves."""
        found = result_of(self.output)
        names = sorted(found.keys() | scene.after.keys())
        different = [name for name in names if found.get(name) != scene.after.get(name)]
        return different + [name for name in leftovers(self.output) if name not in different]

    def close(self) -> None:
        self.program.close()


def _parent(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@dataclass(frozen=True)
class Verdict:
    """What came of a fault.

    Attributes:
        done: the command that met it.
        problems: what is not as promised; none is good.
    """

    done: Done
    problems: tuple[str, ...]


def judge(workshop: Workshop, scene: Scene, fault: Fault) -> Verdict:
    """Play the scene with the fault, then once more without: either the command succeeds, or it fails with one clear
    line; then the same command succeeds, and what it leaves is what it always leaves."""
    done = workshop.play(scene, fault)
    problems = list(_said_badly(done, fault, workshop.output)) if done.fired else []
    if not done.fired and done.code != 0:
        problems.append(f"code {done.code} without a fault: {done.said[-300:]}")
    again = workshop.again(scene)
    if again.code != 0:
        problems.append(f"the rerun ended with {again.code}: {again.said.strip()[-400:]}")
    elif different := _unexpected(workshop.differences(scene), done):
        problems.append(f"the rerun left something else: {different[:6]}")
    if "Traceback" in again.said:
        problems.append("the rerun shows a traceback")
    return Verdict(done, tuple(f"{scene.name}, {fault} ({done.what}): {words}" for words in problems))


def _unexpected(different: list[str], done: Done) -> list[str]:
    """What the teacher wrote may not get to other runs; the run itself goes on then, and says so."""
    if "the teacher's texts are not shared with other runs" not in done.said:
        return different
    return [name for name in different if not name.startswith(".teacher-cache/")]


def _said_badly(done: Done, fault: Fault, root: Path) -> Iterator[str]:
    if fault.mode in ("kill", "power cut"):
        if done.code != -9:
            yield f"exit code {done.code} instead of being killed: {done.said[-300:]}"
        return
    if done.code not in (0, 1, 3):
        yield f"exit code {done.code}: {done.said[-300:]}"
    if "Traceback" in done.said or "this is a defect" in done.said or "Exception ignored" in done.said:
        yield f"it is no clear error: {done.said.strip()[-600:]}"
    if done.code == 0:
        return
    errors = [line for line in done.said.splitlines() if line.startswith("error:")]
    if len(errors) != 1:
        yield f"{len(errors)} errors: {done.said.strip()[-300:]}"
    elif str(root) not in errors[0]:
        yield f"it names no path: {errors[0]}"
    # torch hides the errno; where the disk is really full, the free space tells (test_full_disk.py).
    elif fault.error == errno.ENOSPC and not ("no space left" in errors[0] or "torch could not write" in errors[0]):
        yield f"it does not say that the disk is full: {errors[0]}"

"""The run directory: where things lie in it, its lock, its manifest, and the pointer to the newest run."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import filelock

from distillkit.errors import PreconditionError, UsageError
from distillkit.locks import Lock
from distillkit.run.manifest import (
    FILE_NAME,
    Manifest,
    OutputFile,
    StageRecord,
    load_manifest,
    new_manifest,
    now,
    save_manifest,
)
from distillkit.settings import declared
from distillkit.settings.paths import check_folder_name, user_path
from distillkit.settings.resolve import ResolvedConfig
from distillkit.settings.strict_yaml import dump_yaml
from distillkit.storage import (
    TEMPORARY_PREFIX,
    explained_write_errors,
    file_records,
    make_folder,
    read_json,
    records_problem,
    remove_leftovers,
    remove_tree,
    write_bytes,
)

LATEST = "latest"
LOCK = ".lock"
_HOLDER = ".lock-holder.json"
# In shapes/: the students of the race, as they are cut.
STARTS = "starts"
CONFIG_FILE = "config.yaml"
# How the inputs of a stage name the result of an earlier one.
RESULT_OF = "result of "


@dataclass
class RunDirectory:
    """One run on disk.

    Attributes:
        path: the folder.
        manifest: as last read or written; written only by the process that holds the lock.
    """

    path: Path
    manifest: Manifest

    @property
    def data(self) -> Path:
        return self.path / "data"

    @property
    def teacher(self) -> Path:
        return self.path / "teacher"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def student(self) -> Path:
        return self.path / "student"

    @property
    def plots(self) -> Path:
        return self.path / "plots"

    @property
    def tuning(self) -> Path:
        return self.path / "tune"

    @property
    def shapes(self) -> Path:
        """The race that gave the student `teacher:auto` its shape."""
        return self.path / "shapes"

    @property
    def exports(self) -> Path:
        """Where `distillkit export` puts what is given no other place."""
        return self.path / "export"

    @property
    def best_student(self) -> Path:
        """The student that the run offers: the best by held-out score, or the final one where no best is kept."""
        best = self.student / "best"
        return best if best.is_dir() else self.student / "final"

    @property
    def control(self) -> Path:
        """The training of the same student without its teacher, laid out as the run itself."""
        return self.path / "control"

    @property
    def best_control(self) -> Path | None:
        """The student of the control, chosen as `best_student` is; None where there is none of the present training."""
        record = self.record("control")
        if record is None or not record.metrics.get("made") or not self.holds("control"):
            return None
        best = self.control / "student" / "best"
        return best if best.is_dir() else self.control / "student" / "final"

    @classmethod
    def create(cls, folder: Path, resolved: ResolvedConfig) -> RunDirectory:
        """Make a new run directory with its manifest and config.yaml, and point `latest` to it.

        Raises:
            PreconditionError: something else already lies there.
            DistillkitError: it cannot be written.
        """
        check_free(folder)
        make_folder(folder)
        run = cls(folder, new_manifest(resolved))
        run.save()  # This makes it a run; `complete_creation` can do the rest later.
        run.complete_creation()
        return run

    def complete_creation(self) -> None:
        """Do what a process that was killed while it made the run left undone: config.yaml, and the pointer to the run.

        Raises:
            DistillkitError: a file cannot be written.
        """
        if not (self.path / CONFIG_FILE).exists():
            self.save_config()
        if not self.manifest.stages:
            write_bytes(self.path.parent / LATEST, (self.path.name + "\n").encode())

    def discard(self) -> None:
        """Delete the run, and point `latest` to the newest one that is left.

        Raises:
            OSError: it cannot be deleted.
            DistillkitError: `latest` cannot be written.
        """
        remove_tree(self.path)
        point_latest(self.path.parent, without=self.path)

    @classmethod
    def open(cls, folder: Path) -> RunDirectory:
        """An existing run directory.

        Raises:
            PreconditionError: there is none, or its manifest cannot be trusted.
        """
        if not folder.is_dir():
            raise PreconditionError(f"there is no run directory {folder}", hint="see: distillkit runs")
        return cls(folder, load_manifest(folder))

    def save(self) -> None:
        """Write the manifest.

        Raises:
            DistillkitError: it cannot be written.
        """
        save_manifest(self.path, self.manifest)

    def save_config(self) -> None:
        """Write config.yaml, which feeds `--config` and reproduces the run.

        Raises:
            DistillkitError: it cannot be written.
        """
        config = self.manifest.config
        # Name and path together would be refused as a conflict.
        replaced = {name for name, winner in declared.replacements().items() if config.get(winner) is not None}
        left_out = {*declared.location_names(), *replaced}
        values = {name: value for name, value in config.items() if name not in left_out}
        header = f"# distillkit {self.manifest.distillkit}: reproduces this run with  distillkit distill --config config.yaml\n"
        write_bytes(self.path / CONFIG_FILE, (header + dump_yaml(values)).encode("utf-8"))

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for this process. The system frees the lock of a process that dies.

        Raises:
            PreconditionError: another process holds it; names its pid, host and age.
        """
        lock = Lock(self.path / LOCK)
        holder = self.path / _HOLDER
        with explained_write_errors(self.path / LOCK):
            try:
                lock.acquire(0)
            except filelock.Timeout as error:  # an OSError too, hence inside
                raise PreconditionError(
                    f"{self.path} is in use by {describe_holder(self.path)}", hint=unlock_hint(lock)
                ) from error
        try:
            content = {"pid": os.getpid(), "host": socket.gethostname(), "since": now()}
            write_bytes(holder, json.dumps(content).encode())
            # Another process may have changed the manifest between our reading it and our getting the lock.
            self.manifest = load_manifest(self.path)
            yield
        finally:
            # The file only names the holder of the lock: left behind, it misleads nobody, and must not hide another error.
            with contextlib.suppress(OSError):
                holder.unlink(missing_ok=True)
            lock.release()

    def tidy(self) -> list[Path]:
        """Delete what an earlier attempt was writing when it was cut off. Only for the holder of the lock.

        Returns:
            What was deleted.

        Raises:
            DistillkitError: it cannot be deleted.
        """
        control = (self.control, self.control / "checkpoints", self.control / "student")
        own = (self.path, self.teacher, self.teacher / "checkpoints", self.checkpoints, self.student, self.plots)
        folders = (*own, self.exports, self.tuning, self.shapes, self.shapes / STARTS, *control)
        return [path for folder in folders for path in remove_leftovers(folder)]

    def record(self, stage: str) -> StageRecord | None:
        """What the manifest says of a stage; None where it has never run."""
        return self.manifest.stages.get(stage)

    def holds(self, stage: str) -> bool:
        """Whether a stage is complete and was made from the results of earlier stages that are there now."""
        record = self.record(stage)
        if record is None or record.status != "complete":
            return False
        read = {
            name.removeprefix(RESULT_OF): value for name, value in record.inputs.items() if name.startswith(RESULT_OF)
        }
        return all(value == self.result_fingerprint(earlier) for earlier, value in read.items())

    def result_fingerprint(self, stage: str) -> str:
        """What stands for the result of a stage among the inputs of a later one."""
        record = self.record(stage)
        return record.fingerprint() if record else "missing"

    def begin_stage(self, stage: str, inputs: Mapping[str, str], *, from_scratch: bool = False) -> float:
        """Record that a stage runs, from these inputs.

        Args:
            from_scratch: nothing is left of an earlier attempt.

        Returns:
            Seconds that earlier attempts took, as far as they were recorded: they count for a stage that goes on.

        Raises:
            DistillkitError: the manifest cannot be written.
        """
        before = self.record(stage)
        seconds = 0.0 if before is None or from_scratch else before.unfinished_seconds
        metrics = {"seconds": seconds} if seconds else {}
        self.manifest.stages[stage] = StageRecord(status="running", started=now(), inputs=dict(inputs), metrics=metrics)
        self.save()
        return seconds

    def finish_stage(self, stage: str, outputs: list[Path], metrics: Mapping[str, Any]) -> None:
        """Record that a stage is complete, with the files it wrote.

        Raises:
            OSError: one of the files cannot be read.
            DistillkitError: the manifest cannot be written.
        """
        record = self.manifest.stages[stage]
        record.status, record.finished, record.error = "complete", now(), None
        record.outputs = [OutputFile(**item) for item in file_records(self.path, outputs)]
        record.metrics = dict(metrics)
        self.save()

    def fail_stage(self, stage: str, error: str, seconds: float) -> None:
        """Record that a stage did not get to its end.

        Args:
            seconds: that this attempt and those before it took.

        Raises:
            DistillkitError: the manifest cannot be written.
        """
        record = self.manifest.stages[stage]
        record.status, record.finished, record.error = "failed", now(), error
        record.metrics = {"seconds": round(seconds, 3)}
        self.save()

    def output_problem(self, stage: str) -> str | None:
        """What is wrong with the recorded files of a stage, as a clause, or None."""
        record = self.record(stage)
        return records_problem(self.path, [output.model_dump() for output in record.outputs]) if record else None

    def read_output(self, stage: str, name: str) -> dict[str, Any]:
        """The content of a JSON file of a stage; {} where there is none.

        Raises:
            PreconditionError: the file is not as the stage wrote it.
        """
        path, record = self.path / name, self.record(stage)
        own = [output.model_dump() for output in record.outputs if output.path == name] if record else []
        problem = records_problem(self.path, own) if path.is_file() else None
        try:
            content = read_json(path) if path.is_file() else {}
        except (OSError, ValueError) as error:
            problem, content = problem or str(error), {}
        if problem is not None or not isinstance(content, dict):
            error = PreconditionError(
                f"{path} is damaged: {problem or 'it is no JSON object'}",
                hint=f"make it again: distillkit {stage} --run {shlex.quote(str(self.path))} --force",
            )
            error.next_command = f"distillkit {stage} --run {shlex.quote(str(self.path))} --force"
            raise error
        return content


def check_free(folder: Path) -> None:
    """Refuse a folder in which a new run cannot be made: what a process left that was killed while it made one is no obstacle.

    Raises:
        PreconditionError: something else already lies there.
    """
    leftovers = folder.is_dir() and all(path.name.startswith(TEMPORARY_PREFIX) for path in folder.iterdir())
    if folder.is_symlink() or (folder.exists() and not leftovers):
        raise PreconditionError(
            f"{folder} already exists and is not a run of this program", hint="choose another --folder-name"
        )


def unlock_hint(lock: Lock) -> str:
    """What to do about a run that somebody holds."""
    usual = "wait for it, or stop it"
    if not lock.holder_file.exists():
        return usual
    return f"{usual}; if it ran on another machine and is gone, remove {lock.holder_file}"


def describe_holder(folder: Path) -> str:
    """Who holds the lock of a run."""
    try:
        content = json.loads((folder / _HOLDER).read_text())
        age = datetime.now(timezone.utc) - datetime.fromisoformat(content["since"])
        return f"process {content['pid']} on {content['host']}, for {int(age.total_seconds())} s"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def find_run(run: str | None, output_dir: Path, *, named_by: str = "--run") -> RunDirectory:
    """The run that `--run` names: a folder, a name below `output_dir`, or None for the newest one.

    Args:
        named_by: the flag or command that named it, for errors.

    Raises:
        PreconditionError: there is none, or it cannot be trusted.
        UsageError: `run` names nothing that exists.
    """
    if run is None:
        pointer = output_dir / LATEST
        if not pointer.is_file():
            raise PreconditionError(
                f"there is no run in {output_dir} yet", hint="start one: distillkit distill, or name one with --run DIR"
            )
        name = pointer.read_text(encoding="utf-8", errors="replace").strip()
        try:
            return RunDirectory.open(output_dir / check_folder_name(name))
        except UsageError as error:
            raise PreconditionError(
                f"{pointer} is corrupt: {error.message}", hint="name the run with --run DIR"
            ) from error
    direct = user_path(run, named_by)
    if not (direct / FILE_NAME).exists() and (output_dir / run / FILE_NAME).exists():
        direct = output_dir / run
    if not direct.exists():
        raise UsageError(f"{named_by}: {run!r} does not exist", hint=f"see: {list_command(output_dir)}")
    return RunDirectory.open(direct)


def list_command(output_dir: Path) -> str:
    """The command that lists the runs of a folder."""
    usual = output_dir == Path(declared.default("output_dir"))
    return "distillkit runs" if usual else f"distillkit runs --output-dir {shlex.quote(str(output_dir))}"


def point_latest(output_dir: Path, *, without: Path) -> None:
    """Let `latest` name the newest run but `without`, if it names that one, or nothing that is there.

    Raises:
        OSError: it cannot be read or deleted.
        DistillkitError: it cannot be written.
    """
    pointer = output_dir / LATEST
    others = [folder for folder in list_runs(output_dir) if folder.name != without.name]
    named = pointer.read_text(encoding="utf-8", errors="replace").strip() if pointer.is_file() else ""
    if named in {folder.name for folder in others}:
        return
    if others:
        write_bytes(pointer, (others[-1].name + "\n").encode())
    else:
        pointer.unlink(missing_ok=True)


def list_runs(output_dir: Path) -> list[Path]:
    """Every run directory below `output_dir`, oldest first."""
    runs = [
        path.parent
        for path in output_dir.glob(f"*/{FILE_NAME}")
        if not path.parent.is_symlink() and not path.parent.name.startswith(TEMPORARY_PREFIX)
    ]
    return sorted(runs, key=lambda folder: (folder / FILE_NAME).stat().st_mtime)

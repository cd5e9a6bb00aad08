"""What `runs` does: the list of runs, all of one, the removal of some."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distillkit.console import Console, format_bytes, format_duration
from distillkit.durability import weaknesses_reported
from distillkit.errors import PreconditionError, UsageError
from distillkit.pipeline.opening import continue_command
from distillkit.run.directory import LATEST, find_run, list_runs
from distillkit.run.overview import RunOverview
from distillkit.run.removal import finish_removals, held, remove_run, run_folder, unfinished_removals
from distillkit.settings.paths import user_path
from distillkit.storage import bytes_below


def run_runs(action: str | None, names: Sequence[str], output_dir: str, console: Console, *, sure: bool) -> None:
    """`distillkit runs [show RUN | rm RUN…]`.

    Args:
        sure: remove without asking.

    Raises:
        UsageError: no such action or run; nobody can be asked.
        PreconditionError: a run cannot be read, or is in use.
        DistillkitError: a run cannot be deleted.
    """
    folder = user_path(output_dir, "--output-dir")
    if action is None:
        _list(folder, output_dir, console)
    elif action == "show":
        if len(names) != 1:
            raise UsageError("runs show: name one run", hint="use: distillkit runs show RUN; see: distillkit runs")
        _show(names[0], folder, output_dir, console)
    elif action == "rm":
        _remove(names, folder, output_dir, console, sure=sure)
    else:
        raise UsageError(f"runs: {action!r} is not an action", hint="use: distillkit runs show RUN, or runs rm RUN")


# --- the list ---------------------------------------------------------------------------------------------------------


def _list(folder: Path, output_dir: str, console: Console) -> None:
    found = [RunOverview.of(path) for path in list_runs(folder)]
    columns = [
        console.say(key)
        for key in (
            "compare.run", "plan.training", "result.bits_per_byte", "runs.share", "plan.teacher", "runs.size", "plan.time",
        )
    ]  # fmt: skip
    rows = [_row(one, console) for one in found]
    title = console.say("runs.title", folder=output_dir)
    if not found:
        console.info(console.say("runs.none", folder=output_dir))
    elif _width(columns, rows) <= console.width:
        console.table(title, columns, rows, numeric=(3, 5, 6), to_stdout=True)
    else:
        # A table whose cells are folded cannot be read, nor a name in it be copied.
        console.data(title)
        for one in found:
            console.data(f"\n{one.folder.name}")
            for line in _lines(one, console):
                console.prose(f"  {line}")
    if left := unfinished_removals(folder):
        size = format_bytes(sum(map(bytes_below, left)))
        console.info(console.say("runs.left", size=size, command=_remove_command(output_dir)))
    console.json({"output_dir": output_dir, "runs": [one.as_dict() for one in found]})


def _row(one: RunOverview, console: Console) -> list[str]:
    state = console.say(f"runs.state.{one.status}")
    if one.result is None:
        return [one.folder.name, state, one.error, "", "", format_bytes(one.disk_bytes), ""]
    return [
        one.folder.name, state, one.result.score_change(console.lang), _share(one), one.short_teacher,
        format_bytes(one.disk_bytes), _time(one),
    ]  # fmt: skip


def _lines(one: RunOverview, console: Console) -> list[str]:
    """The same below one another."""
    state = console.say(f"runs.state.{one.status}")
    if one.result is None or one.run is None:
        return [f"{state}: {one.error}", format_bytes(one.disk_bytes)]
    score = one.result.score_change(console.lang)
    made = one.run.manifest.created.replace("T", " ").partition("+")[0]
    said = (
        (
            f"{console.say('plan.training')}: {state}",
            f"{score} {console.say('result.bits_per_byte')}" if score else console.say("runs.not_measured"),
            f"{console.say('runs.share')}: {_share(one)}" if _share(one) else "",
        ),
        (
            f"{console.say('plan.teacher')}: {one.short_teacher}" if one.short_teacher else "",
            format_bytes(one.disk_bytes), _time(one), console.say("runs.made", when=made),
        ),
    )  # fmt: skip
    return [", ".join(filter(None, parts)) for parts in said]


def _share(one: RunOverview) -> str:
    return "" if one.teacher_share is None else f"{one.teacher_share:+.3f}"


def _time(one: RunOverview) -> str:
    return "" if one.seconds is None else format_duration(one.seconds)


def _width(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """Columns of the terminal that a table takes where no cell is folded."""
    widest = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    return sum(widest) + 2 * (len(widest) - 1)


# --- one run ----------------------------------------------------------------------------------------------------------


def _show(name: str, folder: Path, output_dir: str, console: Console) -> None:
    from distillkit.cli.commands import show_result

    run = find_run(None if name == LATEST else name, folder, named_by="runs show")
    one = RunOverview.of(run.path)
    if one.run is None:
        raise PreconditionError(one.error, hint=f"remove it: {_remove_command(output_dir, run.path.name)}")
    manifest = one.run.manifest
    about = [
        ("runs.folder", run.path), ("runs.when", f"{manifest.created}, distillkit {manifest.distillkit}"),
        ("plan.teacher", one.model("teacher")), ("plan.student", one.model("student")),
        ("plan.texts", one.config.get("dataset_path") or one.config.get("mix") or one.config.get("dataset")),
        ("runs.box", one.config.get("box_type")), ("env.device", manifest.device.get("name")),
    ]  # fmt: skip
    title = console.say("runs.run", name=run.path.name)
    console.table(title, ["", ""], [[console.say(key), value] for key, value in about if value], to_stdout=True)
    changed = one.changed_settings()
    if changed:
        columns = [console.say("start.parameter"), console.say("start.value")]
        console.table(console.say("runs.settings"), columns, list(changed.items()), to_stdout=True)
    stages = [
        [stage, console.say(f"runs.state.{record.status}"), _stage_time(one, stage), record.error or ""]
        for stage, record in manifest.stages.items()
    ]
    if stages:
        keys = ["plan.stage", "runs.state", "plan.time", "runs.error"]
        columns = [console.say(key) for key in keys[: 4 if any(row[3] for row in stages) else 3]]
        rows = [row[: len(columns)] for row in stages]
        console.table(console.say("plan.stages"), columns, rows, numeric=(2,), to_stdout=True)
    disk = disk_use(run.path)
    named = [[console.say("runs.files") if part == "files" else part, size] for part, size in disk.items()]
    rows = [[part, format_bytes(size)] for part, size in [*named, (console.say("runs.all"), one.disk_bytes)]]
    console.table(console.say("runs.disk"), ["", ""], rows, numeric=(1,), to_stdout=True)
    show_result(one.run, console)
    if one.status != "complete":
        console.data(console.say("runs.continue", command=continue_command(one.run)))
    more = {
        "settings": changed,
        "stages": {
            stage: {"status": record.status, "seconds": one.stage_seconds.get(stage), "error": record.error}
            for stage, record in manifest.stages.items()
        },
        "disk": disk,
    }
    console.json({"output_dir": output_dir, "run": {**one.as_dict(), **more}})


def _stage_time(one: RunOverview, stage: str) -> str:
    seconds = one.stage_seconds.get(stage)
    return "" if seconds is None else format_duration(seconds)


def disk_use(folder: Path) -> dict[str, int]:
    """Folder of a run to the bytes of its files, the largest first; the files beside them are `files`."""
    found = {path.name: bytes_below(path) for path in folder.iterdir() if path.is_dir() and not path.is_symlink()}
    found["files"] = sum(path.lstat().st_size for path in folder.iterdir() if path.is_file() and not path.is_symlink())
    return dict(sorted(((name, size) for name, size in found.items() if size), key=lambda item: -item[1]))


# --- removal ----------------------------------------------------------------------------------------------------------


def _remove(names: Sequence[str], folder: Path, output_dir: str, console: Console, *, sure: bool) -> None:
    left = unfinished_removals(folder)
    if not names and not left:
        raise UsageError("runs rm: name the runs to remove", hint="use: distillkit runs rm RUN…; see: distillkit runs")
    chosen = list(dict.fromkeys(run_folder(name, folder) for name in names))
    removed: list[dict[str, Any]] = []
    with weaknesses_reported(console.warn):
        with held(chosen):
            sizes = [bytes_below(path) for path in chosen]
            if chosen and not sure and not _agreed(chosen, sizes, output_dir, console):
                console.info(console.say("runs.kept"))
                chosen = []
            for path, size in zip(chosen, sizes, strict=False):
                remove_run(path)
                removed.append({"run": str(path), "disk_bytes": size})
                console.info(console.say("runs.removed", name=path.name, size=format_bytes(size)))
        finished = finish_removals(folder)
    if finished:
        console.info(console.say("runs.finished"))
    console.json({"output_dir": output_dir, "removed": removed, "finished": [str(path) for path in finished]})


def _agreed(chosen: Sequence[Path], sizes: Sequence[int], output_dir: str, console: Console) -> bool:
    names = [path.name for path in chosen]
    if not console.can_ask:
        raise UsageError(
            "runs rm: nobody is there to be asked, and nothing is removed without that",
            hint=f"if you are sure: {_remove_command(output_dir, *names, '--yes')}",
        )
    for name, size in zip(names, sizes, strict=True):
        console.plain(f"{name}, {format_bytes(size)}")
    return console.confirmed(console.say("runs.sure" if len(names) == 1 else "runs.sure_of", count=len(names)))


def _remove_command(output_dir: str, *words: str) -> str:
    return shlex.join(["distillkit", "runs", "rm", *words, "--output-dir", output_dir])

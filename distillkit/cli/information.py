"""The subcommands that only inform (parameters, presets, teacher caches), and the pruning of caches."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timezone

from distillkit.console import Console, format_bytes
from distillkit.errors import UsageError
from distillkit.settings import declared
from distillkit.settings.paths import user_path
from distillkit.teachers.cache_entries import FOLDER as CACHE_FOLDER
from distillkit.teachers.cache_entries import CacheEntry, delete_cache, list_caches


def show_params(name: str | None, console: Console) -> None:
    """`distillkit params [NAME]`."""
    from distillkit.cli import parameter_pages
    from distillkit.settings.resolve import check_known_name

    lang = console.lang
    if name is None:
        names = list(declared.fields())
        columns = ["flag", "default", "range", "what"] if lang == "en" else ["флаг", "умолчание", "диапазон", "что это"]
        console.table("distillkit", columns, parameter_pages.overview_rows(lang), to_stdout=True)
    else:
        name = name.lstrip("-").replace("-", "_")
        check_known_name(name, "params")
        names = [name]
        console.data(parameter_pages.describe(name, lang))
    console.json({"parameters": {item: parameter_pages.as_json(item, lang) for item in names}})


def show_presets(action: str | None, name: str | None, console: Console) -> None:
    """`distillkit presets [show NAME]`."""
    from distillkit.settings.presets import describe_preset, preset_names, preset_path, read_preset

    if action is None:
        rows = [(preset, describe_preset(preset)) for preset in preset_names()]
        console.table("Presets", ["preset", "what it is for"], rows, to_stdout=True)
        console.json({"presets": {preset: read_preset(preset) for preset in preset_names()}})
        return
    if action != "show" or name is None:
        raise UsageError(f"presets: {action!r} is not an action", hint="use: distillkit presets show NAME")
    console.data(preset_path(name).read_text(encoding="utf-8").rstrip("\n"))
    console.json({"preset": name, "values": read_preset(name)})


@dataclass(frozen=True)
class PruneChoice:
    """Which caches `distillkit cache prune` deletes.

    Attributes:
        names: these.
        everything: all of them.
        unused_days: those not used for so many days.
    """

    names: tuple[str, ...] = ()
    everything: bool = False
    unused_days: float | None = None


def show_caches(action: str | None, choice: PruneChoice, output_dir: str, console: Console) -> None:
    """`distillkit cache [prune …]`."""
    entries = list_caches(user_path(output_dir, "--output-dir") / CACHE_FOLDER)
    if action not in (None, "prune"):
        raise UsageError(f"cache: {action!r} is not an action", hint="use: distillkit cache prune NAME")
    if action is None and choice != PruneChoice():
        raise UsageError("cache: nothing is deleted without `prune`", hint="use: distillkit cache prune …")
    if action == "prune":
        entries = _prune(entries, choice, output_dir, console)
    elif not entries:
        console.info(f"no teacher caches in {output_dir}")
    else:
        rows = [
            (
                entry.folder.name,
                entry.teacher,
                entry.kind,
                f"{entry.tokens:,}",
                format_bytes(entry.bytes),
                _moment(entry.used),
            )
            for entry in entries
        ]
        columns = ["cache", "teacher", "kind", "tokens", "size", "last used"]
        console.table(f"Teacher caches in {output_dir}", columns, rows, numeric=(3, 4), to_stdout=True)
    objects = [
        {"cache": entry.folder.name, "teacher": entry.teacher, "kind": entry.kind, "tokens": entry.tokens, "bytes": entry.bytes,
         "last_used": _moment(entry.used)}
        for entry in entries
    ]  # fmt: skip
    console.json({"output_dir": output_dir, "deleted" if action else "caches": objects})


def _prune(entries: list[CacheEntry], choice: PruneChoice, output_dir: str, console: Console) -> list[CacheEntry]:
    if sum((bool(choice.names), choice.everything, choice.unused_days is not None)) != 1:
        raise UsageError(
            "cache prune: say which caches",
            hint="give their names, or --all, or --unused-days DAYS; see: distillkit cache",
        )
    unknown = set(choice.names) - {entry.folder.name for entry in entries}
    if unknown:
        raise UsageError(f"there is no cache {min(unknown)!r} in {output_dir}", hint="see: distillkit cache")
    oldest = time.time() - 86400 * (choice.unused_days or 0)
    chosen = [
        entry
        for entry in entries
        if choice.everything
        or entry.folder.name in choice.names
        or (choice.unused_days is not None and entry.used <= oldest)
    ]
    for entry in chosen:
        delete_cache(entry)
    freed = format_bytes(sum(entry.bytes for entry in chosen))
    console.info(f"deleted {len(chosen)} teacher cache{'' if len(chosen) == 1 else 's'}, {freed}")
    return chosen


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, tz=timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")

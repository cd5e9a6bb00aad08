"""The `configs` of a data card: which files of a folder are which split, as the front matter of its README.md says.

The format is that of `datasets` ("Manual Configuration" in the Hub's documentation on data files). Names are matched with
files that are there: nothing is fetched and no code is run.
"""

from __future__ import annotations

import fnmatch
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from distillkit.data.split_names import BY_WEIGHT, SplitFiles, assign_splits, divide, split_word
from distillkit.errors import UsageError

CARD = "README.md"
_FRONT_MATTER = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)^---[ \t]*\r?$", re.DOTALL | re.MULTILINE)
_MOST_BYTES = 1 << 20
_NAMED = 12


@dataclass(frozen=True)
class CardConfig:
    """One configuration of a data card.

    Attributes:
        name: as `load_dataset` takes it.
        splits: split -> patterns, relative to the folder; None where it names a folder only.
        folder: where its files are, "" for the card's own.
        is_default: whether the card says that it is the one to read.
    """

    name: str
    splits: Mapping[str, Sequence[str]] | None
    folder: str
    is_default: bool


def read_card(path: Path) -> list[CardConfig]:
    """The configurations that a card declares; none where it declares none.

    Raises:
        UsageError: its front matter declares some, but not in the form that is known.
    """
    try:
        with path.open("rb") as stream:
            text = stream.read(_MOST_BYTES).decode("utf-8", "replace")
    except OSError:
        return []
    match = _FRONT_MATTER.match(text)
    if match is None or "configs" not in match[1]:
        return []
    try:
        content = yaml.safe_load(match[1])
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _malformed("its front matter is not valid YAML") from error
    declared = content.get("configs") if isinstance(content, dict) else None
    if declared is None:
        return []
    if not isinstance(declared, list) or not all(isinstance(entry, dict) for entry in declared):
        raise _malformed("`configs` is not a list of configurations")
    return [_config(entry) for entry in declared]


def _malformed(what: str) -> UsageError:
    return UsageError(f"{CARD}: {what}", hint="mend it, or give the files themselves with --dataset-path")


def _config(entry: Mapping[str, Any]) -> CardConfig:
    name = str(entry.get("config_name", "default"))
    folder = str(entry.get("data_dir") or "").strip("/").removeprefix("./")
    patterns = entry.get("data_files")
    splits: dict[str, list[str]] | None = None
    if patterns is not None:
        # A list of {split, path}, or patterns without splits, which are all to train on.
        items = patterns if isinstance(patterns, list) else [patterns]
        splits = {}
        for item in items:
            split, paths = (item.get("split", "train"), item.get("path")) if isinstance(item, dict) else ("train", item)
            group: list[Any] = paths if isinstance(paths, list) else [paths]
            if not group or not all(isinstance(path, str) and path for path in group):
                raise _malformed(f"`data_files` of the configuration '{name}' are not paths")
            splits.setdefault(str(split), []).extend(group)
    return CardConfig(name, splits, "" if folder == "." else folder, entry.get("default") is True)


def choose_config(configs: Sequence[CardConfig], wanted: str | None, where: str) -> CardConfig:
    """The configuration to read: `wanted`, the only one, or the default one.

    Args:
        where: the folder, for messages.

    Raises:
        UsageError: there is none of that name, or it is not clear which one is meant.
    """
    named = [config for config in configs if config.name == wanted]
    defaults = [config for config in configs if config.is_default or config.name == "default"]
    if wanted is None and (len(configs) == 1 or len(defaults) == 1):
        return configs[0] if len(configs) == 1 else defaults[0]
    if named:
        return named[0]
    names = [config.name for config in configs]
    listed = ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")
    if wanted is not None:
        raise UsageError(f"{where}: no configuration '{wanted}'; its {CARD} declares: {listed}")
    raise UsageError(
        f"{where}: its {CARD} declares {len(names)} configurations ({listed})",
        hint=f"choose one: --dataset-path {shlex.quote(f'{where}:{names[0]}')}",
    )


def config_files(config: CardConfig, names: Sequence[str], containers: Mapping[str, str]) -> SplitFiles:
    """The files of a configuration by split.

    Args:
        names: the files that can be read, "/" between folders.
        containers: for files inside an archive, the archive's own name.

    Raises:
        UsageError: none of its files is there.
    """
    if config.splits is None:
        return assign_splits([name for name in names if not config.folder or name.startswith(f"{config.folder}/")])
    by_split: dict[str, list[str]] = {}
    taken: set[str] = set()
    # What judges more comes first: where `train: "*"` matches the test file too, it is not trained on.
    for split, patterns in sorted(
        config.splits.items(), key=lambda item: BY_WEIGHT.index(split_word(item[0]) or "train")
    ):
        matchers = [_matcher(pattern, config.folder) for pattern in patterns]
        found = [name for name in names if any(fits(name) or fits(containers.get(name, name)) for fits in matchers)]
        by_split[split] = [name for name in found if name not in taken]
        taken.update(found)
    if not taken:
        wanted = ", ".join(pattern for patterns in config.splits.values() for pattern in patterns)
        raise UsageError(
            f"{CARD}: none of the files of its configuration '{config.name}' is here in a format that is read ({wanted})",
            hint="fetch them, or give other files with --dataset-path",
        )
    ours: dict[str, list[str]] = {}
    others: list[str] = []
    for split, found in by_split.items():
        word = split_word(split)
        (ours.setdefault(word, []) if word else others).extend(found)
    result = divide({split: files for split, files in ours.items() if files}, others)
    absent = [split for split, found in by_split.items() if not found]
    if absent:
        result.remarks.append(f"{CARD} names splits whose files are not here: {', '.join(absent)}")
    result.left_out = [name for name in names if not any(name in group for group in result.splits.values())]
    return result


def _matcher(pattern: str, folder: str) -> Callable[[str], bool]:
    """Whether a name fits a pattern of a card, as fsspec has it: `*` within a folder, `**` across folders.

    It takes time in proportion to the lengths of both, whatever a card may hold.
    """
    if "://" in pattern or "::" in pattern or PurePosixPath(pattern).is_absolute() or ".." in pattern.split("/"):
        raise _malformed(f"'{pattern}' is not in its folder, and only files there are read")
    parts = [part for part in f"{folder}/{pattern}".split("/") if part not in ("", ".")]
    expressions = [None if part == "**" else re.compile(fnmatch.translate(part)) for part in parts]

    def fits(name: str) -> bool:
        # Which beginnings of the pattern fit what has been seen of the name.
        reached = _after_stars({0}, parts)
        for part in name.split("/"):
            stay = {at for at in reached if at < len(parts) and parts[at] == "**"}
            go_on = {
                at + 1
                for at in reached
                if at < len(parts) and (expression := expressions[at]) is not None and expression.match(part)
            }
            reached = _after_stars(stay | go_on, parts)
        return len(parts) in reached

    return fits


def _after_stars(reached: set[int], parts: Sequence[str]) -> set[int]:
    """With the places behind each `**`, which may stand for no folder at all."""
    found = set(reached)
    for at in range(len(parts)):
        if at in found and parts[at] == "**":
            found.add(at + 1)
    return found

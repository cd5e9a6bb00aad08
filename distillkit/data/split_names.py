"""Which split a data file belongs to, by the names of the file and of the folders it lies in.

The names are those that `datasets` knows, parted from the rest of a name as it parts them ("data files configuration" in its
documentation; `datasets.data_files.SPLIT_KEYWORDS`). Unlike there, what is held out wins where a path names two splits, so
that nothing called "test" is ever trained on; and files that are not named after a split are not lost where all that is
called after one is a title.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from distillkit.data.compression import strip_packing
from distillkit.data.standard_sets import SPLITS

_KEYWORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
# "testset.csv" and "test_set.csv" mean the same.
_SPLIT_OF = {word + more: split for split, words in _KEYWORDS.items() for word in words for more in ("", "set", "data")}
# What judges more wins: test, then validation, then train.
BY_WEIGHT = ("test", "validation", "train")
_RUNNING_TEXT = (".txt", ".text", ".md", ".markdown")
# Letters: digits part words too, and so does a capital letter after a small one ("WikiTest").
_WORD = re.compile(r"[^\W\d_]+")
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")
# The "-00000-of-00001" of "train-00000-of-00001.parquet" is part of no name.
_SHARD = re.compile(r"[-_.]?\d+[-_]of[-_]\d+")


@dataclass(frozen=True)
class _Label:
    """What a path says of its split.

    Attributes:
        whole: whether a folder or the file is called just like the split ("test-00000-of-00001.parquet", "dev/").
        rest: the name without the word ("wiki" of "wiki.test.txt"), which other splits of the same set share.
    """

    split: str
    whole: bool
    rest: str


@dataclass
class SplitFiles:
    """Files by split.

    Attributes:
        splits: {"all": …} where names tell nothing, otherwise some of "train", "validation", "test"; names in the given order.
        left_out: files that belong to no split, where others do.
        remarks: what the user should know.
    """

    splits: dict[str, list[str]]
    left_out: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def split_word(name: str) -> str | None:
    """The split that a name contains as a word of its own ("train_sft" -> "train"); None if there is none."""
    found = {_SPLIT_OF[word] for word in _words(name) if word in _SPLIT_OF}
    return next((split for split in BY_WEIGHT if split in found), None)


def assign_splits(names: Sequence[str]) -> SplitFiles:
    """Divide files by their names.

    Args:
        names: paths below the folder of the data, "/" between folders.
    """
    labels = {name: _label(name) for name in names}
    labels = _without_titles(labels)
    by_split: dict[str, list[str]] = {}
    others: list[str] = []
    for name, label in labels.items():
        if label is not None:
            by_split.setdefault(label.split, []).append(name)
        else:
            others.append(name)
    titles = [name for name in others if split_word(name) in ("validation", "test")]
    found = divide(by_split, others)
    if {*titles} & {*found.splits.get("all", ()), *found.splits.get("train", ())}:
        found.remarks.append(
            f"{_some(titles)}: not taken for a split, because it looks like a title among {len(names):,} texts; to hold "
            "a file out, call it test.txt and the others train.txt, or put them into folders of these names"
        )
    return found


def divide(by_split: Mapping[str, list[str]], others: list[str]) -> SplitFiles:
    """Files whose split is known and others -> what is trained on and what is held out.

    Args:
        by_split: names by "train", "validation", "test"; none of the lists is empty.
        others: names of files that belong to none of them.
    """
    held_out = {split: list(by_split[split]) for split in SPLITS if split != "train" and split in by_split}
    train = list(by_split.get("train", ()))
    if not held_out:
        formats = {_format(name) for name in train}
        # Notes beside train.jsonl are something else; stories beside training.txt are more of the same.
        left_out = [name for name in others if train and _format(name) not in formats]
        every = sorted({*train, *others} - {*left_out})
        mixed = bool(train) and len(every) > len(train)
        remark = (
            f"no file is named after a held-out split: {len(every):,} files are read together, {train[0]} like the others"
            if mixed
            else ""
        )
        return SplitFiles({"all": every}, left_out, [remark] if mixed else [])
    if train:
        return SplitFiles({"train": train, **held_out}, others)
    if others:
        remark = (
            f"no file is named after the split train: what is not named after another one is ({len(others):,} files)"
        )
        return SplitFiles({"train": others, **held_out}, remarks=[remark])
    every = [name for group in held_out.values() for name in group]
    named = " and ".join(held_out)
    remark = f"there is nothing but the split {named}: it is trained on, and a part of it is held out"
    return SplitFiles({"all": sorted(every)}, remarks=[remark])


def describe_splits(found: SplitFiles) -> str:
    """`train: 1 file (train.jsonl), test: 2 files (test-1.jsonl, …)`."""
    return ", ".join(
        f"{split}: {len(names):,} file{'s' if len(names) != 1 else ''} ({names[0]}{', …' if len(names) > 1 else ''})"
        for split, names in found.splits.items()
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3:,} more" if len(names) > 3 else "")


def _format(name: str) -> str:
    return "." + strip_packing(name).lower().rsplit(".", 1)[-1]


def _label(name: str) -> _Label | None:
    *folders, file = name.split("/")
    stem = strip_packing(file)
    parts = [*folders, stem.rsplit(".", 1)[0] if "." in stem.strip(".") else stem]
    labels = [_part_label(part, "/".join(parts[:depth])) for depth, part in enumerate(parts)]
    for split in BY_WEIGHT:
        own = [label for label in labels if label is not None and label.split == split]
        if own:
            return _Label(split, any(label.whole for label in own), own[-1].rest)
    return None


def _part_label(part: str, above: str) -> _Label | None:
    """What a folder or a file without suffix says; `above`: the folders it lies in."""
    part = _SHARD.sub("", strip_packing(part))
    split = split_word(part)
    if split is None:
        return None
    rest = [word for word in _words(part) if _SPLIT_OF.get(word) != split]
    return _Label(split, not rest, f"{above}/{' '.join(rest)}")


def _words(name: str) -> list[str]:
    return _WORD.findall(_HUMP.sub(" ", name).lower())


def _without_titles(labels: Mapping[str, _Label | None]) -> dict[str, _Label | None]:
    """The labels without those of running text that are words of a title: "the-test-of-time.txt" among many stories."""
    found = {name: label for name, label in labels.items() if label is not None}
    others = [name for name, label in labels.items() if label is None]
    if len(others) <= len(found) or any(_format(name) not in _RUNNING_TEXT for name in found):
        return dict(labels)
    partners = Counter(rest for rest, _ in {(label.rest, label.split) for label in found.values()})
    plain = {_stem_words(name) for name in others}
    return {
        name: label if label is None or label.whole or partners[label.rest] > 1 or label.rest in plain else None
        for name, label in labels.items()
    }


def _stem_words(name: str) -> str:
    above, _, file = name.rpartition("/")
    return f"{above}/{' '.join(_words(strip_packing(file).rsplit('.', 1)[0]))}"

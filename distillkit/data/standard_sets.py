"""The data sets that have a name of their own, and what a user's configuration adds to them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from distillkit.errors import UsageError
from distillkit.settings.parameters import Parameters

PYTHON_DOCS = "python-docs"
PYTHON_CHAT = "python-chat"
BUILT_IN = (PYTHON_DOCS, PYTHON_CHAT)
"""The data sets that come with Python."""

SPLITS = ("train", "validation", "test")

_HUB_REFERENCE = re.compile(
    r"(?P<id>[A-Za-z0-9][\w.-]*(?:/[\w.-]+)?)(?::(?P<config>[\w.+-]+))?(?:@(?P<revision>[\w./-]+))?", re.ASCII
)


@dataclass(frozen=True)
class DatasetEntry:
    """Where a data set lies on the Hub, and what of it is read.

    Attributes:
        id: the Hub id.
        config: its configuration ("subset"), None for the default one.
        column: the column with the text; None: the one named `text`, else the only one that is prose.
        splits: ours -> theirs, where theirs are not called train, validation and test.
        revision: branch, tag or commit; None for the main branch.
        articles: rows are the lines of articles, whose titles and headings look like ` = Title = `: headings are no
            text, and the rows of one article make one document.
    """

    id: str
    config: str | None = None
    column: str | None = None
    splits: Mapping[str, str] | None = None
    revision: str | None = None
    articles: bool = False

    def reference(self) -> str:
        """`id:config@revision`, as one can write it for `--dataset`."""
        config = f":{self.config}" if self.config else ""
        return f"{self.id}{config}" + (f"@{self.revision}" if self.revision else "")


STANDARD_SETS: Mapping[str, DatasetEntry] = {
    "wikitext": DatasetEntry("Salesforce/wikitext", config="wikitext-2-raw-v1", column="text", articles=True),
    # Its one Parquet file is 118 MB of pictures; only the column with the text is ever asked for.
    "pokemon": DatasetEntry("wanghaofan/pokemon-wiki-captions", column="text_en"),
}


def built_in(config: Parameters) -> str | None:
    """The data set that comes with Python, where one is named and the user has none of that name; else None."""
    return config.dataset if config.dataset in BUILT_IN and config.dataset not in config.datasets else None


def known_names(config: Parameters) -> list[str]:
    """Every name that `--dataset` knows without asking the Hub."""
    return [*STANDARD_SETS, *BUILT_IN, *(name for name in config.datasets if name not in STANDARD_SETS)]


def find_entry(config: Parameters) -> DatasetEntry | None:
    """The entry that `config.dataset` names: the user's own ones win over the standard ones; None if there is none.

    Raises:
        UsageError: the user's entry is malformed.
    """
    own = config.datasets.get(config.dataset)
    return STANDARD_SETS.get(config.dataset) if own is None else parse_entry(config.dataset, own)


def parse_entry(name: str, values: Any) -> DatasetEntry:
    """An entry of `datasets:` in a configuration file.

    Raises:
        UsageError: an unknown key, a value of the wrong type, or no id.
    """
    where = f"datasets.{name}"
    if not isinstance(values, Mapping):
        raise UsageError(f"{where}: a mapping is needed, such as {{id: owner/name, column: text}}")
    known = [field.name for field in fields(DatasetEntry)]
    for key, value in values.items():
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}"
            raise UsageError(f"{where}: unknown key '{key}'", hint=hint)
        if key == "articles":
            if not isinstance(value, bool):
                raise UsageError(f"{where}.articles: true or false is needed, not {value!r}")
        elif key == "splits":
            _check_splits(value, f"{where}.splits")
        elif value is not None and not isinstance(value, str):
            raise UsageError(f"{where}.{key}: text is needed, not {value!r}", hint="put it in quotes")
    if not values.get("id"):
        raise UsageError(f"{where}: the key 'id' is missing", hint="give the Hub id, such as id: Salesforce/wikitext")
    return DatasetEntry(**values)


def _check_splits(value: Any, where: str) -> None:
    if value is None:
        return
    if not isinstance(value, Mapping) or not value or not all(isinstance(theirs, str) for theirs in value.values()):
        raise UsageError(f"{where}: a mapping is needed, such as {{train: train, validation: dev}}")
    for ours in value:
        if ours not in SPLITS:
            raise UsageError(f"{where}: unknown split '{ours}'", hint=f"known: {', '.join(SPLITS)}")
    if "train" not in value:
        raise UsageError(f"{where}: the split 'train' is missing")


def parse_hub_reference(text: str) -> DatasetEntry | None:
    """`owner/name`, `owner/name:config` or `owner/name:config@revision`; None if it is not of that form."""
    match = _HUB_REFERENCE.fullmatch(text)
    if match is None:
        return None
    return DatasetEntry(match["id"], config=match["config"], revision=match["revision"])

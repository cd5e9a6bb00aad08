"""The licence of a model, as far as its own files or the list of known wheels tell it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub.repocard import metadata_load

from distillkit.models.located import LocatedModel
from distillkit.models.model_files import read_config
from distillkit.models.references import KNOWN_WHEELS

# As the Hub spells them: https://huggingface.co/docs/hub/repositories-licenses
_IDENTIFIER = re.compile(r"[a-z0-9][a-z0-9.+-]{0,49}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+-]{0,79}")
_LINK = re.compile(r"https://[A-Za-z0-9][A-Za-z0-9._~/%-]{0,199}")


@dataclass(frozen=True)
class Licence:
    """A licence in the terms of a model card.

    Attributes:
        identifier: the Hub's, such as "apache-2.0"; "other" for one that the Hub does not list.
        name, link: of such a one, where they are known.
    """

    identifier: str
    name: str | None = None
    link: str | None = None


def licence_of(located: LocatedModel) -> Licence | None:
    """The licence of a model: of a known wheel, else as the card in its folder says, else as its config.json says.

    Args:
        located: not a pruned teacher, whose licence is the teacher's.

    Returns:
        None where nothing tells it, or where what is told is not of the form of a licence.

    Raises:
        PreconditionError: config.json is damaged.
    """
    if located.is_served:
        return None
    wheel = KNOWN_WHEELS.get(located.reference.requirement or "")
    if wheel is not None:
        return Licence(wheel.licence)
    metadata = _card_metadata(located.folder / "README.md")
    return _parsed(metadata) or _parsed(read_config(located.folder))


def _card_metadata(card: Path) -> Mapping[str, Any]:
    """The front matter of a model card; {} where there is none that can be read: a card is words, and may be damaged."""
    try:
        return metadata_load(card) or {}
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}


def _parsed(metadata: Mapping[str, Any]) -> Licence | None:
    identifier = _matching(_IDENTIFIER, metadata.get("license"), lower=True)
    if identifier is None:
        return None
    name, link = metadata.get("license_name"), metadata.get("license_link")
    return Licence(identifier, _matching(_NAME, name), _matching(_LINK, link))


def _matching(pattern: re.Pattern[str], value: Any, *, lower: bool = False) -> str | None:
    if not isinstance(value, str):
        return None
    value = value.strip().lower() if lower else value.strip()
    return value if pattern.fullmatch(value) else None

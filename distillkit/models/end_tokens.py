"""Start and end tokens of a tokenizer whose own files do not name them: those of the model's configuration.

Without a word in its files a tokenizer class of transformers brings a default or nothing at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distillkit.storage import read_json

_MODEL_FILES = ("config.json", "generation_config.json")
_TOKENIZER_FILES = ("tokenizer_config.json", "special_tokens_map.json")
# `<s>`, `</s>`, `<|endoftext|>`, `[CLS]`; not `<0x0A>`, a byte.
_MARKED = re.compile(r"<(?!0x[0-9A-Fa-f]{2}>).+>|\[.+\]")


def complete_ends(tokenizer: Any, folder: Path) -> list[str]:
    """Set BOS and EOS where the tokenizer's files name none, by the ids in `config.json` or `generation_config.json`.

    A tokenizer whose files say that it has none (`"bos_token": null`) keeps none. An id that is no token, or that of an
    ordinary piece of text (a configuration's defaults, mostly), is not used.

    Returns:
        What could not be used, a line each.
    """
    problems = []
    for role in ("bos_token", "eos_token"):
        if _is_declared(folder, role):
            continue
        refused = []
        for file, index in _ids(folder, f"{role}_id"):
            name = _token(tokenizer, index)
            if name is not None:
                if name != getattr(tokenizer, role):
                    setattr(tokenizer, role, name)
                break
            refused.append(f"{role}_id {index} in {file}")
        if refused and getattr(tokenizer, role) is None:
            problems.append(f"{', '.join(refused)} is no special token of its tokenizer: not used")
    return problems


def _is_declared(folder: Path, role: str) -> bool:
    """Whether the tokenizer's own files speak of it, if only to say that there is none."""
    return any(role in _content(folder / name) for name in _TOKENIZER_FILES)


def _ids(folder: Path, key: str) -> Iterator[tuple[str, int]]:
    for name in _MODEL_FILES:
        content = _content(folder / name)
        text_config = content.get("text_config")
        found = content.get(key, text_config.get(key) if isinstance(text_config, dict) else None)
        for index in found if isinstance(found, list) else [found]:
            if isinstance(index, int) and not isinstance(index, bool):
                yield name, index


def _token(tokenizer: Any, index: int) -> str | None:
    """The name of a token that can stand at the edge of a text; None for any other id."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    if index in added:
        return added[index].content
    try:
        name = tokenizer.convert_ids_to_tokens(index)
    except (IndexError, KeyError, ValueError, OverflowError):
        return None  # Slow tokenizers have no word for an id beyond their vocabulary.
    return name if isinstance(name, str) and _MARKED.fullmatch(name) else None


def _content(path: Path) -> dict[str, Any]:
    """A JSON object, empty where there is none: whoever needs the file says what is wrong with it."""
    try:
        content = read_json(path)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}

"""The key for a server: from the environment only, and never part of anything that is written or shown."""

from __future__ import annotations

from collections.abc import Mapping

from distillkit.errors import UsageError

# The first that is set counts. One of its own, because a key for OpenAI is nothing for other people's servers.
VARIABLES = ("DISTILLKIT_TEACHER_KEY", "OPENAI_API_KEY")
_HIDDEN = "(the key)"


def server_key(environment: Mapping[str, str]) -> str | None:
    """The key, None where there is none; an empty variable means none, and the next one is not asked.

    Raises:
        UsageError: it cannot be sent in a header.
    """
    for name in VARIABLES:
        if name not in environment:
            continue
        key = environment[name].strip()
        if not key.isascii() or not key.isprintable() or " " in key:
            raise UsageError(f"{name} holds characters that no key has", hint="set it to the key alone")
        return key or None
    return None


def without_key(text: str, key: str | None) -> str:
    """`text` of a server with the key taken out: some repeat it when they refuse it."""
    return text if key is None else text.replace(key, _HIDDEN)

"""Values of the options for a teacher behind a server: which addresses there can be."""

from __future__ import annotations

from urllib.parse import urlsplit

from distillkit.errors import UsageError

_EXAMPLE = "for example --teacher-url http://127.0.0.1:8000/v1"


def check_server_url(value: str, where: str) -> None:
    """Refuse what is no address of an OpenAI-compatible API.

    Args:
        value: of `teacher_url`.
        where: where it came from, for the message.

    Raises:
        UsageError: it is no http or https address, or holds what may be a secret; that is never repeated.
    """
    try:
        parts = urlsplit(value)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(f"teacher_url: it is no address ({where})", hint=_EXAMPLE) from error
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        # It goes into the run directory, which people pass on.
        raise UsageError(
            f"teacher_url: an address with a name, a password, a query or a fragment is not taken ({where})",
            hint="give the plain address; a key is read from the variable DISTILLKIT_TEACHER_KEY or OPENAI_API_KEY",
        )
    if parts.scheme not in ("http", "https") or not host or not value.isascii() or any(map(str.isspace, value)):
        raise UsageError(f"teacher_url: {value[:200]!r} is no http or https address ({where})", hint=_EXAMPLE)

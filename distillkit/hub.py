"""What an error of the Hub's client means: out of reach, offline, or an answer; whatever library it came through."""

from __future__ import annotations

from collections.abc import Iterator

_NO_ANSWER = 0


def error_chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what caused it, outermost first."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def answer(error: BaseException) -> int | None:
    """The HTTP status that an error speaks of, 0 for trouble with the network, None for something else.

    The first error of the chain that is one of these decides: what lies below it was already dealt with.
    """
    from huggingface_hub.errors import HfHubHTTPError

    # The HTTP client differs between versions of huggingface_hub; all of its errors share this base class.
    http_error = next(base for base in HfHubHTTPError.__mro__ if base.__name__ == "HTTPError")
    for link in error_chain(error):
        status = getattr(getattr(link, "response", None), "status_code", None)
        if isinstance(status, int):
            return status
        if isinstance(link, (http_error, ConnectionError, TimeoutError)):
            return _NO_ANSWER
    return None


def is_offline(error: BaseException) -> bool:
    """Whether the network was not even tried (HF_HUB_OFFLINE)."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    return any(isinstance(link, OfflineModeIsEnabled) for link in error_chain(error))


def is_unreachable(error: BaseException) -> bool:
    """Whether the Hub gave no usable answer, so that asking again, or a cached copy, may help."""
    status = answer(error)
    return status is not None and (status == _NO_ANSWER or status >= 500 or status in (408, 429))


def reason(error: BaseException) -> str:
    """Why the Hub is out of reach, in a few words."""
    if is_offline(error):
        return "offline mode is on (HF_HUB_OFFLINE)"
    status = answer(error)
    return f"the Hub answered with status {status}" if status else "the Hub cannot be reached"

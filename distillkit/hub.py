"""The Hugging Face Hub (or whatever HF_ENDPOINT names) when it fails: what an error means, whether asking again may help,
and what to tell the user. Models and data sets share it; nothing here is imported from the Hub's client before use.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeVar

from distillkit.errors import DistillkitError, PreconditionError, UsageError

TIMEOUT_SECONDS = 20.0
_ATTEMPTS = 4
_FIRST_PAUSE_SECONDS = 1.0
_NO_ANSWER = 0

_Result = TypeVar("_Result")


def error_chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what caused it, outermost first."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def http_status(error: BaseException) -> int | None:
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
    status = http_status(error)
    return status is not None and (status == _NO_ANSWER or status >= 500 or status in (408, 429))


def reason(error: BaseException) -> str:
    """Why the Hub is out of reach, in a few words."""
    if is_offline(error):
        return "offline mode is on (HF_HUB_OFFLINE)"
    status = http_status(error)
    return f"the Hub answered with status {status}" if status else "the Hub cannot be reached"


def retry(
    action: Callable[[], _Result], name: str, *, inform: Callable[[str], None], check_interrupted: Callable[[], None]
) -> _Result:
    """The result of `action`, tried again a few times while the Hub gives no usable answer.

    Args:
        name: the repository's id, for the line that says that it is tried again.
        inform: shows that line to the user.
        check_interrupted: raises what a signal asks for; called before each attempt and after each failure, because the
            interruption of a worker thread comes back wrapped.

    Raises:
        Exception: what the last attempt raised; at once where asking again cannot help.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        check_interrupted()
        try:
            return action()
        except DistillkitError:
            raise
        except Exception as error:
            # Not only OSError: the errors of the HTTP client are of its own kind, and differ between its versions.
            check_interrupted()
            if attempt == _ATTEMPTS or is_offline(error) or not is_unreachable(error):
                raise
            pause = _FIRST_PAUSE_SECONDS * 2 ** (attempt - 1)
            inform(f"{name}: {reason(error)}; trying again in {pause:.0f} s ({attempt} of {_ATTEMPTS - 1})")
            time.sleep(pause)
    raise AssertionError("unreachable: the last attempt returns or raises")


@dataclass(frozen=True)
class HubRepository:
    """A repository on the Hub, and what a user can do when it cannot be had.

    Attributes:
        kind: as the user calls it.
        id: the Hub id.
        revision: branch, tag or commit, as asked for; None for the main branch.
        alternative: what to give instead of it, for the hints.
    """

    kind: Literal["model", "data set"]
    id: str
    revision: str | None
    alternative: str

    def explain_refusal(self, error: Exception) -> DistillkitError | None:
        """The error to raise where the Hub has no such repository or revision, or does not show it; else None."""
        from huggingface_hub import errors

        links = tuple(error_chain(error))
        if any(isinstance(link, errors.GatedRepoError) for link in links):
            return self.gated()
        if any(isinstance(link, errors.RevisionNotFoundError) for link in links):
            return PreconditionError(
                f"{self}: no revision '{self.revision}' on the Hub", hint="name another one after '@'"
            )
        if any(isinstance(link, errors.HFValidationError) for link in links):
            return UsageError(f"'{self.id}' is not a Hub id", hint="a Hub id looks like owner/name")
        if any(isinstance(link, errors.RepositoryNotFoundError) for link in links):
            return self.missing()
        return None

    def explain(self, error: Exception) -> DistillkitError | None:
        """The error to raise instead of one of the Hub's client; None for what is no fault of the user's, the network's
        or the Hub's."""
        from huggingface_hub import constants, errors

        if (refusal := self.explain_refusal(error)) is not None:
            return refusal
        if is_offline(error) or is_unreachable(error) or isinstance(error, errors.LocalEntryNotFoundError):
            return PreconditionError(
                f"{self}: {reason(error)}, and no complete copy of it is on this machine", hint=self.alternative
            )
        if http_status(error) is not None:
            return PreconditionError(f"{self}: {reason(error)}", hint=self.alternative)
        if isinstance(error, OSError) and error.errno is not None:
            return DistillkitError(
                f"{self}: cannot be stored in the Hub's cache: {error.strerror}: {error.filename}",
                hint="free some space, or set HF_HOME to another place",
            )
        if isinstance(error, json.JSONDecodeError):
            return PreconditionError(
                f"{self}: what answers at {constants.ENDPOINT} is no model hub",
                hint=f"check HF_ENDPOINT, and whether a proxy or a login page is in between; or {self.alternative}",
            )
        return None

    def gated(self) -> PreconditionError:
        """Its owner lets in only those who ask."""
        page = self.id if self.kind == "model" else f"datasets/{self.id}"
        return PreconditionError(
            f"{self}: access has to be asked for on the Hub (it is gated)",
            hint=f"accept its terms on its page ({page}), then `hf auth login` or set HF_TOKEN; or {self.alternative}",
        )

    def missing(self) -> PreconditionError:
        """The Hub knows no such repository, or does not show it without a token."""
        return PreconditionError(
            f"{self}: not on the Hub, or private",
            hint=f"check the id; for a private one `hf auth login` or set HF_TOKEN; or {self.alternative}",
        )

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"

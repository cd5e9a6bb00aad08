"""What went wrong on the Hub, in words that a user can act on."""

from __future__ import annotations

from collections.abc import Iterator

from distillkit.data.standard_sets import PYTHON_DOCS, DatasetEntry
from distillkit.errors import DistillkitError, PreconditionError, UsageError

_NO_NETWORK_HINT = f"give texts of your own with --dataset-path, or --dataset {PYTHON_DOCS}, which needs no network"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _status(error: BaseException) -> int | None:
    """The HTTP status that an error, or what caused it, speaks of."""
    for link in _chain(error):
        status = getattr(getattr(link, "response", None), "status_code", None)
        if isinstance(status, int):
            return status
    return None


def is_offline(error: BaseException) -> bool:
    """Whether the network was not even tried (HF_HUB_OFFLINE)."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    return any(isinstance(link, OfflineModeIsEnabled) for link in _chain(error))


def is_unreachable(error: BaseException) -> bool:
    """Whether the Hub gave no usable answer, so that asking again, or a cached copy, may help."""
    from huggingface_hub.errors import HfHubHTTPError

    status = _status(error)
    if status is not None:
        return status >= 500 or status in (408, 429)
    # The HTTP client differs between versions of huggingface_hub; all of its errors share this base class.
    http_error = next(base for base in HfHubHTTPError.__mro__ if base.__name__ == "HTTPError")
    return any(isinstance(link, (http_error, ConnectionError, TimeoutError)) for link in _chain(error))


def reason(error: BaseException) -> str:
    """Why the Hub is out of reach, in a few words."""
    status = _status(error)
    if is_offline(error):
        return "offline mode is on (HF_HUB_OFFLINE)"
    return f"the Hub answered with status {status}" if status is not None else "the Hub cannot be reached"


def explain(error: Exception, entry: DatasetEntry) -> DistillkitError | None:
    """The error to raise instead of one of `datasets` or `huggingface_hub`; None for what is no fault of the user's."""
    from datasets.exceptions import DataFilesNotFoundError, DatasetNotFoundError
    from huggingface_hub import errors

    what = f"data set {entry.id}"
    kinds = tuple(_chain(error))
    words = str(error).splitlines()[0] if str(error) else type(error).__name__
    if any(isinstance(link, errors.GatedRepoError) for link in kinds) or "gated dataset" in words:
        return PreconditionError(
            f"{what}: access has to be asked for on the Hub (it is gated)",
            hint=f"accept its terms on its page (datasets/{entry.id}), then `hf auth login` or set HF_TOKEN",
        )
    if any(isinstance(link, errors.RevisionNotFoundError) for link in kinds):
        return PreconditionError(
            f"{what}: no revision '{entry.revision}' on the Hub", hint="name another one after '@'"
        )
    if any(isinstance(link, errors.HFValidationError) for link in kinds):
        return UsageError(f"'{entry.id}' is not a Hub id", hint="a Hub id looks like owner/name")
    missing = (errors.RepositoryNotFoundError, DatasetNotFoundError, DataFilesNotFoundError)
    if isinstance(error, DataFilesNotFoundError):
        return PreconditionError(f"{what}: no data files of a known format in it", hint=_NO_NETWORK_HINT)
    if any(isinstance(link, missing) for link in kinds):
        return PreconditionError(
            f"{what}: not on the Hub, or private",
            hint="check the id; for a private one `hf auth login` or set HF_TOKEN; or give a file with --dataset-path",
        )
    if isinstance(error, ValueError) and "onfig" in words and "vailable" in words:
        listed = " ".join(str(error).split())
        return UsageError(
            f"{what}: {'no configuration ' + repr(entry.config) if entry.config else 'it has several configurations'} "
            f"({listed})",
            hint=f"name one of them: --dataset {entry.id}:CONFIGURATION",
        )
    if isinstance(error, RuntimeError) and "script" in words:
        return PreconditionError(
            f"{what}: it is a program, and programs of a data set are never run", hint=_NO_NETWORK_HINT
        )
    if is_unreachable(error) or is_offline(error):
        return PreconditionError(
            f"{what}: {reason(error)}, and no copy of it is on this machine", hint=_NO_NETWORK_HINT
        )
    status = _status(error)
    if status is not None:
        return PreconditionError(f"{what}: the Hub answered with status {status}", hint=_NO_NETWORK_HINT)
    return None

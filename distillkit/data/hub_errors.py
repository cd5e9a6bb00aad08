"""Errors of the library `datasets`, in words that a user can act on; those of the Hub itself are explained in
`distillkit.hub`."""

from __future__ import annotations

from distillkit.data.standard_sets import PYTHON_DOCS, DatasetEntry
from distillkit.errors import DistillkitError, PreconditionError, UsageError, first_line
from distillkit.hub import HubRepository, error_chain, is_offline, is_unreachable

_NO_NETWORK_HINT = f"give texts of your own with --dataset-path, or --dataset {PYTHON_DOCS}, which needs no network"


def explain(error: Exception, entry: DatasetEntry) -> DistillkitError | None:
    """The error to raise instead of one of `datasets` or `huggingface_hub`; None for what is no fault of the user's."""
    from datasets.exceptions import DatasetNotFoundError

    repository = HubRepository("data set", entry.id, entry.revision, _NO_NETWORK_HINT)
    if (refusal := repository.explain_refusal(error)) is not None:
        return refusal
    if "gated dataset" in first_line(error):
        return repository.gated()
    if any(isinstance(link, DatasetNotFoundError) for link in error_chain(error)):
        return repository.missing()
    configurations = _listed_configurations(str(error))
    if isinstance(error, ValueError) and configurations is not None:
        trouble = f"no configuration '{entry.config}'" if entry.config else "it has several configurations"
        return UsageError(
            f"{repository}: {trouble}; configurations: {configurations.replace(chr(39), '')}",
            hint=f"name one of them: --dataset {entry.id}:CONFIGURATION",
        )
    if isinstance(error, RuntimeError) and "script" in first_line(error):
        return PreconditionError(
            f"{repository}: it is a program, and programs of a data set are never run", hint=_NO_NETWORK_HINT
        )
    if isinstance(error, FileNotFoundError) and not is_unreachable(error) and not is_offline(error):
        return PreconditionError(f"{repository}: no data files of a known format in it", hint=_NO_NETWORK_HINT)
    return repository.explain(error)


def _listed_configurations(message: str) -> str | None:
    """What stands in brackets behind "Config … available …" and the like."""
    _, found, rest = message.partition("onfig")
    if found:
        _, found, rest = rest.partition("vailable")
    if found:
        _, found, rest = rest.partition("[")
    listed, closed, _ = rest.partition("]")
    return listed if found and closed else None

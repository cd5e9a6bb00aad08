"""What went wrong on the Hub, in words that a user can act on."""

from __future__ import annotations

import re

from distillkit.data.standard_sets import PYTHON_DOCS, DatasetEntry
from distillkit.errors import DistillkitError, PreconditionError, UsageError
from distillkit.hub import answer, error_chain, is_offline, is_unreachable, reason

_NO_NETWORK_HINT = f"give texts of your own with --dataset-path, or --dataset {PYTHON_DOCS}, which needs no network"


def explain(error: Exception, entry: DatasetEntry) -> DistillkitError | None:
    """The error to raise instead of one of `datasets` or `huggingface_hub`; None for what is no fault of the user's."""
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub import errors

    what = f"data set {entry.id}"
    kinds = tuple(error_chain(error))
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
    if any(isinstance(link, (errors.RepositoryNotFoundError, DatasetNotFoundError)) for link in kinds):
        return PreconditionError(
            f"{what}: not on the Hub, or private",
            hint="check the id; for a private one `hf auth login` or set HF_TOKEN; or give a file with --dataset-path",
        )
    configurations = re.search(r"onfig.*vailable[^\[]*\[([^\]]*)\]", str(error), re.DOTALL)
    if isinstance(error, ValueError) and configurations:
        trouble = f"no configuration '{entry.config}'" if entry.config else "it has several configurations"
        return UsageError(
            f"{what}: {trouble}; configurations: {configurations[1].replace(chr(39), '')}",
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
    if isinstance(error, FileNotFoundError):
        return PreconditionError(f"{what}: no data files of a known format in it", hint=_NO_NETWORK_HINT)
    if answer(error) is not None:
        return PreconditionError(f"{what}: {reason(error)}", hint=_NO_NETWORK_HINT)
    return None

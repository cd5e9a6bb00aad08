"""`distill_models()`: the whole pipeline in one Python call.

Its signature and documentation follow from the declared parameters; editors and type checkers, which do not run this,
read them from api.pyi (`python -m distillkit.api_stub --write`).
"""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import Any

from distillkit.cli.request import Request, execute
from distillkit.console import Console
from distillkit.errors import QualityGateError, UsageError
from distillkit.process_environment import neutral_environment
from distillkit.process_state import left_as_found
from distillkit.registry import Table
from distillkit.run.results import DistillResult, read_result
from distillkit.settings import declared
from distillkit.settings.help_texts import help_text
from distillkit.settings.resolve import check_known_name
from distillkit.words import LANGUAGES, asked_language


def distill_models(
    *,
    preset: str | None = None,
    config: str | Path | None = None,
    run: str | Path | None = None,
    force: bool = False,
    quiet: bool = False,
    **parameters: Any,
) -> DistillResult:
    for name in parameters:
        check_known_name(name, "argument", known=inspect.signature(distill_models).parameters)
    given = {name: str(value) if isinstance(value, Path) else value for name, value in parameters.items()}
    request = Request(
        given,
        preset=preset,
        config_file=Path(config) if config is not None else None,
        run=str(run) if run is not None else None,
        force=force,
        label="argument",
    )
    asked = asked_language(os.environ)
    console = Console(quiet=quiet, lang=asked or LANGUAGES[0], lang_asked=asked is not None)
    with neutral_environment(), left_as_found() as lines:
        for line in lines:
            console.info(line)
        outcome = execute(request, console, whole=True)
    if outcome is None:
        raise UsageError("a dry run gives no result")
    result = read_result(outcome.run)
    if outcome.gate_failure:
        error = QualityGateError(outcome.gate_failure, hint="quality_gate='off' only reports the verdict")
        error.result = result  # type: ignore[attr-defined]
        raise error
    return result


def _describe() -> None:
    """Give `distill_models` the signature and the documentation that follow from the declared parameters."""
    own = [item for item in inspect.signature(distill_models).parameters.values() if item.kind is item.KEYWORD_ONLY]
    # Types are written down for all users: those of this package alone.
    with Table.own_alone():
        annotations = {name: declared.argument_type(name) for name in declared.fields()}
    derived = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=declared.default(name),
            annotation=annotations[name],
        )
        for name in declared.fields()
    ]
    distill_models.__signature__ = inspect.Signature(  # pyright: ignore[reportFunctionMemberAccess]
        [*derived, *own], return_annotation=DistillResult
    )
    lines = [
        "Distil a teacher into a student: prepare the data, train, validate, and as asked demo and plot.",
        "",
        "Only what is given counts as given: precedence is preset < config file < environment < argument.",
        "",
        "Args:",
        *(f"    {name}: {help_text(name).what}" for name in declared.fields()),
        "    preset: name of a preset to start from.",
        "    config: a YAML file of parameters.",
        "    run: an existing run directory to continue.",
        "    force: redo what is complete already.",
        "    quiet: print nothing but warnings.",
        "",
        "Returns:",
        "    The run directory, the student's path, the figures before and after, and the verdict.",
        "",
        "Raises:",
        "    UsageError: a parameter is unknown, of the wrong type, out of range or in conflict with another.",
        "    PreconditionError: a model, a file, the hub or an earlier result is missing or not what it was.",
        "    QualityGateError: the student did not pass `quality_gate`; its `result` attribute has the figures.",
        "    DistillkitError: anything else that went wrong while running; the run can be continued with `run=`.",
    ]
    distill_models.__doc__ = "\n".join(lines)


_describe()

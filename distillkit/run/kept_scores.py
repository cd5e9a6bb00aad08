"""What a validation has scored, kept for the next one of the same models on the same texts: another quality gate, or other tasks of
lm-evaluation-harness, do not read the held-out texts again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distillkit.console import Console
from distillkit.errors import first_line
from distillkit.run.directory import RunDirectory
from distillkit.settings import declared
from distillkit.settings.parameters import Parameters
from distillkit.storage import fingerprint_of, read_json, sha256_of, with_checksum, without_checksum, write_json

KEPT = "validation_scores.json"
DETAILS = "validation_details.json"
_STAGE = "validate"
# The parameters of that stage that no score depends on; and two of other stages, in which the models compute.
_ANOTHER_OUTCOME = ("quality_gate", "lm_eval")
_COMPUTING = ("no_cuda", "precision")


def _key(config: Parameters, run: RunDirectory) -> str:
    """What the scores depend on: all that the stage depends on, but what is only made of them."""
    own = [name for name in declared.fields() if declared.facts(name).affects == _STAGE]
    named = {name: vars(config)[name] for name in (*own, *_COMPUTING) if name not in _ANOTHER_OUTCOME}
    made = ["prepare-data", "distill", *(["control"] if run.best_control is not None else [])]
    return fingerprint_of([named, {stage: run.result_fingerprint(stage) for stage in made}])


def kept_scores(config: Parameters, run: RunDirectory, console: Console) -> dict[str, Any] | None:
    """The content of validation.json, without tasks of lm-evaluation-harness, from scores that still hold; None where there are none.
    Damaged ones are told and not used."""
    path = run.path / KEPT
    if not path.is_file():
        return None
    try:
        kept = without_checksum(read_json(path))
        if kept["of"] != _key(config, run) or kept["details"] != sha256_of(run.path / DETAILS):
            return None
        return dict(kept["validation"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        console.warn(f"{KEPT} is damaged and not used: {first_line(error)}")
        return None


def keep_scores(config: Parameters, run: RunDirectory, validation: Mapping[str, Any]) -> None:
    """Keep what has been scored; the details are written.

    Raises:
        DistillkitError: it cannot be written.
    """
    kept = {"of": _key(config, run), "details": sha256_of(run.path / DETAILS), "validation": dict(validation)}
    write_json(run.path / KEPT, with_checksum(kept))

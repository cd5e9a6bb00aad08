"""Whether a run may take another configuration than the one it was made with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distillkit.errors import PreconditionError
from distillkit.run.directory import RunDirectory
from distillkit.run.source_paths import THIS_RUN, same_source
from distillkit.settings import declared
from distillkit.settings.parameters import Parameters
from distillkit.settings.resolve import ResolvedConfig
from distillkit.stages import STAGES


def config_differences(run: RunDirectory, new: Mapping[str, Any]) -> list[str]:
    """`batch_size: 8 -> 4` for each parameter that contradicts a result of the run.

    No contradiction: a value on which no stage depends that has begun, one on which only cheap stages depend, one that
    may grow and has grown, and another place of the same models and texts. A parameter that the version which began the run did
    not have worked as its default does.
    """
    old = {name: declared.default(name) for name in declared.fields()} | run.manifest.config
    known = {name: value for name, value in new.items() if name in declared.fields()}
    return [
        f"{name}: {old.get(name)} -> {new.get(name)}"
        for name in declared.fields()
        if old.get(name) != new.get(name)
        and _is_settled(declared.facts(name).affects, run)
        and not has_grown(name, old.get(name), new.get(name))
        and not same_source(name, Parameters(**known), run)
    ]


def _is_settled(stage: str | None, run: RunDirectory) -> bool:
    """Whether what `stage` was given cannot change any more without doing work again."""
    return stage is not None and not STAGES[stage].cheap and run.record(stage) is not None


def has_grown(name: str, old: Any, new: Any) -> bool:
    """Whether the new value of a parameter extends a result that was made with the old one."""
    return declared.facts(name).may_grow and isinstance(old, int) and isinstance(new, int) and new > old


def adopt_config(run: RunDirectory, resolved: ResolvedConfig, *, force: bool, can_change: bool) -> None:
    """Make `resolved` the configuration of the run.

    Raises:
        PreconditionError: results of the run depend on something that differs, and `force` was not given.
    """
    new = {
        **resolved.as_dict(),
        **{name: run.manifest.config.get(name) for name in declared.location_names()},
    }
    differences = config_differences(run, new)
    if differences and not (force and can_change):
        raise PreconditionError(
            f"{run.path} was made with another configuration ({'; '.join(differences)})",
            hint="use the same values, start another run with a new --folder-name, or add --force to distillkit distill "
            "to start this one from scratch",
        )
    if new != run.manifest.config:
        run.manifest.config = new
        run.manifest.sources = {
            name: run.manifest.sources.get(name, label) if label == THIS_RUN else label
            for name, label in resolved.sources.items()
        }
        run.save_config()
        run.save()

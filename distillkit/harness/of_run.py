"""lm-evaluation-harness on the models of a run, one after the other, each result kept as soon as it is there."""

from __future__ import annotations

import gc
import shlex
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from torch import nn

from distillkit.console import Console
from distillkit.device.precision import Compute
from distillkit.errors import DistillkitError, first_line
from distillkit.harness.evaluate import evaluate_model
from distillkit.harness.tasks import tasks_fingerprint
from distillkit.models.loading import load_tokenizer
from distillkit.models.located import LocatedModel
from distillkit.models.references import parse_reference
from distillkit.run.directory import RunDirectory
from distillkit.run.pair import ModelPair
from distillkit.settings.conditions import has_several_teachers
from distillkit.settings.harness_values import task_names
from distillkit.settings.parameters import Parameters
from distillkit.storage import fingerprint_of, read_json, with_checksum, without_checksum, write_json
from distillkit.teachers.choices import choose_streaming
from distillkit.teachers.spread import place_teacher, teacher_memory

# What has been measured so far, for a validation that was interrupted, and for one that measures a model more.
KEPT = "lm_eval.json"


def evaluate_run(
    config: Parameters, run: RunDirectory, pair: ModelPair, compute: Compute, console: Console, *, from_scratch: bool
) -> dict[str, Any]:
    """Put the student before and after, the control and the teacher through the tasks of `lm_eval`.

    Models are loaded one at a time. Where the harness fails, what it measured until then is kept, and the failure told.

    Args:
        from_scratch: measure again what was measured.

    Returns:
        For validation.json: `lm_eval`, task -> metric -> `before`, `after`, `control`, `teacher` (those that there are),
        `stderr` (the same names) and `higher_is_better`; and `lm_eval_run`: `version`, `chat_template`, `left_out` (model ->
        why), and where it failed `failed` (`model`, `error`).

    Raises:
        Interrupted: a signal arrived.
        DistillkitError: a model cannot be loaded, or a result cannot be written.
    """
    assert config.lm_eval is not None
    names = task_names(config.lm_eval)
    loaders, left_out = _models(config, run, pair, compute, console)
    for name, why in left_out.items():
        console.info(f"lm-evaluation-harness: the {name} is left out: {why}")
    encoders = pair.text_encoders(config)
    templates = pair.templates(encoders)
    about: dict[str, Any] = {
        "version": metadata.version("lm_eval"), "chat_template": templates is not None, "left_out": left_out,
    }  # fmt: skip
    shared = [
        about["version"], tasks_fingerprint(config.lm_eval), compute.description, pair.conversations, config.system_prompt,
    ]  # fmt: skip
    kept = {} if from_scratch else _read_kept(run.path / KEPT, console)
    results: dict[str, Any] = {}
    with console.progress("lm-evaluation-harness", total=len(loaders), unit="models") as progress:
        for name, load in loaders.items():
            key = fingerprint_of([name, run.result_fingerprint(_MADE_BY[name]), *shared])
            if kept.get(name, {}).get("key") != key:
                is_teacher = name == "teacher"
                template = None if templates is None else (templates.teacher if is_teacher else templates.student)
                try:
                    found = evaluate_model(
                        load(), _tokenizer(name, run, pair, console), names,
                        context=(encoders.teacher if is_teacher else encoders.student).context,
                        autocast=None if is_teacher or compute.device.type == "cpu" else compute.autocast,
                        chat_template=None if template is None else template.source,
                        system_prompt=config.system_prompt,
                    )  # fmt: skip
                except DistillkitError:
                    raise
                except Exception as error:
                    # The harness and its data sets can fail in any way; what was measured without it stands.
                    about["failed"] = {"model": name, "error": f"{type(error).__name__}: {first_line(error)}"}
                    break
                kept[name] = {"key": key, "results": found}
                write_json(run.path / KEPT, with_checksum({"models": kept}))
                gc.collect()
            results[name] = kept[name]["results"]
            progress.advance()
    if failed := about.get("failed"):
        again = f"distillkit validate --run {shlex.quote(str(run.path))} --force"
        console.warn(
            f"lm-evaluation-harness failed on the model {failed['model']}: {failed['error']}; "
            f"the rest of the validation stands. Once that is mended: {again}"
        )
    return {"lm_eval": by_task(results), "lm_eval_run": about}


# The stage whose result decides what a model is.
_MADE_BY = {"before": "prepare-data", "after": "distill", "control": "control", "teacher": "prepare-data"}


def by_task(results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """model -> task -> metric -> figures, turned into task -> metric -> model -> value, with the standard errors."""
    turned: dict[str, Any] = {}
    for model, tasks in results.items():
        for task, metrics in tasks.items():
            for metric, figures in metrics.items():
                row = turned.setdefault(task, {}).setdefault(
                    metric, {"stderr": {}, "higher_is_better": figures["higher_is_better"]}
                )
                row[model], row["stderr"][model] = figures["value"], figures["stderr"]
    return turned


def _models(
    config: Parameters, run: RunDirectory, pair: ModelPair, compute: Compute, console: Console
) -> tuple[dict[str, Callable[[], nn.Module]], dict[str, str]]:
    """How each model is loaded, those first that the verdict is about; and which are left out, and why."""

    def placed(model: nn.Module) -> nn.Module:
        return model.to(compute.device).eval()

    loaders: dict[str, Callable[[], nn.Module]] = {
        "before": lambda: placed(pair.load_student(console)),
        "after": lambda: placed(pair.load_trained_student(run.best_student, console)),
    }
    control = run.best_control
    if control is not None:
        loaders["control"] = lambda: placed(pair.load_trained_student(control, console))
    if pair.teacher.is_served:
        return loaders, {"teacher": "its weights are not here"}
    if has_several_teachers(vars(config)):
        return loaders, {"teacher": "there are several, and their mixture is no model that can be asked"}
    streaming = choose_streaming(config, teacher_memory(pair, compute))
    if streaming.on:
        return loaders, {"teacher": f"it is read from the disk block by block, for every pass: {streaming.why}"}
    loaders["teacher"] = lambda: place_teacher(pair, compute.teacher, compute, console)
    return loaders, {}


def _tokenizer(name: str, run: RunDirectory, pair: ModelPair, console: Console) -> Any:
    """A tokenizer of its own: the harness changes it. All students have that of the folder which will be used."""
    located = (
        pair.teacher if name == "teacher" else LocatedModel(parse_reference(str(run.best_student)), run.best_student)
    )
    return load_tokenizer(located, trust_remote_code=pair.config.trust_remote_code, console=console)


def _read_kept(path: Path, console: Console) -> dict[str, Any]:
    """What an earlier attempt has measured; {} where there was none, or its file is damaged, which is told."""
    if not path.is_file():
        return {}
    try:
        return without_checksum(read_json(path))["models"]
    except (OSError, ValueError, KeyError) as error:
        console.warn(f"{path.name} is damaged and not used: {first_line(error)}")
        return {}

"""`--report-to`: trackers that are told how a training goes, through the Trainer's own integrations.

An integration is handed stand-ins for the Trainer's arguments and for the model, so that it tells the configuration of the run
and nothing of this machine: no paths of caches, no weights, no program text. What a tracker is called at its own place is
noted in trackers/ids.json, so that a training that goes on continues the same tracker run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from transformers import TrainerCallback

from distillkit import __version__
from distillkit.console import Console
from distillkit.errors import Interrupted, PreconditionError, first_line
from distillkit.settings import declared
from distillkit.settings.parameters import Parameters
from distillkit.settings.training_values import tracker_names
from distillkit.storage import explained_write_errors, make_folder, read_json, remove_tree, write_json

PROJECT = "distillkit"
REQUIREMENTS = {
    "tensorboard": "tensorboard>=2.16",
    "wandb": "wandb>=0.19",
    "trackio": "trackio>=0.20",
    "mlflow": "mlflow-skinny>=2.21",  # which mlflow itself brings along
}
_IDS = "ids.json"
# With these the integrations would send weights, watch gradients, or begin runs other than those that are noted.
_SET_ASIDE = (
    "WANDB_LOG_MODEL", "WANDB_WATCH", "HF_MLFLOW_LOG_ARTIFACTS", "MLFLOW_RUN_ID", "MLFLOW_NESTED_RUN",
    "DISABLE_MLFLOW_INTEGRATION",
)  # fmt: skip
_OFFLINE = ("offline", "disabled", "dryrun")

End = Literal["finished", "interrupted", "failed"]


def tracker_libraries(config: Parameters) -> list[str]:
    """What has to be installed for the trackers of a configuration."""
    return [REQUIREMENTS[name] for name in tracker_names(config.report_to)]


def check_tracker_access(config: Parameters) -> None:
    """Refuse a tracker that nobody is logged in to, before anything is computed; its library is here.

    Raises:
        PreconditionError: wandb would send to its server and has no key.
    """
    if "wandb" not in tracker_names(config.report_to) or os.environ.get("WANDB_MODE", "online") in _OFFLINE:
        return
    import wandb  # pyright: ignore[reportMissingImports]

    if not (os.environ.get("WANDB_API_KEY") or wandb.api.api_key):
        raise PreconditionError(
            "--report-to wandb: nobody is logged in to wandb on this machine",
            hint="run: wandb login; or keep everything here with the variable WANDB_MODE=offline",
        )


def told_configuration(config: Parameters) -> dict[str, Any]:
    """The parameters as trackers get them: without where the run lies, and without a command line, which may hold a secret."""
    values = dataclasses.asdict(config)
    for name in declared.location_names():
        del values[name]
    if (rule := config.keep_answers) is not None and rule.startswith("run:"):
        values["keep_answers"] = "run:…"
    return values


# --- stand-ins for what the integrations ask ---------------------------------------------------------------------------


@dataclass(frozen=True)
class ToldArguments:
    """What the integrations read of the Trainer's arguments.

    Attributes:
        run_name: how the run is called.
        told: its configuration.
    """

    run_name: str
    told: Mapping[str, Any]
    output_dir: str = ""
    project: str = PROJECT
    hub_private_repo: bool = True
    trackio_space_id: str | None = None
    trackio_bucket_id: str | None = None
    trackio_static_space_id: bool = False  # no page of it is published

    def to_dict(self) -> dict[str, Any]:
        """The configuration."""
        return dict(self.told)

    def to_json_string(self) -> str:
        """The same as text."""
        return json.dumps(self.told, indent=2, ensure_ascii=False)


@dataclass(frozen=True)
class ToldModel:
    """What they read of the model."""

    parameters: int

    def num_parameters(self) -> int:
        """Trained or not, tied ones once."""
        return self.parameters


# --- each tracker ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Opening:
    """What a tracker is opened with.

    Attributes:
        folder: for its files.
        run_name: how the run is called.
        told: its configuration.
        known: what it was called when an earlier attempt began it; None where it begins now.
        resumed_step: the step from which the training goes on; 0: it begins.
    """

    folder: Path
    run_name: str
    told: Mapping[str, Any]
    known: str | None
    resumed_step: int


@dataclass(frozen=True)
class Opened:
    """A tracker that is open.

    Attributes:
        callback: the Trainer's integration.
        arguments: what it gets instead of the Trainer's.
        known: what its run is called there.
        close: ends it.
    """

    callback: TrainerCallback
    arguments: ToldArguments
    known: str
    close: Callable[[End], None]


def _open_tensorboard(opening: Opening) -> Opened:
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations.integration_utils import TensorBoardCallback

    if not opening.resumed_step:
        with explained_write_errors(opening.folder):
            remove_tree(opening.folder)
    # What an attempt that was cut off has told of later steps comes again.
    purge = opening.resumed_step + 1 if opening.resumed_step else None
    writer = SummaryWriter(log_dir=str(opening.folder), purge_step=purge)
    arguments = ToldArguments(opening.run_name, opening.told)
    return Opened(TensorBoardCallback(writer), arguments, opening.folder.name, lambda end: writer.close())


def _open_wandb(opening: Opening) -> Opened:
    import wandb  # pyright: ignore[reportMissingImports]
    from transformers.integrations.integration_utils import WandbCallback

    name = opening.known or os.environ.get("WANDB_RUN_ID") or uuid.uuid4().hex[:12]
    make_folder(opening.folder)
    quiet = {
        "silent": True, "console": "off", "disable_git": True, "disable_code": True, "save_code": False,
        "disable_job_creation": True, "x_disable_meta": True, "x_disable_machine_info": True, "x_save_requirements": False,
    }  # fmt: skip
    known = type(wandb.Settings()).model_fields
    run: Any = wandb.init(
        project=os.environ.get("WANDB_PROJECT", PROJECT), name=opening.run_name, id=name, resume="allow",
        dir=os.environ.get("WANDB_DIR", str(opening.folder)), config=dict(opening.told),
        settings=wandb.Settings(**{key: value for key, value in quiet.items() if key in known}),
    )  # fmt: skip
    arguments = ToldArguments(opening.run_name, opening.told)
    return Opened(WandbCallback(), arguments, name, lambda end: run.finish(exit_code=0 if end == "finished" else 1))


def _open_trackio(opening: Opening) -> Opened:
    import trackio  # pyright: ignore[reportMissingImports]
    from transformers.integrations.integration_utils import TrackioCallback

    # It continues a run by its name.
    name = opening.known or f"{opening.run_name}-{uuid.uuid4().hex[:6]}"

    def close(end: End) -> None:
        if trackio.context_vars.current_run.get() is not None:  # The integration ends it where the training ends well.
            trackio.finish()

    return Opened(TrackioCallback(), ToldArguments(name, opening.told), name, close)


def _open_mlflow(opening: Opening) -> Opened:
    import mlflow  # pyright: ignore[reportMissingImports]
    from transformers.integrations.integration_utils import MLflowCallback

    own_store = not mlflow.is_tracking_uri_set()
    if own_store:
        make_folder(opening.folder)
        os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"  # From 3.10 on it asks for this.
        mlflow.set_tracking_uri(opening.folder.absolute().as_uri())
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
    experiment = mlflow.get_experiment_by_name(name)
    run = mlflow.start_run(
        run_id=opening.known,
        experiment_id=experiment.experiment_id if experiment is not None else mlflow.create_experiment(name),
        run_name=opening.run_name, nested=mlflow.active_run() is not None,
    )  # fmt: skip
    states = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}

    def close(end: End) -> None:
        mlflow.flush_async_logging()
        mlflow.end_run(states[end])
        if own_store:
            mlflow.set_tracking_uri(None)  # pyright: ignore[reportArgumentType]
            os.environ.pop("MLFLOW_ALLOW_FILE_STORE", None)

    # A parameter of a run never changes there; one that goes on may have got more epochs.
    told = opening.told if opening.known is None else {}
    return Opened(MLflowCallback(), ToldArguments(opening.run_name, told), run.info.run_id, close)


_OPENERS: dict[str, Callable[[Opening], Opened]] = {
    "tensorboard": _open_tensorboard,
    "wandb": _open_wandb,
    "trackio": _open_trackio,
    "mlflow": _open_mlflow,
}


# --- all of a training -------------------------------------------------------------------------------------------------


class Tracker(TrainerCallback):
    """Passes on to an integration what happens. A tracker that fails is given up; the training goes on.

    Args:
        name: of the tracker.
        rates: figures that go with every line of losses.
    """

    def __init__(
        self, name: str, opened: Opened, model: ToldModel, rates: Callable[[], Mapping[str, float]], console: Console
    ) -> None:
        self.name, self.opened, self.model, self.rates, self.console = name, opened, model, rates, console
        self.lost = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._pass_on("on_train_begin", state, control)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        figures = dict(logs or {})
        if "loss" in figures:
            figures |= self.rates()
        self._pass_on("on_log", state, control, logs=figures)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._pass_on("on_train_end", state, control)

    def close(self, end: End) -> None:
        """End it; what it has not sent yet is sent."""
        with self._giving_up():
            self.opened.close(end)

    def _pass_on(self, event: str, state: Any, control: Any, **more: Any) -> None:
        with self._giving_up():
            if not self.lost:
                getattr(self.opened.callback, event)(self.opened.arguments, state, control, model=self.model, **more)

    @contextlib.contextmanager
    def _giving_up(self) -> Iterator[None]:
        try:
            with _undisturbed():
                yield
        except Interrupted:
            raise
        except Exception as error:
            # A server that is gone, a full disk, a library of another version: nothing of that is the student's.
            self.console.warn(f"{self.name} is told no more of this training: {first_line(error)}")
            self.lost = True


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Standard output is the program's, and what is in the environment does not change what a tracker is sent."""
    aside = {name: os.environ.pop(name) for name in _SET_ASIDE if name in os.environ}
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        os.environ.update(aside)


@contextlib.contextmanager
def reporting(
    config: Parameters,
    place: Path,
    run_name: str,
    *,
    resumed_step: int,
    parameters: int,
    rates: Callable[[], Mapping[str, float]],
    console: Console,
) -> Iterator[Sequence[TrainerCallback]]:
    """The callbacks of the trackers of a training, open while the block lasts.

    Args:
        place: where the training writes; `trackers` in it is theirs.
        run_name: how the training is called.
        resumed_step: from which it goes on; 0: it begins, and so do its tracker runs.
        parameters: of the student.
        rates: figures that go with every line of losses.

    Raises:
        PreconditionError: one cannot be opened.
    """
    names, folder = tracker_names(config.report_to), place / "trackers"
    known = _known(folder) if resumed_step else {}
    if "MLFLOW_RUN_ID" in os.environ:
        known.setdefault("mlflow", os.environ["MLFLOW_RUN_ID"])
    told = {**told_configuration(config), "distillkit": __version__, "student_parameters": parameters}
    trackers: list[Tracker] = []
    end: End = "failed"
    try:
        for name in names:
            make_folder(folder)
            opened = _opened(name, Opening(folder / name, run_name, told, known.get(name), resumed_step))
            trackers.append(Tracker(name, opened, ToldModel(parameters), rates, console))
            known[name] = opened.known
        if names:
            write_json(folder / _IDS, known)
            console.info(f"reported to {', '.join(names)}: {run_name}")
        yield trackers
        end = "finished"
    except Interrupted:
        end = "interrupted"
        raise
    finally:
        for tracker in trackers:
            tracker.close(end)


def _opened(name: str, opening: Opening) -> Opened:
    try:
        with _undisturbed():
            return _OPENERS[name](opening)
    except Exception as error:
        # Whatever a library or its server says: nothing is trained yet that would be lost.
        raise PreconditionError(
            f"--report-to {name}: it cannot be opened: {first_line(error)}",
            hint=f"mend that, or leave {name} out of --report-to",
        ) from error


def _known(folder: Path) -> dict[str, str]:
    """What the tracker runs of an earlier attempt are called; {} where none was noted, or the note is damaged: then they
    begin anew."""
    try:
        noted = read_json(folder / _IDS)
        return {str(name): str(value) for name, value in noted.items()}
    except (OSError, ValueError, AttributeError):
        return {}

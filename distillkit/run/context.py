"""What a training works with: its configuration, its run, its models, and where it computes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from distillkit.console import Console
from distillkit.data.text_encoder import TextEncoders
from distillkit.device.precision import Compute, choose_compute
from distillkit.processes.taking_part import check_devices
from distillkit.run.directory import RunDirectory
from distillkit.run.pair import ModelPair, open_pair
from distillkit.settings.parameters import Parameters


@dataclass(frozen=True)
class TrainingContext:
    """The surroundings of a training; they do not change while it runs.

    Attributes:
        config: the parameters.
        run: the run directory.
        pair: teacher and student.
        encoders: how both read a text.
        compute: device and number formats.
        console: where progress is reported.
    """

    config: Parameters
    run: RunDirectory
    pair: ModelPair
    encoders: TextEncoders
    compute: Compute
    console: Console

    @classmethod
    def open(cls, config: Parameters, run: RunDirectory, console: Console) -> TrainingContext:
        """The context of a run whose data are prepared.

        Raises:
            PreconditionError: a model or tokenizer is not the one that the data were prepared for.
            UsageError: the configuration asks for a number format that this machine does not have; there are more processes
                than GPUs.
        """
        compute = choose_compute(config)
        check_devices(compute.device.type)
        pair = open_pair(config, run, console)
        return cls(config, run, pair, pair.text_encoders(config), compute, console)

    @property
    def output_dir(self) -> Path:
        """The folder of the runs; teacher caches lie below it."""
        return self.run.path.parent

    @property
    def pairs_rows(self) -> bool:
        """Whether rows are paired: always across tokenizers; with one tokenizer only where an alignment is asked for."""
        return pairs_rows(self.config, same_tokenizer=bool(self.pair.same_tokenizer))


def pairs_rows(config: Parameters, *, same_tokenizer: bool) -> bool:
    """Whether the rows of teacher and student are paired by an alignment."""
    return not same_tokenizer or config.alignment != "auto"


def needs_teacher(config: Parameters) -> bool:
    """Whether the teacher has a part in the training at all: it has none where alpha is 0."""
    return config.alpha > 0


def needs_true_texts(config: Parameters) -> bool:
    """Whether the true tokens have a part in the loss: none where beta is 0 and stays it."""
    return config.beta > 0 or config.alpha_schedule == "decay"


def texts_per_example(config: Parameters) -> int:
    """How many texts a student learns for each of the data set, at most: in black box the text itself and the teacher's."""
    if config.box_type != "black" or not needs_teacher(config):
        return 1
    return config.answers + (1 if needs_true_texts(config) else 0)

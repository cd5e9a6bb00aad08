"""The threads of a run: chosen before the first stage that runs, remembered with the training, whose last digits depend on them."""

from __future__ import annotations

import contextlib

from distillkit.console import Console
from distillkit.run.directory import RunDirectory
from distillkit.settings.parameters import Parameters

# In the manifest, beside what check-env has found of the device.
TRAINING_THREADS = "training_threads"


class RunThreads:
    """The number of threads of one call, for all of its stages."""

    def __init__(self, config: Parameters, run: RunDirectory, console: Console) -> None:
        self._config, self._run, self._console = config, run, console
        self._count: int | None = None

    def of_stage(self, stage: str, *, from_scratch: bool) -> contextlib.AbstractContextManager[None]:
        """torch has the chosen number inside; a training that begins is recorded with it."""
        from distillkit.device.precision import best_device
        from distillkit.device.processors import choose_threads, with_threads

        device = self._run.manifest.device
        if self._count is None:
            begun = None if stage == "distill" and from_scratch else device.get(TRAINING_THREADS)
            on_processor = best_device(self._config.no_cuda).type == "cpu"
            choice = choose_threads(self._config.threads, begun, computes_here=on_processor)
            self._count = choice.count
            if choice.why:
                self._console.info(choice.line())
        if stage == "distill":
            device[TRAINING_THREADS] = self._count
        return with_threads(self._count)

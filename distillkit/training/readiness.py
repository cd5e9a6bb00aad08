"""What a training needs that not every machine has, asked before anything is computed."""

from __future__ import annotations

from distillkit.console import Console
from distillkit.installing import provide
from distillkit.models.requirements import PEFT
from distillkit.settings.parameters import Parameters
from distillkit.training.optimizers import check_optimizer, optimizer_libraries
from distillkit.training.trackers import check_tracker_access, tracker_libraries


def provide_for_training(config: Parameters, console: Console) -> None:
    """Install what the adapter, the optimizer and the trackers need, if it is missing.

    Raises:
        PreconditionError: something is missing and may not or cannot be installed, torch is too old, or nobody is logged in
            to a tracker.
    """
    check_optimizer(config)
    if config.adapter != "none":
        provide([PEFT], f"--adapter {config.adapter}", console, allowed=config.install_deps)
    provide(optimizer_libraries(config), f"--optimizer {config.optimizer}", console, allowed=config.install_deps)
    provide(tracker_libraries(config), f"--report-to {config.report_to}", console, allowed=config.install_deps)
    check_tracker_access(config)

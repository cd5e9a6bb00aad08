"""Leaves the process of whoever calls `distill_models()` as it was, and computes the same whatever the caller had set.

Random states, threads, number formats, logging, warnings and signal handlers belong to the whole process. What a call
needs otherwise it changes for its own time only, whether it succeeds or fails.
"""

from __future__ import annotations

import contextlib
import csv
import gc
import logging
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Calls in several threads would draw from one random state, and undo one another's changes: they take turns.
_TURN = threading.RLock()
_forked = False


def _note_fork() -> None:
    global _forked, _TURN
    _forked = True
    _TURN = threading.RLock()  # A thread that held it exists in the parent only.


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


def threads_are_lost() -> bool:
    """Whether this process was forked: GNU's OpenMP waits for ever for threads that exist in the parent only."""
    return _forked


@contextlib.contextmanager
def left_as_found() -> Iterator[list[str]]:
    """Inside, torch has its usual settings; afterwards everything of the process that a run changes is as before.

    Yields:
        What there is to say of it, in lines.
    """
    with _TURN, contextlib.ExitStack() as stack:
        # The first to be noted is the last to be restored.
        for note in (_interpreter, _logging, _random_states, _torch_settings, _accelerate_states, _matplotlib):
            for restore in note():
                stack.callback(restore)
        yield stack.enter_context(_usual_torch())


Restore = Callable[[], Any]


def _interpreter() -> Iterator[Restore]:
    filters, shown = list(warnings.filters), warnings.showwarning

    def restore_warnings() -> None:
        if warnings.filters != filters:
            warnings.filters[:] = filters  # pyright: ignore[reportIndexIssue]
            warnings._filters_mutated()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
        warnings.showwarning = shown

    yield restore_warnings
    folder = _current_folder()
    yield lambda: os.chdir(folder) if folder is not None and _current_folder() != folder else None
    limit, field_limit, hook, path = sys.getrecursionlimit(), csv.field_size_limit(), sys.excepthook, list(sys.path)
    yield lambda: sys.setrecursionlimit(limit)
    yield lambda: csv.field_size_limit(field_limit)
    yield lambda: setattr(sys, "excepthook", hook)
    yield lambda: sys.path.__setitem__(slice(None), path) if sys.path != path else None
    collecting, thresholds = gc.isenabled(), gc.get_threshold()
    yield lambda: gc.enable() if collecting else gc.disable()
    yield lambda: gc.set_threshold(*thresholds)
    if threading.current_thread() is threading.main_thread():
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        for number, handler in handlers.items():
            if handler is not None:  # None: one that Python did not set, and cannot set.
                yield lambda number=number, handler=handler: signal.signal(number, handler)


def _current_folder() -> str | None:
    try:
        return str(Path.cwd())
    except OSError:  # It has been deleted.
        return None


def _logging() -> Iterator[Restore]:
    """The loggers that are there already; those that a library makes when it is loaded come with the library."""
    loggers = [
        logging.root,
        *(item for item in logging.Logger.manager.loggerDict.values() if isinstance(item, logging.Logger)),
    ]
    for logger in loggers:
        state = (logger.level, list(logger.handlers), list(logger.filters), logger.propagate, logger.disabled)

        def restore(logger: logging.Logger = logger, state: tuple[Any, ...] = state) -> None:
            if logger.level != state[0]:
                logger.setLevel(state[0])
            logger.handlers[:], logger.filters[:] = state[1], state[2]
            logger.propagate, logger.disabled = state[3], state[4]

        yield restore
    disabled = logging.root.manager.disable
    yield lambda: logging.disable(disabled) if logging.root.manager.disable != disabled else None


def _random_states() -> Iterator[Restore]:
    import numpy as np
    import torch

    state, numpy_state, torch_state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    yield lambda: random.setstate(state)
    yield lambda: np.random.set_state(numpy_state)
    yield lambda: torch.set_rng_state(torch_state)
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states = torch.cuda.get_rng_state_all()
        yield lambda: torch.cuda.set_rng_state_all(states)


def _torch_settings() -> Iterator[Restore]:
    import torch

    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    yield lambda: torch.set_num_threads(threads) if torch.get_num_threads() != threads else None
    yield lambda: torch.set_default_dtype(dtype)
    grad = torch.is_grad_enabled()
    yield lambda: torch.set_grad_enabled(grad)
    strict, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    yield lambda: torch.use_deterministic_algorithms(strict, warn_only=warns)
    anomaly = torch.is_anomaly_enabled()
    yield lambda: torch.set_anomaly_enabled(anomaly) if torch.is_anomaly_enabled() != anomaly else None
    cudnn: Any = torch.backends.cudnn
    for name in ("enabled", "benchmark", "deterministic"):
        value = getattr(cudnn, name)
        yield lambda name=name, value=value: setattr(cudnn, name, value)
    yield from _matmul_precision()


def _matmul_precision() -> Iterator[Restore]:
    """fp32 products with fewer bits, as `torch.set_float32_matmul_precision` and its successors allow them."""
    import torch

    legacy = _legacy_precision()
    places: list[Any] = [torch.backends.cuda.matmul, getattr(torch.backends.mkldnn, "matmul", None)]
    precisions = [(place, place.fp32_precision) for place in places if hasattr(place, "fp32_precision")]

    def restore() -> None:
        changed = any(place.fp32_precision != value for place, value in precisions)
        if legacy is not None and _legacy_precision() != legacy:
            torch.set_float32_matmul_precision(legacy)
        if changed:
            for place, value in precisions:
                place.fp32_precision = value

    yield restore


def _legacy_precision() -> str | None:
    """None where the settings of the two interfaces contradict each other, which torch refuses to read."""
    import torch

    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return None


def _accelerate_states() -> Iterator[Restore]:
    """accelerate keeps one state for the whole process; a training begins with an empty one."""
    before = {name: dict(shared) for name, shared in _accelerate_shared().items()}
    for shared in _accelerate_shared().values():
        shared.clear()

    def restore() -> None:
        for name, shared in _accelerate_shared().items():
            shared.clear()
            shared.update(before.get(name, {}))

    yield restore


def empty_accelerate_states() -> None:
    """Let the next training find out anew how many processes there are."""
    for shared in _accelerate_shared().values():
        shared.clear()


def _accelerate_shared() -> dict[str, dict[str, Any]]:
    """The states by their classes; none before accelerate is loaded."""
    module = sys.modules.get("accelerate.state")
    names = ("PartialState", "AcceleratorState", "GradientState") if module is not None else ()
    return {name: getattr(module, name)._shared_state for name in names}


def _matplotlib() -> Iterator[Restore]:
    matplotlib: Any = sys.modules.get("matplotlib")
    if matplotlib is None:
        return
    # As a plain mapping: asking for the backend by name would choose one.
    settings = dict.copy(matplotlib.rcParams)
    yield lambda: dict.update(matplotlib.rcParams, settings)


@contextlib.contextmanager
def _usual_torch() -> Iterator[list[str]]:
    """torch as it is when it is loaded: what the caller has set for other work must not make another student."""
    import torch

    lines: list[str] = []
    with contextlib.ExitStack() as stack:
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        torch.set_grad_enabled(True)
        torch.set_default_dtype(torch.float32)
        if _reduced_precision():
            torch.set_float32_matmul_precision("highest")
        if _forked and torch.get_num_threads() > 1:
            # GNU's OpenMP waits for ever for threads that exist in the parent only.
            lines.append(
                f"one thread instead of {torch.get_num_threads()}: this process was forked, and torch's threads were not; "
                f"the start method spawn keeps them"
            )
            torch.set_num_threads(1)
        yield lines


def _reduced_precision() -> bool:
    import torch

    if _legacy_precision() != "highest":
        return True
    places: list[Any] = [torch.backends.cuda.matmul, getattr(torch.backends.mkldnn, "matmul", None)]
    return any(getattr(place, "fp32_precision", "none") not in ("none", "ieee") for place in places)

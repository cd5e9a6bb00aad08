"""A program that calls `distill_models()` in every way, and looks at its own process before and after.

    python tests/faults/caller.py '[{SETTINGS OF A RUN}, …]'

It prints a JSON object: the folder of each run by how it was called, and the `differences` that the calls left.
"""

from __future__ import annotations

import asyncio
import contextlib
import csv
import gc
import json
import logging
import multiprocessing
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import matplotlib
import numpy as np
import torch
import transformers
from accelerate.state import AcceleratorState, PartialState

from distillkit import DistillkitError, distill_models


def snapshot() -> dict[str, Any]:
    """Everything of this process that a library could have changed."""
    loggers = {
        name: item for name, item in logging.Logger.manager.loggerDict.items() if isinstance(item, logging.Logger)
    }
    matmul: Any = torch.backends.cuda.matmul
    return {
        "environment": dict(os.environ),
        "folder": str(Path.cwd()),
        "random": random.getstate(),
        "numpy": str(np.random.get_state()),
        "torch": torch.get_rng_state().tolist(),
        "threads": torch.get_num_threads(),
        "dtype": str(torch.get_default_dtype()),
        "device": str(torch.get_default_device()),
        "grad": torch.is_grad_enabled(),
        "anomaly": torch.is_anomaly_enabled(),
        "deterministic": (
            torch.are_deterministic_algorithms_enabled(),
            torch.backends.cudnn.deterministic,
            torch.backends.cudnn.benchmark,
        ),
        "products": (torch.get_float32_matmul_precision(), matmul.fp32_precision),
        "signals": {
            number: str(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
        },
        "warnings": (str(warnings.filters), str(warnings.showwarning)),
        "loggers": {
            name: (item.level, [str(handler) for handler in item.handlers], item.propagate, item.disabled)
            for name, item in {**loggers, "root": logging.root}.items()
        },
        "csv": csv.field_size_limit(),
        "recursion": sys.getrecursionlimit(),
        "path": list(sys.path),
        "streams": (id(sys.stdin), id(sys.stdout), id(sys.stderr)),
        "hook": str(sys.excepthook),
        "collection": (gc.isenabled(), gc.get_threshold()),
        "bars": (
            datasets.are_progress_bars_disabled(),
            huggingface_hub.utils.are_progress_bars_disabled(),
            transformers.utils.logging.is_progress_bar_enabled(),
        ),
        "verbosity": (
            datasets.logging.get_verbosity(),
            huggingface_hub.logging.get_verbosity(),
            transformers.utils.logging.get_verbosity(),
        ),
        "caching": datasets.is_caching_enabled(),
        "matplotlib": {name: str(value) for name, value in dict.copy(matplotlib.rcParams).items()},
        "accelerate": (str(PartialState._shared_state), str(AcceleratorState._shared_state)),
        "threads alive": sorted(thread.name for thread in threading.enumerate()),
    }


def in_child(method: str, values: dict[str, Any]) -> str:
    context: Any = multiprocessing.get_context(method)
    child = context.Process(target=distil, args=(values,))
    child.start()
    child.join(200)
    if child.exitcode != 0:
        raise RuntimeError(f"the child of {method} ended with {child.exitcode}")
    return str(Path(values["output_dir"]) / values["folder_name"])


def distil(values: dict[str, Any]) -> str:
    return str(distill_models(**values).run_directory)


def in_thread(values: dict[str, Any]) -> str:
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(distil(values)))
    thread.start()
    thread.join()
    return found[0]


def in_event_loop(values: dict[str, Any]) -> str:
    """As a cell of a notebook is."""

    async def cell() -> str:
        return distil(values)

    return asyncio.run(cell())


def main() -> None:
    values = json.loads(sys.argv[1])
    # Settings that nobody has by chance.
    random.seed(5)
    np.random.seed(6)
    torch.manual_seed(7)
    warnings.filterwarnings("ignore", message="of the caller")
    logging.getLogger("transformers").setLevel(logging.INFO)
    signal.signal(signal.SIGTERM, lambda *_: None)
    csv.field_size_limit(12345)
    os.environ["ACCELERATE_MIXED_PRECISION"] = "bf16"

    # What is loaded with the first run is not there before.
    distil({**values[0], "folder_name": "warm-up"})
    differences: dict[str, list[str]] = {}
    report: dict[str, Any] = {}

    def compare(name: str, call: Callable[[], str | None]) -> None:
        before = snapshot()
        folder = call()
        after = snapshot()
        different = [key for key in before if before[key] != after[key]]
        if different:
            differences[name] = [f"{key}: {str(before[key])[:300]} -> {str(after[key])[:300]}" for key in different]
        if folder is not None:
            report[name] = folder

    def refused() -> None:
        with contextlib.suppress(DistillkitError):
            distill_models(**{**values[0], "epochs": "many"})

    def failing() -> None:
        with contextlib.suppress(DistillkitError):
            distill_models(**{**values[0], "folder_name": "failing", "learning_rate": 1e30})

    compare("first", lambda: distil(values[0]))
    compare("again", lambda: distil(values[1]))
    compare("refused", refused)
    compare("failing", failing)
    compare("thread", lambda: in_thread(values[2]))
    compare("event loop", lambda: in_event_loop(values[3]))
    compare("forked", lambda: in_child("fork", values[4]))
    compare("spawned", lambda: in_child("spawn", values[5]))
    json.dump({**report, "differences": differences}, sys.stdout)


if __name__ == "__main__":
    main()

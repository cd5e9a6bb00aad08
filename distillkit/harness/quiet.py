"""Keeps the harness's own bars and advice off the terminal, and its pool of processes away."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator

from distillkit.silence_libraries import silence_datasets, silence_transformers

# Read by the harness: without it standard errors are drawn in a pool of forked processes, which a signal would not reach.
_NO_POOL = "DISABLE_MULTIPROC"


@contextlib.contextmanager
def quiet_harness() -> Iterator[None]:
    """Inside, lm_eval logs errors only, draws no bars, warns of nothing and starts no processes; errors are raised as ever."""
    import tqdm

    logger, before = logging.getLogger("lm_eval"), os.environ.get(_NO_POOL)
    level, make_bar = logger.level, tqdm.std.tqdm.__init__
    logger.setLevel(logging.ERROR)
    # Its bars cannot be switched off all together: some of its calls ask for them.
    tqdm.std.tqdm.__init__ = lambda bar, *given, **named: make_bar(bar, *given, **{**named, "disable": True})  # type: ignore[method-assign]
    os.environ[_NO_POOL] = "1"
    try:
        with silence_transformers(), silence_datasets(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
        tqdm.std.tqdm.__init__ = make_bar  # type: ignore[method-assign]
        if before is None:
            del os.environ[_NO_POOL]
        else:
            os.environ[_NO_POOL] = before

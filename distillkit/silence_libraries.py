"""Keeps the libraries' own progress bars and advice off the terminal: the console speaks for the program.

Every context manager restores what it found; errors are raised as ever.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator


@contextlib.contextmanager
def silence_transformers() -> Iterator[None]:
    """transformers logs errors only, and draws no progress bars."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars
    from transformers.utils import logging as transformers_logging

    level = transformers_logging.get_verbosity()
    bars, no_hub_bars = transformers_logging.is_progress_bar_enabled(), are_progress_bars_disabled()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
        if no_hub_bars:  # Its switch turns those of huggingface_hub as well.
            disable_progress_bars()


@contextlib.contextmanager
def silence_gguf_reader() -> Iterator[None]:
    """Like `silence_transformers`, for reading a GGUF file: its bar goes straight to stderr, and nothing switches it off."""
    with silence_transformers(), contextlib.redirect_stderr(io.StringIO()):
        yield


@contextlib.contextmanager
def silence_hub(*, keep_bars: bool = False) -> Iterator[None]:
    """huggingface_hub logs nothing, not even its retries (whoever calls it reports them), and draws no progress bars.

    Args:
        keep_bars: for a caller who gives it a bar of its own, which would be switched off too.
    """
    from huggingface_hub import logging as hub_logging
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    level, bars = hub_logging.get_verbosity(), not are_progress_bars_disabled()
    hub_logging.set_verbosity(logging.CRITICAL)
    if bars and not keep_bars:
        disable_progress_bars()
    try:
        yield
    finally:
        hub_logging.set_verbosity(level)
        if bars and not keep_bars:
            enable_progress_bars()


@contextlib.contextmanager
def silence_datasets() -> Iterator[None]:
    """datasets, and huggingface_hub through which it reads, log errors at most, and draw no progress bars."""
    import datasets

    level, bars = datasets.logging.get_verbosity(), not datasets.are_progress_bars_disabled()
    datasets.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    try:
        with silence_hub():
            yield
    finally:
        datasets.logging.set_verbosity(level)
        if bars:
            datasets.enable_progress_bars()

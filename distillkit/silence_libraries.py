"""Keeps the libraries' own progress bars and advice off the terminal: the console speaks for the program."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator


@contextlib.contextmanager
def silence_transformers() -> Iterator[None]:
    """Errors only, and no progress bars, inside the block."""
    from transformers.utils import logging as transformers_logging

    level = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()


@contextlib.contextmanager
def silence_hub() -> Iterator[None]:
    """The same for huggingface_hub, which reports every retry; what is worth knowing is said by the caller."""
    from huggingface_hub import logging as hub_logging

    level = hub_logging.get_verbosity()
    hub_logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        hub_logging.set_verbosity(level)

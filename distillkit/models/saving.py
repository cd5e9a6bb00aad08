"""Saving weights: safetensors hides what the system said, such as a full disk, in an error of its own."""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Iterator

from safetensors import SafetensorError


@contextlib.contextmanager
def plain_save_errors() -> Iterator[None]:
    """Turn a SafetensorError of the block back into the OSError that it stands for."""
    try:
        yield
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        raise OSError(int(number[1]) if number else errno.EIO, str(error)) from error

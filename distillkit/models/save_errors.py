"""Saving weights: the libraries hide what the system said, such as a full disk, in errors of their own."""

from __future__ import annotations

import contextlib
import errno
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

# torch's messages when its C++ stream could not write; they do not name the errno.
_TORCH = re.compile(r"iostream error|inline_container|PytorchStreamWriter")
# A disk with less than this is full, whatever the write was that failed.
_NEXT_TO_NOTHING = 1 << 20


@contextlib.contextmanager
def plain_save_errors(folder: Path) -> Iterator[None]:
    """Turn what safetensors, tokenizers and torch raise in the block back into the OSError that it stands for.

    Args:
        folder: where they write.

    Raises:
        OSError: the disk is full, or cannot be written.
        Exception: anything else that the block raised.
    """
    try:
        yield
    except Exception as error:
        # tokenizers raises plain `Exception`; both of them quote the system.
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number and not isinstance(error, OSError):
            raise OSError(int(number[1]), str(error)) from error
        if isinstance(error, SafetensorError):
            raise OSError(errno.EIO, str(error)) from error
        if type(error) is RuntimeError and _TORCH.search(str(error)):
            full = shutil.disk_usage(folder).free < _NEXT_TO_NOTHING
            raise OSError(errno.ENOSPC if full else errno.EIO, "torch could not write to it") from error
        raise

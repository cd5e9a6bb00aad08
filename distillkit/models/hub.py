"""Models from the Hugging Face Hub (or whatever HF_ENDPOINT names): what is fetched, and what is said when it fails."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from tqdm import tqdm

from distillkit.console import Console, ProgressHandle
from distillkit.errors import DistillkitError, PreconditionError
from distillkit.hub_answers import is_offline, is_unreachable, reason
from distillkit.interrupts import check_interrupted, pending

# Weights are safetensors or GGUF only: pickles can run code.
WEIGHT_PATTERNS = ["*.safetensors", "*.safetensors.index.json"]
OTHER_PATTERNS = ["*.json", "*.model", "*.txt", "*.tiktoken", "*.py", "*.jinja", "tokenizer*", "vocab*"]
IGNORED_PATTERNS = [
    "*/*",
    "*.bin*",
    "*.pt",
    "*.pth",
    "*.h5",
    "*.msgpack",
    "*.onnx",
    "*.ot",
    "*.ckpt*",
    "*.tflite",
    "*.gguf",
]
_ATTEMPTS = 4
_FIRST_PAUSE_SECONDS = 1.0
_CHOICES = "give a local folder with --{role}-model-path, or try --preset quickstart, which needs no hub"


def download_model(repo_id: str, revision: str | None, console: Console, *, role: str = "teacher") -> tuple[Path, str]:
    """A snapshot of a model repository, from the cache where the Hub is out of reach.

    Args:
        role: "teacher" or "student", for the hints.

    Returns:
        The folder, and the commit.

    Raises:
        PreconditionError: unknown or gated id, unknown revision, no way to the Hub and no cached copy, only pickles.
    """
    pause = _FIRST_PAUSE_SECONDS
    for attempt in range(1, _ATTEMPTS + 1):
        check_interrupted()
        try:
            folder = _download(repo_id, revision, console, role)
            break
        except (OSError, RuntimeError) as error:
            # An interruption of a worker thread comes back wrapped; the signal is what counts.
            check_interrupted()
            if not is_unreachable(error) or is_offline(error) or attempt == _ATTEMPTS:
                raise _explained(error, repo_id, revision, role) from error
            console.info(f"{repo_id}: {reason(error)}; trying again in {pause:.0f} s ({attempt} of {_ATTEMPTS - 1})")
            time.sleep(pause)
            pause *= 2
    else:
        raise AssertionError("unreachable: the last attempt returns or raises")
    return folder, folder.name


def _download(repo_id: str, revision: str | None, console: Console, role: str) -> Path:
    wanted = [*WEIGHT_PATTERNS, *OTHER_PATTERNS]
    try:
        files = HfApi().list_repo_files(repo_id, revision=revision)
    except (OSError, RuntimeError) as error:
        if not (is_offline(error) or is_unreachable(error)):
            raise
        try:
            cached = snapshot_download(
                repo_id,
                revision=revision,
                local_files_only=True,
                allow_patterns=wanted,
                ignore_patterns=IGNORED_PATTERNS,
            )
        except LocalEntryNotFoundError:
            raise error from None
        console.info(f"{repo_id}: {reason(error)}; the copy in the cache is used")
        return Path(cached)
    if not any(name.endswith(".safetensors") and "/" not in name for name in files):
        raise _no_safetensors(repo_id, files, role)
    with console.progress(f"downloading {repo_id}", unit="bytes") as progress:
        return Path(
            snapshot_download(
                repo_id, revision=revision, allow_patterns=wanted, ignore_patterns=IGNORED_PATTERNS,
                tqdm_class=_bar_class(progress), max_workers=4,
            )
        )  # fmt: skip


def _no_safetensors(repo_id: str, files: list[str], role: str) -> DistillkitError:
    pickles = [name for name in files if name.endswith((".bin", ".pt", ".pth"))]
    if pickles:
        return PreconditionError(
            f"{repo_id} has its weights only as pickle ({pickles[0]}), which can run code when loaded: refused",
            hint="convert it to safetensors (https://huggingface.co/spaces/safetensors/convert), then "
            + _CHOICES.format(role=role),
        )
    return PreconditionError(f"{repo_id} has no safetensors weights", hint=_CHOICES.format(role=role))


def _explained(error: BaseException, repo_id: str, revision: str | None, role: str) -> BaseException:
    if isinstance(error, DistillkitError):
        return error
    choices = _CHOICES.format(role=role)
    if isinstance(error, GatedRepoError):
        return PreconditionError(
            f"model {repo_id}: access has to be asked for on the Hub (it is gated)",
            hint=f"accept its terms on its page, then `hf auth login` or set HF_TOKEN; or {choices}",
        )
    if isinstance(error, RevisionNotFoundError):
        return PreconditionError(
            f"model {repo_id}: no revision {revision!r} on the Hub", hint="name another one after '@'"
        )
    if isinstance(error, RepositoryNotFoundError):
        return PreconditionError(
            f"model {repo_id}: not on the Hub, or private",
            hint=f"check the id; for a private one `hf auth login` or set HF_TOKEN; or {choices}",
        )
    if is_offline(error) or is_unreachable(error) or isinstance(error, LocalEntryNotFoundError):
        return PreconditionError(
            f"model {repo_id}: {reason(error)}, and no copy of it is on this machine", hint=choices
        )
    if isinstance(error, HfHubHTTPError):
        return PreconditionError(f"model {repo_id}: {reason(error)}", hint=choices)
    if isinstance(error, OSError) and error.errno is not None:
        return DistillkitError(
            f"model {repo_id}: cannot be stored in the Hub's cache: {error.strerror}",
            hint="free some space, or set HF_HOME to another place",
        )
    return error


def _bar_class(progress: ProgressHandle) -> Any:
    """A tqdm class whose byte bars move our display; file counts stay silent."""
    lock = threading.Lock()

    class Bar(tqdm):  # type: ignore[type-arg]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self._counts_bytes = kwargs.get("unit") == "B"
            kwargs.pop("name", None)
            # Disabled: it prints nothing and needs no terminal; `total` and `update` are forwarded instead.
            kwargs["disable"] = True
            super().__init__(*args, **kwargs)
            self._sum = 0.0

        def update(self, n: float | None = 1) -> bool | None:
            if pending() is not None:
                # In a worker thread: leave the transfer; the main thread raises what the signal asks for.
                raise InterruptedError("a signal arrived")
            if self._counts_bytes and n:
                with lock, contextlib.suppress(AttributeError):
                    self._sum += n
                    progress.update(completed=max(progress.completed, self._sum), total=self.total or None)
            return None

    return Bar

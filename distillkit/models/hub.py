"""Models from the Hugging Face Hub (or whatever HF_ENDPOINT names): what is fetched, and what is said when it fails."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import filter_repo_objects
from tqdm import tqdm

from distillkit.console import Console, ProgressHandle
from distillkit.errors import DistillkitError, PreconditionError
from distillkit.hub import is_offline, is_unreachable, reason
from distillkit.interrupts import check_interrupted, pending
from distillkit.silence_libraries import silence_hub

# Weights are safetensors or GGUF only: pickles can run code.
WEIGHT_PATTERNS = ["*.safetensors", "*.safetensors.index.json"]
# The card tells the licence.
OTHER_PATTERNS = ["*.json", "*.model", "*.txt", "*.tiktoken", "*.py", "*.jinja", "tokenizer*", "vocab*", "README.md"]
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
    # The same weights once more, in the layout of another program, and adapters without their model.
    "consolidated*.safetensors",
    "adapter_*",
]
_TIMEOUT_SECONDS = 20.0
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
            with silence_hub():
                folder = _download(repo_id, revision, console, role)
            return folder, folder.name
        except DistillkitError:
            raise
        except Exception as error:
            # Not only OSError: the errors of the HTTP client are of its own kind, and differ between its versions.
            # An interruption of a worker thread comes back wrapped; the signal is what counts.
            check_interrupted()
            if not is_unreachable(error) or is_offline(error) or attempt == _ATTEMPTS:
                known = _explained(error, repo_id, revision, role)
                if known is None:
                    raise
                raise known from error
            console.info(f"{repo_id}: {reason(error)}; trying again in {pause:.0f} s ({attempt} of {_ATTEMPTS - 1})")
            time.sleep(pause)
            pause *= 2
    raise AssertionError("unreachable: the last attempt returns or raises")


def _download(repo_id: str, revision: str | None, console: Console, role: str) -> Path:
    wanted = [*WEIGHT_PATTERNS, *OTHER_PATTERNS]
    try:
        # One request without retries of its own, so that a Hub that is away is noticed at once.
        found = HfApi().model_info(repo_id, revision=revision, timeout=_TIMEOUT_SECONDS)
    except Exception as error:
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
    files = [file.rfilename for file in found.siblings or ()]
    if not list(filter_repo_objects(files, allow_patterns=WEIGHT_PATTERNS, ignore_patterns=IGNORED_PATTERNS)):
        raise _no_safetensors(repo_id, files, role)
    with console.progress(f"downloading {repo_id}", unit="bytes") as progress:
        folder = Path(
            snapshot_download(
                repo_id, revision=revision, allow_patterns=wanted, ignore_patterns=IGNORED_PATTERNS,
                tqdm_class=_bar_class(progress), max_workers=4,
            )
        )  # fmt: skip
    if folder.name != found.sha:
        # The Hub failed between the two requests, and its library then takes what the cache has.
        console.warn(f"{repo_id}: commit {folder.name[:12]} from the cache is used, not {str(found.sha)[:12]}")
    return folder


def _no_safetensors(repo_id: str, files: list[str], role: str) -> DistillkitError:
    pickles = [name for name in files if name.endswith((".bin", ".pt", ".pth"))]
    if pickles:
        return PreconditionError(
            f"{repo_id} has its weights only as pickle ({pickles[0]}), which can run code when loaded: refused",
            hint="convert it to safetensors (https://huggingface.co/spaces/safetensors/convert), then "
            + _CHOICES.format(role=role),
        )
    return PreconditionError(f"{repo_id} has no safetensors weights", hint=_CHOICES.format(role=role))


def _explained(error: Exception, repo_id: str, revision: str | None, role: str) -> DistillkitError | None:
    """What to say instead; None for what is no fault of the user's, the network's or the Hub's."""
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
            f"model {repo_id}: {reason(error)}, and no complete copy of it is on this machine", hint=choices
        )
    if isinstance(error, HfHubHTTPError):
        return PreconditionError(f"model {repo_id}: {reason(error)}", hint=choices)
    if isinstance(error, OSError) and error.errno is not None:
        return DistillkitError(
            f"model {repo_id}: cannot be stored in the Hub's cache: {error.strerror}: {error.filename}",
            hint="free some space, or set HF_HOME to another place",
        )
    if isinstance(error, ValueError):
        return PreconditionError(
            f"model {repo_id}: what answers at {constants.ENDPOINT} is no model hub",
            hint=f"check HF_ENDPOINT, and whether a proxy or a login page is in between; or {choices}",
        )
    return None


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
                with lock:
                    self._sum += n
                    progress.update(completed=max(progress.completed, self._sum), total=self.total or None)
            return None

    return Bar

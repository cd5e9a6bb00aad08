"""A student that is written as an adapter (`--keep-adapter`): what the adapter is for, and where that lies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from distillkit.console import Console
from distillkit.models.adapters import BASE, merged_model, read_adapter
from distillkit.models.located import LocatedModel
from distillkit.models.lora import base, save_adapter
from distillkit.models.model_files import quantised_how
from distillkit.models.references import ModelReference
from distillkit.models.student_files import copy_kept_files, save_student
from distillkit.run.pair import ModelPair
from distillkit.settings.parameters import Parameters


def keeps_adapter(config: Parameters) -> bool:
    """Whether a configuration writes its student as an adapter."""
    return config.adapter != "none" and config.keep_adapter


def adapter_base(pair: ModelPair) -> str:
    """The model that the adapter of a run's student is for: a repository of the Hub, the path of a folder, or `BASE` where it
    is neither, because the student was cut, fitted, converted, given rows, or is quantised."""
    student = pair.student
    changed = pair.start is not None or pair.student_rows is not None or quantised_how(student.folder) is not None
    if student.reference.kind == "hub" and not changed:
        return str(student.reference.repo_id)
    return str(student.folder.resolve()) if student.reference.kind == "folder" and not changed else BASE


@dataclass(frozen=True)
class KeptAdapter:
    """Where an adapter that is kept finds the model that it is for.

    Attributes:
        origin: the model that the student was made from.
        name: what `adapter_config.json` names: a repository of the Hub, or a folder.
        revision: the commit of a repository.
        has_base: the model is nowhere else, so it lies in `base/` of the adapter's folder.
    """

    origin: LocatedModel
    name: str
    revision: str | None
    has_base: bool

    @classmethod
    def of(cls, pair: ModelPair, folder: Path) -> KeptAdapter:
        """Of the student of a run that is written to a folder."""
        student, named = pair.student, adapter_base(pair)
        if named == BASE:
            return cls(student, str(folder.resolve() / BASE), None, has_base=True)
        return cls(student, named, student.revision, has_base=False)

    def write(self, target: Path, model: nn.Module, *, trust_remote_code: bool) -> None:
        """Fill a folder with the adapter, the files of its tokenizer and, where it is nowhere else, the model.

        Raises:
            OSError, ValueError: a file cannot be read or written.
        """
        save_adapter(target, model, self.name, self.revision)
        copy_kept_files(target, self.origin.folder)
        if self.has_base:
            (target / BASE).mkdir()
            save_student(target / BASE, base(model), self.origin.folder, trust_remote_code=trust_remote_code)

    def read(self, target: Path, *, trust_remote_code: bool) -> nn.Module:
        """What `write` wrote, merged.

        Raises:
            PreconditionError: it cannot be loaded.
        """
        located = self.origin
        if self.has_base:
            located = LocatedModel(ModelReference("folder", str(target / BASE), path=target / BASE), target / BASE)
        return merged_model(
            read_adapter(target), located, dtype=torch.float32, trust_remote_code=trust_remote_code,
            console=Console(quiet=True),
        )  # fmt: skip

"""What a teacher is to the rest of the program: hidden states and a head; targets for a batch; a source of both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from torch import Tensor

from distillkit.losses.chunked import SoftTargets
from distillkit.losses.mapped_mass import MappedMass
from distillkit.losses.sparse import SparseTargets

if TYPE_CHECKING:
    from distillkit.run.context import TrainingContext


class Teacher(Protocol):
    """A teacher, run on the spot or remembered."""

    def hidden(self, batch: Mapping[str, Any]) -> Tensor:
        """[B·T_t, D_t] last hidden states of `teacher_input_ids`, without a graph."""
        ...

    def head(self, hidden_nD: Tensor) -> Tensor:
        """[n, D_t] -> [n, U] logits, without a graph; whoever asks may write on them, and the next call may too."""
        ...


@runtime_checkable
class TargetMaker(Protocol):
    """The teacher's distributions in the student's tokens, for the rows of a batch."""

    @property
    def mass(self) -> MappedMass:
        """How much of the teacher's probability the student has tokens for, summed up so far."""
        ...

    def prepare(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """What of the targets follows from the batch alone. Called where batches are made, on the processor; tensors of
        the answer go to the device with the batch, as `batch["prepared"]`."""
        ...

    def soft_targets(self, batch: Mapping[str, Any]) -> SoftTargets | SparseTargets:
        """The teacher's distributions at the rows that are used."""
        ...


class TeacherSource(Protocol):
    """Where a white-box training takes its teacher from. `registry.TEACHER_SOURCES` names the functions that open one."""

    @property
    def pairs_rows(self) -> bool:
        """Whether batches need the aligned rows, where rows are paired at all."""
        ...

    def signal(self, context: TrainingContext) -> Any:
        """What the student learns from the teacher: a `TargetMaker`, or a `training.objectives.Objective` where the alignment
        has a loss of its own."""
        ...

    def totals(self) -> tuple[int, float]:
        """(tokens, seconds) of the forward passes during training; (0, 0.0) where there are none."""
        ...

    def restore_totals(self, tokens: int, seconds: float) -> None:
        """Take over the totals of an interrupted attempt."""
        ...

    def gives_numbers(self, batch: Mapping[str, Any]) -> bool:
        """Whether the hidden states of a batch are finite."""
        ...

    def figures(self) -> dict[str, Any]:
        """The teacher pass, for metrics.json: tokens, seconds, tokens_per_second, cached_tokens, cache_bytes."""
        ...

"""How the temperature and the weights of the two terms go over a training.

`temperature_schedule: anneal`: τ(t) = τ + (1 - τ)·t. `alpha_schedule: decay`: α(t) = α·(1 - t) and β(t) = β + α·t, so that
their sum stays. t is the fraction of the training that is behind, 0 at the first step and 1 at the last; it depends on the
step and the number of steps alone, as the learning rate does: a resumed run goes on where it was, and epochs that are added
later stretch what is left.
"""

from __future__ import annotations

from dataclasses import dataclass

from distillkit.run.context import needs_teacher
from distillkit.settings.conditions import anneals
from distillkit.settings.parameters import Parameters


def training_fraction(step: int, steps: int) -> float:
    """How much of a training of `steps` steps is behind at a step, counted from 0: 0 at the first, 1 at the last."""
    return min(1.0, step / max(1, steps - 1))


def annealed(temperature: float, fraction: float) -> float:
    """The temperature when this much of the training is behind: linearly from `temperature` to 1."""
    return temperature + (1 - temperature) * fraction


@dataclass(frozen=True)
class Course:
    """What changes over a training.

    Attributes:
        temperature: where the temperature begins that falls to 1; None: it stays.
        decays: whether the weight of the soft term falls to 0.
    """

    temperature: float | None = None
    decays: bool = False

    @classmethod
    def of(cls, config: Parameters) -> Course:
        """What changes in the training of a configuration; nothing where the teacher has no part in it."""
        if not needs_teacher(config):
            return cls()
        return cls(config.temperature if anneals(vars(config)) else None, config.alpha_schedule == "decay")

    def weights(self, alpha: float, beta: float, fraction: float) -> tuple[float, float]:
        """(α, β) when this much of the training is behind.

        Args:
            alpha, beta: at the beginning.
        """
        return (alpha * (1 - fraction), beta + alpha * fraction) if self.decays else (alpha, beta)

    def figures(self, alpha: float, beta: float, fraction: float) -> dict[str, float]:
        """What changes, by the name of its parameter, for the log."""
        found = {"alpha": self.weights(alpha, beta, fraction)[0]} if self.decays else {}
        if self.temperature is not None:
            found["temperature"] = annealed(self.temperature, fraction)
        return found


CONSTANT = Course()

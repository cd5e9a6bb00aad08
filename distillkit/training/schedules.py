"""How the learning rate, the temperature and the weights of the two terms go over a training.

`temperature_schedule: anneal`: τ(t) = τ + (1 - τ)·t. `alpha_schedule: decay`: α(t) = α·(1 - t); `tempered`: α(t) = α/τ(t)²,
which takes the factor τ² of the soft term off again. β(t) = β + α - α(t): the sum of the weights stays. t is the fraction of the
training that is behind, 0 at the first step and 1 at the last; it depends on the step and the number of steps alone, as the
learning rate does: a resumed run goes on where it was, and epochs that are added later stretch what is left.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch.optim.lr_scheduler import LambdaLR

from distillkit.run.context import needs_teacher
from distillkit.settings.conditions import anneals, is_tempered
from distillkit.settings.parameters import Parameters


def schedule_factor(schedule: str, warmup: int, total: int, step: int) -> float:
    """What the learning rate is multiplied by at a step, counted from 0.

    It rises over `warmup` steps and then falls towards zero, linearly or as half a cosine. Unlike the library's
    schedules neither the first nor the last step is spent on a learning rate of zero.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1, total - warmup)
    if schedule == "constant":
        return 1.0
    return max(0.0, 1 - done) if schedule == "linear" else 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def keep_to_schedule(scheduler: LambdaLR) -> None:
    """Give the optimizer of a resumed training the rate of its own schedule.

    A checkpoint's rate is that of the number of steps it was made with: after epochs were added the next step would get it
    still (0 at the end of a linear schedule), and only the one after that the rate of the new schedule.
    """
    rates = [
        base * factor(scheduler.last_epoch)
        for base, factor in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
    ]
    for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    scheduler._last_lr = rates


def training_fraction(step: int, steps: int) -> float:
    """How much of a training of `steps` steps is behind at a step, counted from 0: 0 at the first, 1 at the last."""
    return min(1.0, step / max(1, steps - 1))


def annealed(temperature: float, fraction: float) -> float:
    """The temperature when this much of the training is behind: linearly from `temperature` to 1."""
    return temperature + (1 - temperature) * fraction


@dataclass(frozen=True)
class Course:
    """What changes over a training, or is otherwise than alpha, beta and temperature say.

    Attributes:
        temperature: τ at the beginning.
        anneals: whether τ falls to 1.
        decays: whether the weight of the soft term falls to 0.
        tempered: whether the weight of the soft term is divided by τ².
    """

    temperature: float = 1.0
    anneals: bool = False
    decays: bool = False
    tempered: bool = False

    @classmethod
    def of(cls, config: Parameters) -> Course:
        """That of the training of a configuration; nothing changes where the teacher has no part in it."""
        values = vars(config)
        if not needs_teacher(config):
            return cls()
        return cls(config.temperature, anneals(values), config.alpha_schedule == "decay", is_tempered(values))

    def temperature_at(self, fraction: float) -> float:
        """τ when this much of the training is behind."""
        return annealed(self.temperature, fraction) if self.anneals else self.temperature

    def weights(self, alpha: float, beta: float, fraction: float) -> tuple[float, float]:
        """(α, β) when this much of the training is behind.

        Args:
            alpha, beta: as the configuration has them.
        """
        if not (self.decays or self.tempered):
            return alpha, beta
        soft = alpha * (1 - fraction) if self.decays else alpha / self.temperature_at(fraction) ** 2
        return soft, beta + alpha - soft

    def figures(self, alpha: float, beta: float, fraction: float) -> dict[str, float]:
        """What is otherwise than the configuration says, by the name of its parameter, for the log."""
        found = {"alpha": self.weights(alpha, beta, fraction)[0]} if self.decays or self.tempered else {}
        return found | ({"temperature": self.temperature_at(fraction)} if self.anneals else {})


CONSTANT = Course()

"""How temperature and weight of the teacher may go over a training: the shapes that the experiment compares.

`anneal` and `decay` are those of `distillkit distill`; the others are only tried here. Everywhere 0 ≤ t ≤ 1 is how much of
the training is behind, and the weight of the true tokens is 1 less the teacher's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Shape = Callable[[float, float], float]
"""(value at the beginning, t) -> value."""


def constant(value: float, t: float) -> float:
    return value


def anneal(value: float, t: float) -> float:
    """Linearly to 1."""
    return value + (1 - value) * t


def decay(value: float, t: float) -> float:
    """Linearly to 0."""
    return value * (1 - t)


def by(share: float, shape: Shape) -> Shape:
    """A shape that is over when so much of the training is behind."""
    return lambda value, t: shape(value, min(1.0, t / share))


def warm_hold_decay(value: float, t: float) -> float:
    """From 0 in the first tenth, to 0 in the second half (WSD-α, arXiv 2410.16215)."""
    return value * min(1.0, t / 0.1, (1 - t) / 0.5)


@dataclass(frozen=True)
class Course:
    """τ and α over a training.

    Attributes:
        temperature, alpha: their shapes.
        weighing: "plain": the weights of τ²·KL and CE are α(t) and 1 - α(t). "unsquared": the factor τ² is left out.
            "tempered": α(t) is divided by τ², and CE has all the rest.
    """

    temperature: Shape = constant
    alpha: Shape = constant
    weighing: str = "plain"

    def weights(self, temperature: float, alpha: float, t: float) -> tuple[float, float]:
        """What τ²·KL and CE are multiplied by.

        Args:
            temperature, alpha: at the beginning.
        """
        alpha = self.alpha(alpha, t)
        soft = alpha if self.weighing == "plain" else alpha / self.temperature(temperature, t) ** 2
        return soft, 1 - (soft if self.weighing == "tempered" else alpha)


CONSTANT = Course()
COURSES = {
    "constant": CONSTANT,
    "anneal": Course(temperature=anneal),
    "decay": Course(alpha=decay),
    "anneal and decay": Course(anneal, decay),
    "anneal by 70 %": Course(temperature=by(0.7, anneal)),
    "anneal by 40 %": Course(temperature=by(0.4, anneal)),
    "anneal by 20 %": Course(temperature=by(0.2, anneal)),
    "decay by 70 %": Course(alpha=by(0.7, decay)),
    "anneal and decay by 70 %": Course(by(0.7, anneal), by(0.7, decay)),
    "warm-up, hold, decay": Course(alpha=warm_hold_decay),
    "anneal, warm-up, hold, decay": Course(anneal, warm_hold_decay),
    "without τ²": Course(weighing="unsquared"),
    "anneal without τ²": Course(temperature=anneal, weighing="unsquared"),
    "anneal by 40 % without τ²": Course(temperature=by(0.4, anneal), weighing="unsquared"),
    "anneal and decay, without τ²": Course(anneal, decay, weighing="unsquared"),
    "tempered": Course(weighing="tempered"),
    "anneal, tempered": Course(temperature=anneal, weighing="tempered"),
    "anneal by 40 %, tempered": Course(temperature=by(0.4, anneal), weighing="tempered"),
}

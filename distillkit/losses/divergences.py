"""Divergences between two rows of log-probabilities, as pure functions in log space.

Each takes the teacher's p and the student's q as [N, V] normalised log-probabilities and gives [N] nats, zero exactly
where they are equal. A column to which both give nothing (-inf) contributes nothing, to the value and to the gradient.
The teacher is a constant: no gradient is sent to it.

`registry.DIVERGENCES` names them for the user, and is the only list. A divergence may have further parameters, each with
a default; `Divergence` fills them with the run's settings of the same names.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from distillkit import registry
from distillkit.errors import PreconditionError

# Stands in for log p where the teacher rules a token out and log p itself is needed: e^-100 is below everything that a
# float32 softmax can give, and -inf would make every student infinitely wrong.
IMPOSSIBLE = -100.0


class Divergence:
    """A registered divergence with the settings of a run.

    Args:
        name: a key of `registry.DIVERGENCES`.
        settings: values for the function's further parameters, by their names: `mix`, `ab_alpha`, `ab_beta` and
            whatever a registered function takes. None stands for the function's own default; a setting that the function
            does not take has no effect.

    Attributes:
        function: (teacher's log-probabilities [N, V], student's [N, V], **settings) -> [N] nats.

    Raises:
        ValueError: nothing is registered under the name.
        PreconditionError: another package registers it, and its code cannot be loaded, or gives no divergences.
    """

    def __init__(self, name: str, **settings: float | None) -> None:
        if name not in registry.DIVERGENCES:
            raise ValueError(f"no divergence is called {name!r}")
        self.name = name
        self.function: Callable[..., Tensor] = registry.resolve(registry.DIVERGENCES, name)
        self._added = registry.DIVERGENCES.added.get(name)
        self._parameters = frozenset(list(inspect.signature(self.function).parameters)[2:])
        self.settings: Mapping[str, float] = {
            setting: value for setting, value in settings.items() if setting in self._parameters and value is not None
        }

    def __call__(
        self, teacher_log_probs_NV: Tensor, student_log_probs_NV: Tensor, *, training_fraction: float = 1.0
    ) -> Tensor:
        """[N] nats.

        Args:
            teacher_log_probs_NV, student_log_probs_NV: [N, V] normalised log-probabilities.
            training_fraction: how much of the training is behind, 0 to 1; for a function that changes with it.
        """
        varying = {"training_fraction": training_fraction} if "training_fraction" in self._parameters else {}
        found = self.function(teacher_log_probs_NV, student_log_probs_NV, **self.settings, **varying)
        # A sum of all rows would be spread over them without a word, and train something else.
        if self._added is not None and getattr(found, "shape", None) != teacher_log_probs_NV.shape[:1]:
            shape = list(found.shape) if isinstance(found, Tensor) else f"of a {type(found).__name__}"
            raise PreconditionError(
                f"divergence {self.name!r} of {self._added.package} gives a shape {shape}, not one number for each of the "
                f"{len(teacher_log_probs_NV)} rows",
                hint="mend or update that package, or choose another --divergence",
            )
        return found


def forward_kl(teacher_log_probs_NV: Tensor, student_log_probs_NV: Tensor) -> Tensor:
    """KL(p ‖ q) = Σ p·log(p/q)  (Hinton et al. 2015, arXiv 1503.02531)."""
    teacher = teacher_log_probs_NV.detach()
    return _relative_entropy(teacher, student_log_probs_NV, teacher.exp())


def reverse_kl(teacher_log_probs_NV: Tensor, student_log_probs_NV: Tensor) -> Tensor:
    """KL(q ‖ p) = Σ q·log(q/p)  (MiniLLM, arXiv 2306.08543), with log p no lower than `IMPOSSIBLE`."""
    teacher, student = _both_possible(teacher_log_probs_NV, student_log_probs_NV)
    return _relative_entropy(student, teacher.clamp(min=IMPOSSIBLE), student.exp())


def jensen_shannon(teacher_log_probs_NV: Tensor, student_log_probs_NV: Tensor, mix: float = 0.5) -> Tensor:
    """λ·KL(p ‖ m) + (1-λ)·KL(q ‖ m), m = λp + (1-λ)q  (GKD, arXiv 2306.13649).

    Near its ends it is λ·KL(p ‖ q) and (1-λ)·KL(q ‖ p), and is reached there without cancellation: every summand is
    the Bregman form a·log(a/m) - a + m, none of which is negative; what is added sums to zero.

    Args:
        mix: λ.

    Raises:
        ValueError: `mix` is not between 0 and 1.
    """
    teacher, student = _both_possible(teacher_log_probs_NV, student_log_probs_NV)
    middle = _mixture(teacher, student, mix)
    return (mix * _bregman(teacher, middle) + (1 - mix) * _bregman(student, middle)).sum(-1)


def skew_kl(teacher_log_probs_NV: Tensor, student_log_probs_NV: Tensor, mix: float = 0.1) -> Tensor:
    """KL(p ‖ λp + (1-λ)q)  (DistiLLM, arXiv 2402.03898).

    Args:
        mix: λ.

    Raises:
        ValueError: `mix` is not between 0 and 1.
    """
    teacher, student = _both_possible(teacher_log_probs_NV, student_log_probs_NV)
    return _relative_entropy(teacher, _mixture(teacher, student, mix), teacher.exp())


def skew_reverse_kl(teacher_log_probs_NV: Tensor, student_log_probs_NV: Tensor, mix: float = 0.1) -> Tensor:
    """KL(q ‖ λq + (1-λ)p)  (DistiLLM, arXiv 2402.03898).

    Args:
        mix: λ.

    Raises:
        ValueError: `mix` is not between 0 and 1.
    """
    teacher, student = _both_possible(teacher_log_probs_NV, student_log_probs_NV)
    return _relative_entropy(student, _mixture(student, teacher, mix), student.exp())


def total_variation(teacher_log_probs_NV: Tensor, student_log_probs_NV: Tensor) -> Tensor:
    """½·Σ|p - q|."""
    return 0.5 * (teacher_log_probs_NV.detach().exp() - student_log_probs_NV.exp()).abs().sum(-1)


def alpha_beta(
    teacher_log_probs_NV: Tensor, student_log_probs_NV: Tensor, ab_alpha: float = 0.2, ab_beta: float = 0.7
) -> Tensor:
    """-1/(αβ)·Σ [p^α·q^β - α/(α+β)·p^(α+β) - β/(α+β)·q^(α+β)]  (ABKD, arXiv 2505.04560), with its limits at 0.

    α = 1, β → 0 is forward KL; α → 0, β = 1 reverse KL. With s = α+β, d = log(p/q) and ψ(x, d) = expm1(x·d)/x, a
    summand is q^s·(ψ(s, d) - ψ(α, d))/β, which neither overflows nor cancels. Where p > q it is written from p, with α
    and β exchanged.

    Args:
        ab_alpha: α ≥ 0.
        ab_beta: β ≥ 0.
    """
    alpha, beta = ab_alpha, ab_beta
    dtype = student_log_probs_NV.dtype
    if min(alpha, beta) < 0.1 and student_log_probs_NV.device.type != "mps":  # Differences of nearly equal numbers.
        teacher_log_probs_NV, student_log_probs_NV = teacher_log_probs_NV.double(), student_log_probs_NV.double()
    teacher, student = _both_possible(teacher_log_probs_NV, student_log_probs_NV)
    teacher, student = teacher.clamp(min=IMPOSSIBLE), student.clamp(min=4 * IMPOSSIBLE)
    difference, total = teacher - student, alpha + beta
    # Each form is computed everywhere and bounded where it is not used: an inf there would reach the gradient as NaN.
    below, above = difference.clamp(max=0), difference.clamp(min=0)
    from_student = (total * student).exp() * _ab_summand(below, alpha, beta)
    from_teacher = (total * teacher).exp() * _ab_summand(-above, beta, alpha)
    return torch.where(difference <= 0, from_student, from_teacher).sum(-1).to(dtype)


def taid(teacher_log_probs_NV: Tensor, student_log_probs_NV: Tensor, training_fraction: float = 1.0) -> Tensor:
    """KL(p_t ‖ q), p_t between the student's present distribution and the teacher's (TAID, arXiv 2501.16937).

    Args:
        training_fraction: how much of the training is behind, 0 to 1; at 1 it is the forward KL.
    """
    target = taid_target(teacher_log_probs_NV, student_log_probs_NV, taid_weight(training_fraction))
    return forward_kl(target, student_log_probs_NV)


def taid_target(teacher_log_probs_NV: Tensor, student_log_probs_NV: Tensor, weight: float) -> Tensor:
    """log softmax((1-t)·log q + t·log p), the student's own part held fixed (TAID, arXiv 2501.16937), [N, V].

    Args:
        weight: t in [0, 1]. What the teacher rules out stays ruled out.
    """
    teacher = teacher_log_probs_NV.detach()
    if weight >= 1:
        return teacher
    between = (1 - weight) * student_log_probs_NV.detach() + weight * teacher
    return torch.log_softmax(between.masked_fill(teacher == -math.inf, -math.inf), dim=-1)


def taid_weight(training_fraction: float, start: float = 0.4) -> float:
    """t when a fraction of the training is behind: from `start` to 1 in a straight line (arXiv 2501.16937)."""
    return start + (1 - start) * min(max(training_fraction, 0.0), 1.0)


def _relative_entropy(log_a: Tensor, log_b: Tensor, a: Tensor) -> Tensor:
    """Σ a·log(a/b), [N]."""
    # Filled before the product: 0 · inf is NaN, forwards and backwards. On a CPU `logical_not` is twice as fast as `== 0`.
    return (a * (log_a - log_b).masked_fill_(a.logical_not(), 0)).sum(-1)


def _both_possible(teacher: Tensor, student: Tensor) -> tuple[Tensor, Tensor]:
    """Both [N, V], with one small number in the place of the -inf that they share: -inf less -inf is NaN."""
    neither = (teacher == -math.inf) & (student == -math.inf)
    return teacher.detach().masked_fill(neither, 4 * IMPOSSIBLE), student.masked_fill(neither, 4 * IMPOSSIBLE)


def _mixture(log_a: Tensor, log_b: Tensor, weight: float) -> Tensor:
    """log(λa + (1-λ)b), [N, V].

    Raises:
        ValueError: λ is not between 0 and 1.
    """
    if not 0 < weight < 1:
        raise ValueError(f"mix = {weight} is not between 0 and 1")
    return torch.logaddexp(log_a + math.log(weight), log_b + math.log1p(-weight))


def _bregman(log_a: Tensor, log_m: Tensor) -> Tensor:
    """a·log(a/m) - a + m ≥ 0, elementwise."""
    a = log_a.exp()
    # a - m = a·(1 - e^-d) keeps its digits where a and m are close.
    difference = (log_a - log_m).masked_fill_(a.logical_not(), 0)
    return torch.where(a == 0, log_m.exp(), a * (difference + torch.expm1(-difference)))


def _ab_summand(difference: Tensor, alpha: float, beta: float) -> Tensor:
    """(ψ(α+β, d) - ψ(α, d))/β for d ≤ 0, with ψ(x, d) = expm1(x·d)/x and ψ(0, d) = d."""
    if beta > 1e-6:
        return (_psi(alpha + beta, difference) - _psi(alpha, difference)) / beta
    if alpha > 1e-6:  # Its derivative with respect to the first argument.
        return (difference * (alpha * difference).exp() - _psi(alpha, difference)) / alpha
    return 0.5 * difference.square()


def _psi(rate: float, difference: Tensor) -> Tensor:
    return torch.expm1(rate * difference) / rate if rate > 1e-6 else difference

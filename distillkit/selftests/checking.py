"""How a self-test reports what it found."""

from __future__ import annotations

from torch import Tensor


class CheckFailed(Exception):  # noqa: N818 - the finding of a self-test, which the runner turns into an error
    """A self-test found something else than it should have; its text says what."""


def require(holds: bool, finding: str) -> None:
    """Fail unless `holds`. Not an `assert` statement, which `python -O` leaves out.

    Raises:
        CheckFailed: it does not hold.
    """
    if not holds:
        raise CheckFailed(finding)


def require_close(name: str, computed: Tensor, expected: Tensor, tolerance: float) -> None:
    """Fail unless two tensors of one shape differ by no more than `tolerance` times the largest expected number.

    Args:
        name: what the tensors are, for the message.

    Raises:
        CheckFailed: they differ by more, or something is not finite.
    """
    require(computed.shape == expected.shape, f"{name}: shape {tuple(computed.shape)}, not {tuple(expected.shape)}")
    computed, expected = computed.detach().double().cpu(), expected.detach().double().cpu()
    difference, scale = (computed - expected).abs().amax(), expected.abs().amax().clamp(min=1e-12)
    share = float(difference / scale)
    # Not ">": NaN has to fail too.
    require(share <= tolerance, f"{name}: off by {share:.2g} of the largest number, {tolerance:.2g} is allowed")

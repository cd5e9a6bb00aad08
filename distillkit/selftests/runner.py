"""Self-tests that come with the package: does this installation compute, train and save as it should?

`distillkit check-env --run-tests` runs them, on the device and in the formats that a run would use; they need neither
network nor test tools and take a few seconds, and where the loss can be compiled half a minute more, once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch

from distillkit.console import Console
from distillkit.device.precision import Compute
from distillkit.errors import DistillkitError, Interrupted
from distillkit.interrupts import check_interrupted
from distillkit.losses.kernels import compile_failure, compiler_available
from distillkit.selftests import loss_checks, training_checks

_LOSS_CHECKS = (loss_checks.same_tokenizer, loss_checks.across_tokenizers, loss_checks.sparse)


class SelfTestError(DistillkitError):
    """A self-test failed: this installation cannot be trusted (exit code 1)."""


def run_self_tests(console: Console, compute: Compute, *, compile_loss: str = "off") -> int:
    """Run them all.

    Args:
        compute: the device and the formats of a run.
        compile_loss: as the parameter of that name: "off" leaves out the compiled loss; with "auto" it is also left out
            where it cannot be compiled.

    Returns:
        How many passed.

    Raises:
        SelfTestError: one did not; names it.
        Interrupted: a signal arrived.
    """
    tests = list(_self_tests(compute, compile_loss, console))
    with (
        console.progress("self-tests", total=len(tests), unit="tests") as progress,
        training_checks.unchanged_random_states(),
    ):
        for title, test in tests:
            check_interrupted()
            torch.manual_seed(0)
            try:
                test()
            except Interrupted:
                raise
            except Exception as error:
                # A broken installation fails in as many ways as there are libraries.
                raise SelfTestError(
                    f"self-test failed: {title} ({error})", hint="reinstall distillkit and torch, then try again"
                ) from error
            progress.advance()
    return len(tests)


def _self_tests(compute: Compute, compile_loss: str, console: Console) -> Iterator[tuple[str, Callable[[], None]]]:
    """Titles and tests, the quick ones first."""
    # float64, which Apple's GPUs do not have.
    device = compute.device if compute.device.type == "cuda" else torch.device("cpu")
    for check in _LOSS_CHECKS:
        yield _title(check), partial(check, device, compiled=False)
    yield _title(training_checks.steps), partial(training_checks.steps, device, None)
    if compute.autocast == torch.bfloat16:
        yield f"{_title(training_checks.steps)} In bf16.", partial(training_checks.steps, device, torch.bfloat16)
    yield _title(training_checks.checkpoint_round_trip), partial(training_checks.checkpoint_round_trip, device)
    if _compiles(compute.device, compile_loss, console):
        for check in _LOSS_CHECKS:
            yield f"{_title(check)} Compiled.", partial(check, device, compiled=True)


def _title(check: Callable[..., None]) -> str:
    return (check.__doc__ or check.__name__).splitlines()[0]


def _compiles(device: torch.device, compile_loss: str, console: Console) -> bool:
    """Whether the compiled loss is tested: a training falls back to the uncompiled one where the compiler fails."""
    if compile_loss == "off" or not compiler_available(device):
        return False
    failure = compile_failure(None, device, torch.float32)
    if failure is not None and compile_loss == "auto":
        console.warn(f"the compiled loss is not tested, and not used: {failure}")
    return failure is None or compile_loss == "on"

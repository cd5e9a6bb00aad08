"""What a training in several processes needs of its own: the loss inside DDP's forward pass, and random states of each."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import set_seed
from transformers.trainer_pt_utils import safe_globals

# The keyword under which a model's forward pass takes work that is to be done inside it.
INSIDE = "distillkit_inside"
# Of process 0, under the name that the Trainer uses in one process, so that one process can go on with it.
RANDOM_STATES = "rng_state.pth"


def run_inside_forward(model: nn.Module) -> None:
    """Let `model(**{INSIDE: work})` give what `work()` gives; every other call is as before.

    DistributedDataParallel averages the gradients of what happens inside the forward pass of the module that it wraps, and
    our loss takes the model apart: backbone, and head with the loss a few rows at a time. So all of it has to run in there.
    """
    plain: Callable[..., Any] = model.forward

    def forward(*values: Any, **named: Any) -> Any:
        work = named.pop(INSIDE, None)
        return plain(*values, **named) if work is None else work()

    model.forward = forward


def random_states_of(checkpoint: Path, rank: int) -> Path:
    """Where a checkpoint has the random states of a process."""
    return checkpoint / (RANDOM_STATES if rank == 0 else f"rng_state_{rank}.pth")


def random_states() -> bytes:
    """The random states of this process, as the Trainer saves those of one."""
    states: dict[str, Any] = {
        "python": random.getstate(), "numpy": np.random.get_state(), "cpu": torch.random.get_rng_state(),
    }  # fmt: skip
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    stream = io.BytesIO()
    torch.save(states, stream)
    return stream.getvalue()


def restore_random_states(checkpoint: Path, rank: int, seed: int) -> None:
    """Go on drawing where a process was when the checkpoint was written; a process that was not there begins anew.

    Args:
        seed: of a stream that belongs to the run and the step.
    """
    path = random_states_of(checkpoint, rank)
    if not path.is_file():
        own_stream(seed, rank)
        return
    with safe_globals():
        states = torch.load(path, weights_only=True)
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.random.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])


def own_stream(seed: int, rank: int) -> None:
    """Begin the random stream of a process: the same dropout in all of them would be no dropout of independent rows."""
    set_seed((seed + rank * 1_000_003) % 2**32)

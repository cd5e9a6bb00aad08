"""The student writes: some texts at once, drawn from what it is at this step."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distillkit.evaluation.batched_forward import token_by_token
from distillkit.models.decoding import Decoding, choose_tokens, token_logits


@dataclass(frozen=True)
class Draws:
    """Random numbers for some of the texts of a step. Each text gets those that it gets when all are written at once, so what
    is written does not depend on the micro-batches.

    Attributes:
        seed: of the step.
        first: the place of the first of these texts in the step.
        texts: of the step.
    """

    seed: int
    first: int
    texts: int

    def generator(self) -> torch.Generator:
        """On the processor, at the beginning of the step's numbers."""
        return torch.Generator().manual_seed(self.seed)


def write_texts(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    room: Sequence[int],
    may_write: Tensor,
    endings: Collection[int],
    draws: Draws,
    *,
    temperature: float,
    device: torch.device,
    autocast_dtype: torch.dtype | None = None,
) -> list[tuple[tuple[int, ...], bool]]:
    """Let the student go on from each prompt. No gradient goes through what is drawn here.

    Args:
        model: a causal language model on `device`; its training mode is restored.
        prompts: token ids, none of them empty.
        room: tokens that each text may have, at least one; with it a text fits into the model's context.
        may_write: [V'] bool, the tokens that are drawn from; what lies beyond is not.
        endings: tokens of which the first ends a text.
        temperature: divides the logits.
        autocast_dtype: the format of matrix products; None for that of the weights.

    Returns:
        Of each text its tokens, the ending one not among them, and whether it was ended.

    Raises:
        DistillkitError: logits that are no numbers.
    """
    new: list[list[int]] = [[] for _ in prompts]
    writing, ended = [True] * len(prompts), [False] * len(prompts)
    generator = draws.generator()
    with token_by_token(model, device, autocast_dtype):
        texts = Decoding(model, prompts, device)
        allowed = may_write.to(device)
        for _ in range(max(room)):
            logits = token_logits(texts.logits(), len(allowed), "the student's")
            columns = min(logits.shape[1], len(allowed))
            logits[:, :columns].masked_fill_(~allowed[:columns], -torch.inf)
            chosen = choose_tokens(logits, temperature, 1.0, generator, part=(draws.first, draws.texts))
            for row, token in enumerate(chosen.tolist()):
                if not writing[row]:
                    continue
                if token in endings:
                    writing[row], ended[row] = False, True
                    continue
                new[row].append(token)
                writing[row] = len(new[row]) < room[row]
            if not any(writing):
                break
            texts.append(chosen, torch.tensor(writing, device=device))
    return [(tuple(ids), end) for ids, end in zip(new, ended, strict=True)]

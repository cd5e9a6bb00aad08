"""Generating one token at a time with a key-value cache: several prompts at once, padded on the left."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

# Probabilities as whole numbers: their running sum is exact, so it cannot depend on the order of a parallel scan.
_FIXED_POINT = 2.0**40
_LIKELY_CANDIDATES = 4096


class Decoding:
    """The state of B texts that a causal language model generates.

    A text in a batch gets the logits that it gets alone: padding is masked, and positions count from the first real
    token. Call it without gradients.

    Args:
        prompts: B token id sequences, none of them empty.
        device: where the model is.

    Raises:
        ValueError: there is no prompt, or an empty one.
    """

    def __init__(self, model: nn.Module, prompts: Sequence[Sequence[int]], device: torch.device) -> None:
        if not prompts or not all(len(prompt) for prompt in prompts):
            raise ValueError("a model cannot continue nothing")
        width = max(len(prompt) for prompt in prompts)
        ids = torch.zeros(len(prompts), width, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.as_tensor(prompt, dtype=torch.long)
            mask[row, width - len(prompt) :] = 1
        self._model: Any = model
        self._ids, self._mask = ids.to(device), mask.to(device)
        self._positions = (self._mask.cumsum(-1) - 1).clamp(min=0)
        self._cache: Any = None
        accepted = inspect.signature(self._model.forward).parameters
        # transformers 5.24 gave it a new name; what a repository brings along has the old one.
        self._cache_name = "cache" if "cache" in accepted else "past_key_values"
        # ALiBi models take the positions from the mask and have no such argument.
        self._takes_positions = "position_ids" in accepted
        self._only_last = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}

    def logits(self) -> Tensor:
        """[B, V] logits of the next tokens, in the model's own format."""
        # Only the newest token is read where a cache holds the rest; architectures without one read all again.
        new = slice(None) if self._cache is None else slice(-1, None)
        arguments: dict[str, Any] = {"input_ids": self._ids[:, new], "attention_mask": self._mask, **self._only_last}
        if self._takes_positions:
            arguments["position_ids"] = self._positions[:, new]
        if self._cache is not None:
            arguments[self._cache_name] = self._cache
        output = self._model(**arguments, use_cache=True)
        self._cache = getattr(output, self._cache_name, None)
        return output.logits[:, -1]

    def append(self, tokens_b: Tensor, writing_b: Tensor) -> None:
        """Add the next token of each text.

        Args:
            tokens_b: [B] token ids; whatever stands in the rows of finished texts is masked.
            writing_b: [B] bool, False for texts that are finished. Their position stays, or it could leave the context
                while the others continue.
        """
        self._ids = torch.cat([self._ids, tokens_b[:, None]], dim=1)
        self._mask = torch.cat([self._mask, writing_b[:, None].to(self._mask.dtype)], dim=1)
        following = self._positions[:, -1:] + writing_b[:, None].to(self._positions.dtype)
        self._positions = torch.cat([self._positions, following], dim=1)


def choose_tokens(
    logits_bv: Tensor,
    temperature: float,
    top_p: float,
    generator: torch.Generator | None,
    *,
    part: tuple[int, int] | None = None,
) -> Tensor:
    """[B] next tokens: the likeliest at temperature 0, else drawn from the nucleus (arXiv 1904.09751).

    Args:
        logits_bv: [B, V]; -inf for what must not be chosen.
        temperature: divides the logits; 0 for greedy decoding.
        top_p: the smallest set of tokens whose probability reaches it is drawn from; 1 for all.
        generator: of the CPU, whatever the device, for one number per text; unused at temperature 0.
        part: (place of the first of these texts, number of texts) in a batch that is computed in parts: the numbers of
            all its texts are drawn, so that each text gets the one that it would get in the whole batch.

    Returns:
        [B] token ids, on the device of the logits.
    """
    if temperature == 0:
        return logits_bv.argmax(-1)
    probabilities = (logits_bv.float() / temperature).softmax(-1)
    ids, mass = _nucleus(probabilities, top_p) if top_p < 1 else (None, (probabilities * _FIXED_POINT).long())
    reached = mass.cumsum(-1)
    total = reached[:, -1].cpu()
    first, rows = part or (0, len(total))
    uniform = torch.rand(rows, dtype=torch.float64, generator=generator)[first : first + len(total)]
    drawn = (uniform * total).long()
    place = torch.searchsorted(reached, drawn.to(reached.device)[:, None], right=True)
    return (place if ids is None else ids.gather(-1, place))[:, 0]


def _nucleus(probabilities_bv: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """([B, C] ids, likeliest first, [B, C] fixed-point probabilities, 0 outside the nucleus)."""
    wanted, columns = int(top_p * _FIXED_POINT), probabilities_bv.shape[1]
    # The nucleus seldom has more tokens than this, and sorting all of them would take as long as the model itself.
    for candidates in (min(_LIKELY_CANDIDATES, columns), columns):
        ordered, ids = probabilities_bv.topk(candidates)
        mass = (ordered * _FIXED_POINT).long()
        reached = mass.cumsum(-1)
        if bool((reached[:, -1] >= wanted).all()):
            break
    return ids, mass.masked_fill(reached - mass >= wanted, 0)

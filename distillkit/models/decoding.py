"""Generating one token at a time with a key-value cache or a state: several prompts at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from distillkit.errors import DistillkitError
from distillkit.models.decoding_ways import decoding_way
from distillkit.models.text_batch import DecodingWay, TextBatch

# Probabilities as whole numbers: their running sum is exact, so it cannot depend on the order of a parallel scan.
_FIXED_POINT = 2.0**40
_LIKELY_CANDIDATES = 4096


class Decoding:
    """The state of B texts that a causal language model generates.

    A text in a batch gets the logits that it gets alone. Where the architecture allows it, all texts are read at once:
    padding is masked, and positions count from the first real token. Otherwise those of one length are. Call it without
    gradients.

    Args:
        prompts: B token id sequences, none of them empty.
        device: where the model is.
        way: how this architecture is decoded; found where it is not given.

    Raises:
        ValueError: there is no prompt, or an empty one.
    """

    def __init__(
        self,
        model: nn.Module,
        prompts: Sequence[Sequence[int]],
        device: torch.device,
        way: DecodingWay | None = None,
    ) -> None:
        if not prompts or not all(len(prompt) for prompt in prompts):
            raise ValueError("a model cannot continue nothing")
        way = way or decoding_way(model, device)
        together = way.batches(prompts)
        self._rows = [torch.tensor(rows, device=device) for rows in together]
        self._batches = [TextBatch(model, [prompts[row] for row in rows], device, way) for rows in together]
        self._place = torch.cat(self._rows).argsort()

    def logits(self) -> Tensor:
        """[B, V] logits of the next tokens, in the model's own format; of a finished text any."""
        if len(self._batches) == 1:
            return self._batches[0].logits()
        return torch.cat([batch.logits() for batch in self._batches])[self._place]

    def append(self, tokens_b: Tensor, writing_b: Tensor) -> None:
        """Add the next token of each text.

        Args:
            tokens_b: [B] token ids; whatever stands in the rows of finished texts is masked.
            writing_b: [B] bool, False for texts that are finished. Their position stays, or it could leave the context
                while the others continue.
        """
        for rows, batch in zip(self._rows, self._batches, strict=True):
            whole = len(self._batches) == 1
            batch.append(tokens_b if whole else tokens_b[rows], writing_b if whole else writing_b[rows])


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


def token_logits(logits_bv: Tensor, vocabulary: int, whose: str) -> Tensor:
    """[b, v] the logits in fp32, of which only those of tokens can be chosen: heads are often wider than the vocabulary.

    Args:
        logits_bv: may be overwritten.
        vocabulary: how many columns are tokens.
        whose: the model, for the message.

    Raises:
        DistillkitError: a row has no number; drawing from it would end in an error of the device that names no cause.
    """
    logits = logits_bv.float()
    logits[:, vocabulary:] = -torch.inf
    if not bool(torch.isfinite(logits.amax(-1)).all()):
        raise DistillkitError(f"{whose} logits are not numbers", hint="use --precision fp32")
    return logits

"""How a demo draws its texts: the same for all models."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from distillkit.errors import UsageError

# Beyond this a text is none that anybody reads side by side.
_MOST_NEW_TOKENS = 4096


@dataclass(frozen=True)
class Sampling:
    """How texts are drawn. Cautious by default: greedy decoding makes every small model loop, which shows nothing of what
    it knows.

    Attributes:
        seed: every text of every model is drawn from it anew.
        temperature: divides the logits; 0 for the likeliest token.
        top_p: the smallest set of tokens whose probability reaches it is drawn from (arXiv 1904.09751).
        top_k: only so many of the likeliest tokens are drawn from; 0 for all.
        repetition_penalty: divides the logits of tokens that were there already (arXiv 1909.05858); 1 for none.
        new_tokens: a text is cut off after so many.

    Raises:
        UsageError: a value that nothing can be drawn with; the option is named.
    """

    seed: int
    temperature: float = 0.7
    top_p: float = 0.9
    top_k: int = 0
    repetition_penalty: float = 1.0
    new_tokens: int = 48

    def __post_init__(self) -> None:
        for flag, fine, hint in (
            ("--temperature", 0 <= self.temperature < float("inf"), "0 for the likeliest token, 0.7 for a usual text"),
            ("--top-p", 0 < self.top_p <= 1, "a share of probability: more than 0, at most 1"),
            ("--top-k", self.top_k >= 0, "0 for all tokens"),
            ("--repetition-penalty", 0 < self.repetition_penalty < float("inf"), "1 for none, 1.1 for a mild one"),
            ("--new-tokens", 1 <= self.new_tokens <= _MOST_NEW_TOKENS, f"1 to {_MOST_NEW_TOKENS:,}"),
            ("--seed", 0 <= self.seed < 2**63, "0 or more"),
        ):
            if not fine:
                raise UsageError(f"{flag}: nothing can be drawn with this value", hint=hint)

    def for_generate(self) -> dict[str, Any]:
        """As `generate` of transformers takes it; what a model's own settings say of drawing is overruled."""
        # Where nothing is drawn: what transformers takes for "not given".
        drawn: dict[str, Any] = {"temperature": 1.0, "top_p": 1.0, "top_k": 50}
        if self.temperature > 0:
            drawn = {"temperature": self.temperature, "top_p": self.top_p, "top_k": self.top_k, "min_p": 0.0}
        return {
            **drawn,
            "do_sample": self.temperature > 0,
            "repetition_penalty": self.repetition_penalty,
            "typical_p": 1.0,
            "no_repeat_ngram_size": 0,
            "num_beams": 1,
        }

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return dataclasses.asdict(self)

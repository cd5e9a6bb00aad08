"""A text as people are shown it token by token: how both tokenizers read the beginning of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distillkit.data.conversation import Conversation
from distillkit.data.text_encoder import TextEncoder

_MOST_LETTERS = 280


def tokens_of_a_text(text: str, encoders: Mapping[str, TextEncoder], *, conversation: bool) -> dict[str, Any] | None:
    """`tokens_of_a_text` of data/stats.json: `text`, and of each side the bytes at which its tokens end.

    Args:
        text: of an example; of conversations the canonical form, of which the last answer is shown.
        encoders: side -> how it reads.

    Returns:
        None where there is nothing to show; a side is missing that cannot read the beginning of the text.
    """
    if conversation:
        text = Conversation.from_canonical(text).turns[-1].text
    shown = text.strip()
    if len(shown) > _MOST_LETTERS:
        # Between words, where there are any.
        shown = shown[:_MOST_LETTERS].rsplit(maxsplit=1)[0]
    if not shown:
        return None
    encodings = {side: encoder.encode([shown])[0] for side, encoder in encoders.items()}
    ends = {side: encoding.ends.tolist() for side, encoding in encodings.items() if encoding is not None}
    return {"text": shown, **ends} if ends else None

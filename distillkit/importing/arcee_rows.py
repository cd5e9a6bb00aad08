"""Rows of arcee's DistillKit: token ids, and after each of them what was likely to follow.

https://github.com/arcee-ai/DistillKit, `sample_logits_vllm.py`, `pack_logits.py` and `signals.py`. Entry t of a row's
log-probabilities belongs to the logits of token t: it is about token t + 1. There is one less than there are tokens, or as
many where the last token was cut off behind them; what the last one is about is then not known. In packed rows
`attention_mask` numbers the texts from 1.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from distillkit.importing.compression import Compression
from distillkit.importing.sequences import BadRowError, ScoredSequence, checked_ids, scored_sequence

# Numbers that were rounded to bfloat16 and to a polynomial may sum to a little more than 1.
_PLAIN_TOLERANCE, _COMPRESSED_TOLERANCE = 0.02, 0.15


def arcee_sequences(
    row: Mapping[str, Any], tokenizer: Any, vocabulary: int, compression: Compression | None
) -> Iterator[ScoredSequence]:
    """The texts of a row.

    Args:
        tokenizer: the teacher's, which gives the text of the tokens.
        compression: of compressed rows.

    Raises:
        BadRowError: the row is of another form, or cannot be used.
    """
    if row.get("input_ids") is None:
        raise BadRowError("it has no input_ids")
    likely, logarithms, tolerance = _unpacked(row, compression)
    ids = checked_ids(row["input_ids"], vocabulary, "input_ids").tolist()
    if len(likely) not in (len(ids), len(ids) - 1):
        raise BadRowError(f"{len(likely)} places of log-probabilities for {len(ids)} tokens")
    for first, last in _texts(row, len(ids)):
        # What is known after a token is about the next one of the same text.
        places: list[tuple[Any, Any] | None] = [None]
        places += [(likely[place], logarithms[place]) for place in range(first, last - 1)]
        own = ids[first:last]
        yield scored_sequence(
            own, places, {"text": decoded(own, tokenizer)}, vocabulary=vocabulary, tolerance=tolerance
        )


def decoded(ids: list[int], tokenizer: Any) -> str:
    """The text of tokens, without what its tokenizer and the tool that asked put around it."""
    around = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id} - {None}
    inner = ids
    while inner and inner[0] in around:
        inner = inner[1:]
    while inner and inner[-1] in around:
        inner = inner[:-1]
    return tokenizer.decode(inner, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def _unpacked(row: Mapping[str, Any], compression: Compression | None) -> tuple[Any, Any, float]:
    """Ids and log-probabilities of each place, and how far they may be off."""
    if row.get("token_ids") is not None and row.get("top_values") is not None:
        if len(row["token_ids"]) != len(row["top_values"]):
            raise BadRowError(f"{len(row['token_ids'])} places of token_ids and {len(row['top_values'])} of top_values")
        return row["token_ids"], row["top_values"], _PLAIN_TOLERANCE
    if row.get("packed_indices") is not None:
        raise BadRowError(
            "it is of the older form (packed_indices, exact_values, coeffs), which does not say whether its numbers are "
            "log-probabilities or centred logits",
            hint="capture the log-probabilities again in the newer form",
        )
    if row.get("compressed_logprobs") is None or row.get("bytepacked_indices") is None:
        raise BadRowError("it has neither token_ids and top_values nor compressed_logprobs and bytepacked_indices")
    if compression is None:
        raise BadRowError(
            "it is compressed, and nothing says how",
            hint="add --compression with the compression_config.yaml of the rows",
        )
    return *compression.unpacked(row["bytepacked_indices"], row["compressed_logprobs"]), _COMPRESSED_TOLERANCE


def _texts(row: Mapping[str, Any], tokens: int) -> Iterator[tuple[int, int]]:
    """Where each text of a row begins and ends; padding is left out."""
    marks = row.get("attention_mask")
    if marks is None:
        yield 0, tokens
        return
    numbers = np.asarray(marks)
    if len(numbers) != tokens:
        raise BadRowError(f"an attention_mask of {len(numbers)} for {tokens} tokens")
    begins = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), tokens]
    for first, last in itertools.pairwise(begins):
        if numbers[first] > 0 and last - first > 1:
            yield first, last

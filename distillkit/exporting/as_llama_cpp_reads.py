"""The tokenizer of a GGUF file as llama.cpp reads it, from the file alone: what a student's texts become there.

Rewritten from llama.cpp (src/llama-vocab.cpp), so that it shares nothing with what wrote the file: byte-level BPE cuts
texts by the regular expressions that belong to the name in `tokenizer.ggml.pre`, SentencePiece merges neighbours by score.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from distillkit.exporting.gguf_file import import_gguf

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
_CONTRACTIONS = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_LLAMA3 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_QWEN2 = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?((?=[\p{L}])([^a-z]))*((?=[\p{L}])([^A-Z]))+|[^\r\n\p{L}\p{N}]?((?=[\p{L}])([^a-z]))+"
    r"((?=[\p{L}])([^A-Z]))*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# name: (expressions, each applied to what the one before has left, whether a whole word that is a token is taken as it is)
_SPLITS: Mapping[str, tuple[tuple[str, ...], bool]] = {
    "gpt-2": ((_GPT2,), False),
    "smollm": ((r"\p{N}", _GPT2), False),
    "qwen2": ((_QWEN2,), False),
    "llama-bpe": ((_LLAMA3,), True),
    "dbrx": ((_LLAMA3,), False),
    "tekken": ((_TEKKEN,), True),
}
_SPACE = "\u2581"


class FileTokenizer(Protocol):
    """Texts to ids."""

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, none put around it; names of special tokens are ordinary text."""
        ...


def tokenizer_of(path: Path) -> FileTokenizer:
    """The tokenizer in a GGUF file.

    Raises:
        KeyError, ValueError, OSError: the file has none that is known.
    """
    reader: Any = import_gguf().GGUFReader(path)

    def value(name: str) -> Any:
        field = reader.get_field(f"tokenizer.ggml.{name}")
        if field is None:
            raise KeyError(f"tokenizer.ggml.{name} is missing")
        return field.contents()

    kind = value("model")
    if kind == "gpt2":
        return _ByteLevel(value("tokens"), value("merges"), value("pre"))
    if kind == "llama":
        return _SentencePiece(value("tokens"), value("scores"), bool(value("add_space_prefix")))
    raise ValueError(f"tokenizer.ggml.model is {kind!r}")


class _ByteLevel:
    def __init__(self, tokens: Sequence[str], merges: Sequence[str], pre: str) -> None:
        from tokenizers import Regex, Tokenizer, models, pre_tokenizers

        expressions, whole_words = _SPLITS[pre]
        pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in merges)]
        vocab = {token: index for index, token in enumerate(tokens)}
        known = {"".join(pair) for pair in pairs} | {piece for pair in pairs for piece in pair}
        if missing := known - vocab.keys():
            raise ValueError(f"{len(missing)} merges have tokens that the file does not, such as {min(missing)!r}")
        self._tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=pairs, ignore_merges=whole_words))
        steps = [pre_tokenizers.Split(Regex(expression), behavior="isolated") for expression in expressions]
        bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        self._tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*steps, bytes_])

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text).ids


class _SentencePiece:
    def __init__(self, tokens: Sequence[str], scores: Sequence[float], prefix: bool) -> None:
        self._ids = {token: index for index, token in reversed(list(enumerate(tokens)))}
        self._scores, self._prefix = scores, prefix

    def encode(self, text: str) -> list[int]:
        symbols = list((" " + text if self._prefix and text else text).replace(" ", _SPACE))
        following = [*range(1, len(symbols)), -1]
        before = list(range(-1, len(symbols) - 1))
        queue: list[tuple[float, int, int, str]] = []

        def offer(left: int) -> None:
            right = following[left] if left >= 0 else -1
            if right >= 0:
                joined = symbols[left] + symbols[right]
                if joined in self._ids:
                    heapq.heappush(queue, (-self._scores[self._ids[joined]], left, right, joined))

        for left in range(len(symbols)):
            offer(left)
        while queue:
            _, left, right, joined = heapq.heappop(queue)
            if symbols[left] + symbols[right] != joined or following[left] != right or not symbols[right]:
                continue  # One of the two has been merged since.
            symbols[left], symbols[right] = joined, ""
            following[left] = following[right]
            if following[right] >= 0:
                before[following[right]] = left
            offer(before[left])
            offer(left)
        return [index for symbol in symbols if symbol for index in self._spelled(symbol)]

    def _spelled(self, symbol: str) -> list[int]:
        if symbol in self._ids:
            return [self._ids[symbol]]
        return [self._ids[f"<0x{byte:02X}>"] for byte in symbol.encode("utf-8")]

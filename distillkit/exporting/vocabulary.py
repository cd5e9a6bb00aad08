"""A tokenizer as llama.cpp wants it in a GGUF file: tokens, their kinds, merges or scores, and how texts are cut before.

Two kinds of tokenizer are known, both by what they are defined as and never by the name of a model: byte-level BPE with
a pre-tokenizer that llama.cpp has under a name, and SentencePiece BPE with byte tokens. Others are refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distillkit.errors import PreconditionError
from distillkit.storage import read_json

SPACE = "\u2581"  # How SentencePiece spells a space.
# gguf.TokenType
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
_BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")
# Beyond the score of any token that merging makes.
_NEVER_MERGED = -1e6

_GPT2_SPLIT = "gpt2"
_LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# (the steps of a pre-tokenizer, whether a word that is a token is taken whole) -> llama.cpp's name for it.
_PRE_TOKENIZERS: dict[tuple[tuple[str, ...], bool], str] = {
    ((_GPT2_SPLIT,), False): "gpt-2",
    (("digits", _GPT2_SPLIT), False): "smollm",
    ((_LETTERS + r"\p{N}" + _REST,), False): "qwen2",
    ((_LETTERS + r"\p{N}{1,3}" + _REST,), True): "llama-bpe",
    # The same cut without the shortcut: llama.cpp knows it from this model.
    ((_LETTERS + r"\p{N}{1,3}" + _REST,), False): "dbrx",
    ((_TEKKEN,), True): "tekken",
}


@dataclass(frozen=True)
class Vocabulary:
    """What goes into a GGUF file under `tokenizer.…`.

    Attributes:
        model: llama.cpp's name of the kind: `gpt2` (byte-level BPE) or `llama` (SentencePiece BPE).
        pre: of a byte-level one, llama.cpp's name of its pre-tokenizer.
        tokens, types: one for each row of the embedding.
        merges: of a byte-level one, best first.
        scores: of a SentencePiece one, higher is merged first.
        special: role (`bos`, `eos`, `eot`, `unk`, `pad`) to id.
        add_bos, add_eos: whether the tokenizer puts them around a text by itself.
        add_space_prefix: of a SentencePiece one, whether a space is put before a text.
        template: the chat template, as Jinja.
        notes: what llama.cpp does not do as transformers does, a sentence each.
    """

    model: str
    pre: str | None
    tokens: list[str]
    types: list[int]
    merges: list[str] | None
    scores: list[float] | None
    special: dict[str, int]
    add_bos: bool
    add_eos: bool
    add_space_prefix: bool | None
    template: str | None
    notes: tuple[str, ...] = ()

    def write(self, writer: Any) -> None:
        """Add it to a `gguf.GGUFWriter`."""
        writer.add_tokenizer_model(self.model)
        if self.pre is not None:
            writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        if self.merges is not None:
            writer.add_token_merges(self.merges)
        if self.scores is not None:
            writer.add_token_scores(self.scores)
        for role, index in self.special.items():
            getattr(writer, f"add_{role}_token_id")(index)
        writer.add_add_bos_token(self.add_bos)
        writer.add_add_eos_token(self.add_eos)
        if self.add_space_prefix is not None:
            writer.add_add_space_prefix(self.add_space_prefix)
        if self.template is not None:
            writer.add_chat_template(self.template)


def vocabulary_of(tokenizer: Any, folder: Path, rows: int) -> Vocabulary:
    """The vocabulary of a student.

    Args:
        tokenizer: a fast tokenizer of transformers.
        folder: of the student; its generation settings name the tokens that end an answer.
        rows: of its embedding. Rows without a token get an unused one; tokens without a row are left out.

    Raises:
        PreconditionError: llama.cpp has no such tokenizer, or none that is known here.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise _unknown("it has no definition that the tokenizers library reads")
    definition: dict[str, Any] = json.loads(backend.to_str())
    model = definition["model"]
    if model.get("type") != "BPE":
        raise _unknown(f"it is a {model.get('type')} model, not BPE")
    added = {entry["id"]: entry for entry in definition["added_tokens"]}
    by_bytes = "ByteLevel" in _kinds(definition["decoder"]) | _kinds(definition["pre_tokenizer"])
    special = _special(tokenizer, folder, rows)
    around = tokenizer("a")["input_ids"]
    notes: tuple[str, ...] = ()
    if by_bytes:
        notes = _normalizer_notes(definition["normalizer"])
        pre: str | None = _pre_name(definition["pre_tokenizer"], bool(model.get("ignore_merges")))
        tokens, types = _tokens(model["vocab"], added, rows, unknown=None)
        merges: list[str] | None = _merges(model["merges"], set(tokens))
        scores, prefix = None, None
    elif model.get("byte_fallback"):
        pre, merges = None, None
        prefix = _space_prefix(definition)
        if prefix and "Metaspace" in _kinds(definition["pre_tokenizer"]):
            # SentencePiece does too; the tokenizers library does not.
            notes = ("llama.cpp puts a space before a text that begins with one too",)
        tokens, types = _tokens(model["vocab"], added, rows, unknown=special.get("unk"))
        if sum(kind == BYTE for kind in types) != 256:
            raise _unknown("it lacks tokens for some bytes")
        scores = _scores(tokens, model["merges"])
    else:
        raise _unknown("it is neither byte-level nor has it tokens for bytes")
    return Vocabulary(
        "gpt2" if by_bytes else "llama", pre, tokens, types, merges, scores, special,
        add_bos=len(around) > 0 and around[0] == special.get("bos"),
        add_eos=len(around) > 0 and around[-1] == special.get("eos"),
        add_space_prefix=prefix, template=_template(tokenizer), notes=notes,
    )  # fmt: skip


def _unknown(why: str) -> PreconditionError:
    return PreconditionError(
        f"the student's tokenizer cannot be written for llama.cpp: {why}",
        hint="--format safetensors takes any; llama.cpp's convert_hf_to_gguf.py may know it by the model's name",
    )


def _kinds(part: Any) -> set[str]:
    """The types of a part of a tokenizer's definition, and of those inside it."""
    return {step["type"] for step in _steps(part)}


def _steps(part: Any) -> list[dict[str, Any]]:
    if part is None:
        return []
    for inner in ("pretokenizers", "normalizers", "decoders"):
        if inner in part:
            return [step for one in part[inner] for step in _steps(one)]
    return [part]


def _pre_name(part: Any, ignores_merges: bool) -> str:
    """llama.cpp's name of a byte-level pre-tokenizer, by its definition."""
    steps: list[str] = []
    for step in _steps(part):
        kind, pattern = step["type"], step.get("pattern", {})
        if kind == "ByteLevel":
            if step.get("add_prefix_space"):
                raise _unknown("it puts a space before every text")
            steps += [_GPT2_SPLIT] if step.get("use_regex", True) else []
        elif kind == "Digits" and step.get("individual_digits"):
            steps.append("digits")
        elif kind == "Split" and step.get("behavior") == "Isolated" and not step.get("invert"):
            regex = pattern.get("Regex", "")
            steps.append("digits" if regex == r"\p{N}" else regex)
        else:
            raise _unknown(f"its pre-tokenizer has a step {kind} that is not known")
    name = _PRE_TOKENIZERS.get((tuple(steps), ignores_merges))
    if name is None:
        raise _unknown("its pre-tokenizer is none of gpt-2, smollm, qwen2, llama-bpe, dbrx, tekken")
    return name


def _normalizer_notes(part: Any) -> tuple[str, ...]:
    kinds = _kinds(part)
    if kinds - {"NFC"}:
        raise _unknown(f"it normalises texts ({', '.join(sorted(kinds))}), which llama.cpp does not")
    return ("llama.cpp does not bring texts into the form NFC, as this tokenizer does",) if kinds else ()


def _space_prefix(definition: Mapping[str, Any]) -> bool:
    """Whether a SentencePiece tokenizer puts a space before a text; refused where it does something else to texts."""
    prefix = False
    for step in _steps(definition["normalizer"]):
        if step["type"] == "Prepend" and step.get("prepend") == SPACE:
            prefix = True
        elif step["type"] != "Replace" or step.get("pattern") != {"String": " "} or step.get("content") != SPACE:
            raise _unknown(f"it normalises texts ({step['type']}), which llama.cpp does not")
    for step in _steps(definition["pre_tokenizer"]):
        if step["type"] != "Metaspace" or step.get("replacement") != SPACE:
            raise _unknown(f"its pre-tokenizer has a step {step['type']} that is not known")
        prefix = step.get("prepend_scheme") in ("always", "first")
    return prefix


def _tokens(
    vocab: Mapping[str, int], added: Mapping[int, Mapping[str, Any]], rows: int, unknown: int | None
) -> tuple[list[str], list[int]]:
    by_id = {index: token for token, index in vocab.items()}
    tokens, types = [], []
    for index in range(rows):
        if index in added:
            special, token = added[index]["special"], added[index]["content"]
            kind = UNKNOWN if index == unknown else CONTROL if special else USER_DEFINED
            # llama.cpp looks for these in the text as it came.
            token = token.replace(SPACE, " ") if kind == USER_DEFINED and unknown is not None else token
        elif index in by_id:
            token = by_id[index]
            is_byte = unknown is not None and _BYTE_TOKEN.fullmatch(token)
            kind = UNKNOWN if index == unknown else BYTE if is_byte else NORMAL
        else:
            token, kind = f"[PAD{index}]", UNUSED
        tokens.append(token)
        types.append(kind)
    return tokens, types


def _merges(merges: Iterable[Any], tokens: set[str]) -> list[str]:
    """Those whose tokens all have a row."""
    pairs = [merge if isinstance(merge, list) else merge.split(" ") for merge in merges]
    return [" ".join(pair) for pair in pairs if {*pair, "".join(pair)} <= tokens]


def _scores(tokens: Sequence[str], merges: Iterable[Any]) -> list[float]:
    """SentencePiece's scores of BPE tokens: minus the rank of the first merge that makes them."""
    ranks: dict[str, float] = {}
    for merge in merges:
        ranks.setdefault("".join(merge if isinstance(merge, list) else merge.split(" ")), -float(len(ranks)))
    return [ranks.get(token, _NEVER_MERGED) for token in tokens]


def _special(tokenizer: Any, folder: Path, rows: int) -> dict[str, int]:
    """The ids of special tokens, those without a row left out."""
    found = {role: getattr(tokenizer, f"{role}_token_id") for role in ("bos", "eos", "unk", "pad")}
    stops = _stops(folder)
    if stops and found["eos"] not in stops:
        found["eos"] = stops[0]
    # A chat's end of turn, beside the end of a text.
    found["eot"] = next((index for index in stops if index != found["eos"]), None)
    return {role: int(index) for role, index in found.items() if index is not None and index < rows}


def _stops(folder: Path) -> list[int]:
    """The tokens that end an answer, as the generation settings name them."""
    try:
        named = read_json(folder / "generation_config.json").get("eos_token_id")
    except FileNotFoundError:
        return []
    except (OSError, ValueError, AttributeError) as error:
        raise PreconditionError(
            f"{folder / 'generation_config.json'} cannot be read: {error}", hint="train the student again"
        ) from error
    return [index for index in (named if isinstance(named, list) else [named]) if isinstance(index, int)]


def _template(tokenizer: Any) -> str | None:
    template = tokenizer.chat_template
    return template.get("default") if isinstance(template, dict) else template

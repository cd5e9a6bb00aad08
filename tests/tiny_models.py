"""Models, tokenizers and texts small enough to be made on the spot: nothing is downloaded, every seed gives the same."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

_PEOPLE = "Ada Bertil Chiara Dmitri Esther Farid Greta Hugo Ines Jarmila Kofi Lena Mateo Nadia Oskar Priya Ruben Sigrid Tomas Ursula"
_TRADES = "baker carpenter gardener glazier librarian mason miller painter potter sailor schoolmaster tailor weaver clockmaker"
_THINGS = "basket bell boat book bridge candle chair clock coat door fiddle garden gate jar kettle ladder lamp letter map mirror"
_PLACES = (
    "attic bakery barn cellar chapel courtyard ferry harbour kitchen market meadow mill orchard quarry station workshop"
)
_QUALITIES = (
    "blue brittle crooked faded heavy hollow little narrow old painted patient quiet rusty shallow silver wide wooden"
)
_VERBS = "bought borrowed carried cleaned counted described drew found hid kept lost measured mended moved praised sold"
_TIMES = (
    "at dawn|before breakfast|all afternoon|on Tuesday|in early spring|after the rain|every second week|one evening"
)
_REASONS = (
    "because the road was closed|although nobody asked|so that the others could rest|while the kettle sang|as agreed"
)
_QUOTES = "It will hold|That was not the plan|Look again|We have time enough|I would not swear to it|Let it be for now"

TRAINING_SENTENCES = (
    "The quick brown fox jumps over the lazy dog, and the dog does not mind.",
    "There is nothing in the whole world that cannot be written down with bytes.",
    "In the morning the baker counted the loaves; in the evening there were none.",
    "“Where is the map?” asked Ines. “It was in the old wooden chest,” said the sailor.",
    "def add(left, right):\n    return left + right\n",
    "On 12 May 1903 the price rose from 17 to 23, which is about 35 percent.",
    "He carried the little lamp to the harbour because the road was closed after the rain.",
    "Naïve café: the words of other languages are spelled with more bytes than one would think.",
)


def make_paragraph(generator: random.Random, sentences: int = 4) -> str:
    """A made-up paragraph of English; two draws are practically never alike."""
    return " ".join(_sentence(generator) for _ in range(sentences))


def _sentence(generator: random.Random) -> str:
    def pick(words: str, separator: str = " ") -> str:
        return generator.choice(words.split(separator))

    person, other, trade, place = pick(_PEOPLE), pick(_PEOPLE), pick(_TRADES), pick(_PLACES)
    thing, quality, verb, time, reason = (
        pick(_THINGS),
        pick(_QUALITIES),
        pick(_VERBS),
        pick(_TIMES, "|"),
        pick(_REASONS, "|"),
    )
    number = generator.randrange(2, 100)
    return generator.choice(
        (
            f"{person} the {trade} {verb} the {quality} {thing} {time}.",
            f"In the {place} there were {number} {thing}s, and {person} {verb} every one of them {reason}.",
            f"{time.capitalize()} {person} and {other} {verb} a {thing} near the {place}, {reason}.",
            f"“{pick(_QUOTES, '|')},” said {person} to the {trade}, who {verb} the {thing} {time}.",
            f"The {quality} {thing} of the {trade} was worth {number} coins, but {other} {verb} it for {number // 2}.",
            f"Nobody in the {place} knew why the {trade} {verb} {number} {quality} {thing}s {time}.",
        )
    )


def write_texts(path: Path, count: int, seed: int = 0, *, sentences: int = 4) -> Path:
    """Write `count` distinct paragraphs: of a .jsonl one per line as "text", of any other file set off by blank lines."""
    generator = random.Random(seed)
    paragraphs: dict[str, None] = {}
    while len(paragraphs) < count:
        paragraphs[make_paragraph(generator, sentences)] = None
    if path.suffix == ".jsonl":
        content = "".join(json.dumps({"text": paragraph}, ensure_ascii=False) + "\n" for paragraph in paragraphs)
    else:
        content = "\n\n".join(paragraphs) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


@lru_cache(maxsize=1)
def _training_texts() -> tuple[str, ...]:
    generator = random.Random(1234)
    return (*TRAINING_SENTENCES, *(make_paragraph(generator) for _ in range(60)))


def tiny_tokenizer(
    vocab_size: int = 384,
    *,
    bos: str | None = None,
    eos: str | None = "<|endoftext|>",
    pad: str | None = None,
    texts: Sequence[str] | None = None,
) -> PreTrainedTokenizerFast:
    """A byte-level BPE of `vocab_size` tokens (at least 260: all bytes and the special tokens), trained at once.

    Args:
        bos, eos, pad: the special tokens, which come first; None leaves one out. Equal ones share a token.
        texts: to learn merges from; built-in English when None. Other texts give another vocabulary.
    """
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = list(dict.fromkeys(token for token in (bos, eos, pad) if token is not None))
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(_training_texts() if texts is None else texts, trainer)
    size = backend.get_vocab_size()
    if size != vocab_size:
        raise ValueError(f"the texts yield {size} tokens, not {vocab_size}")
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=bos, eos_token=eos, pad_token=pad, clean_up_tokenization_spaces=False
    )


def train_sentencepiece(path: Path, vocab_size: int = 420) -> Path:
    """Write a SentencePiece BPE model with byte fallback; ids 0, 1, 2 are <unk>, <s>, </s>."""
    # Imported here because sentencepiece is an optional dependency.
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(_training_texts()),
        model_writer=model,
        model_type="bpe",
        vocab_size=vocab_size,
        byte_fallback=True,
        character_coverage=0.99,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    path.write_bytes(model.getvalue())
    return path


def sentencepiece_folder(folder: Path, model_file: Path) -> Path:
    """A folder with `model_file` as tokenizer.model and the settings of a Llama-family tokenizer beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(model_file.read_bytes())
    settings = {
        "tokenizer_class": "LlamaTokenizer",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "add_bos_token": True,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "legacy": True,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")
    return folder


def tiny_sentencepiece_tokenizer(folder: Path, vocab_size: int = 420) -> PreTrainedTokenizerBase:
    """A Llama tokenizer over a SentencePiece model trained at once; `folder` gets its files.

    Needs the sentencepiece package: `pytest.importorskip("sentencepiece")` first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return LlamaTokenizer.from_pretrained(
        sentencepiece_folder(folder, train_sentencepiece(folder / "tokenizer.model", vocab_size))
    )


def tiny_model(
    family: str,
    vocab_size: int,
    *,
    layers: int = 2,
    hidden: int = 32,
    context: int = 256,
    seed: int = 0,
    dropout: float = 0.0,
    **overrides: Any,
) -> PreTrainedModel:
    """A causal language model with random weights, in eval mode and fp32.

    Args:
        family: gpt2, llama, qwen2 or gpt_neox.
        hidden: width, a multiple of 8; there are four heads.
        dropout: everywhere where the family has it.
        overrides: more settings of the family's configuration (`eos_token_id`, `tie_word_embeddings`, …).
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _FAMILIES[family](vocab_size, layers, hidden, context, dropout, overrides)
    return model.eval()


def _gpt2(
    vocab: int, layers: int, hidden: int, context: int, dropout: float, overrides: dict[str, Any]
) -> PreTrainedModel:
    settings = {
        "n_layer": layers, "n_embd": hidden, "n_head": 4, "n_positions": context,
        "resid_pdrop": dropout, "embd_pdrop": dropout, "attn_pdrop": dropout, "bos_token_id": None, "eos_token_id": None,
    }  # fmt: skip
    return GPT2LMHeadModel(GPT2Config(vocab_size=vocab, **settings | overrides))


def _decoder_settings(vocab: int, layers: int, hidden: int, context: int, dropout: float) -> dict[str, Any]:
    return {
        "vocab_size": vocab, "num_hidden_layers": layers, "hidden_size": hidden, "intermediate_size": 2 * hidden,
        "num_attention_heads": 4, "max_position_embeddings": context, "attention_dropout": dropout,
        "bos_token_id": None, "eos_token_id": None,
    }  # fmt: skip


def _llama(
    vocab: int, layers: int, hidden: int, context: int, dropout: float, overrides: dict[str, Any]
) -> PreTrainedModel:
    settings = _decoder_settings(vocab, layers, hidden, context, dropout) | {"num_key_value_heads": 2}
    return LlamaForCausalLM(LlamaConfig(**settings | overrides))


def _qwen2(
    vocab: int, layers: int, hidden: int, context: int, dropout: float, overrides: dict[str, Any]
) -> PreTrainedModel:
    settings = _decoder_settings(vocab, layers, hidden, context, dropout)
    settings |= {"num_key_value_heads": 2, "tie_word_embeddings": True}
    return Qwen2ForCausalLM(Qwen2Config(**settings | overrides))


def _gpt_neox(
    vocab: int, layers: int, hidden: int, context: int, dropout: float, overrides: dict[str, Any]
) -> PreTrainedModel:
    settings = _decoder_settings(vocab, layers, hidden, context, dropout) | {"hidden_dropout": dropout}
    return GPTNeoXForCausalLM(GPTNeoXConfig(**settings | overrides))


_FAMILIES: dict[str, Callable[[int, int, int, int, float, dict[str, Any]], PreTrainedModel]] = {
    "gpt2": _gpt2,
    "llama": _llama,
    "qwen2": _qwen2,
    "gpt_neox": _gpt_neox,
}


def save_model_folder(path: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> Path:
    """Write model and tokenizer as a model repository holds them; the model's special ids follow the tokenizer.

    transformers reads the tokenizer of every qwen2 folder as Qwen2Tokenizer, which brings NFC, a splitting of its own
    and "<|endoftext|>" for padding: what is loaded from there may cut texts unlike `tokenizer`.
    """
    if tokenizer is not None:
        ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
        model.config.update(ids)
        if model.generation_config is not None:
            model.generation_config.update(**ids)
        tokenizer.save_pretrained(path)
    model.save_pretrained(path)
    if tokenizer is not None:
        size, rows = len(AutoTokenizer.from_pretrained(path)), model.get_input_embeddings().weight.shape[0]
        if size > rows:
            raise ValueError(f"read back, the tokenizer has {size} tokens, and the model knows {rows}")
    return path


def write_chats(path: Path, chats: int, *, seed: int = 7) -> Path:
    """A JSON Lines file of chats as a template of the ChatML kind renders them."""
    generator = random.Random(seed)
    with path.open("w", encoding="utf-8") as file:
        for _ in range(chats):
            turns = [(role, make_paragraph(generator, 1)) for role in ("user", "assistant")]
            text = "".join(f"<|im_start|>{role}\n{said}<|im_end|>\n" for role, said in turns)
            file.write(json.dumps({"text": text}) + "\n")
    return path


def teacher_of_letters(tokenizer: Any, *, seed: int = 1, layers: int = 1) -> Any:
    """A tiny GPT-2 that writes letters only, which the filter of black box lets pass."""
    teacher = tiny_model("gpt2", len(tokenizer), layers=layers, hidden=16, seed=seed, tie_word_embeddings=False)
    letters = [index for piece, index in tokenizer.get_vocab().items() if piece.strip("\u0120").isascii()]
    teacher.get_parameter("transformer.ln_f.bias").data.fill_(1.0)
    teacher.get_parameter("lm_head.weight").data[letters] += 0.5
    return teacher

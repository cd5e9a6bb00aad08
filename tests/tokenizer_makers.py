"""A tokenizer of every family, made on the spot."""

from __future__ import annotations

import io
import json

import sentencepiece
import tiktoken
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizer, PreTrainedTokenizerFast
from transformers.tokenization_utils_sentencepiece import SentencePieceBackend

from distillkit.alignment.encoding import Encoding, encode_batch
from distillkit.alignment.token_bytes import TokenBytes

CORPUS = [
    "the cat sat on the mat, and the dog sat on the log.",
    "where there is a will there is a way",
    "naïve café",
] * 4


def byte_level(specials: tuple[str, ...] = ("<|endoftext|>",), size: int = 300, add_prefix_space: bool = False):
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=alphabet, special_tokens=list(specials), show_progress=False
    )
    backend.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>")


def sentencepiece_like():
    """A Llama-style BPE: `▁` for spaces, 256 byte tokens, among them twins of ordinary characters."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    trained.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=80, show_progress=False))
    model = json.loads(trained.to_str())["model"]
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *model["vocab"]]
    backend = Tokenizer(
        models.BPE(
            vocab={piece: index for index, piece in enumerate(pieces)},
            merges=[tuple(merge) for merge in model["merges"]],
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def unigram():
    pieces = [("<unk>", 0.0), ("</s>", 0.0), *((f"<0x{byte:02X}>", -20.0) for byte in range(256))]
    pieces += [("▁", -4.0), ("▁the", -2.0), ("t", -5.0), ("h", -5.0), ("e", -5.0), ("c", -5.0), ("a", -5.0)]
    backend = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    backend.decoder = decoders.Sequence([decoders.Metaspace(prepend_scheme="never"), decoders.ByteFallback()])
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="</s>")


def slow_sentencepiece(tmp_path, **options):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=model,
        vocab_size=320,
        model_type="bpe",
        byte_fallback=True,
        hard_vocab_limit=False,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    path = tmp_path / "tokenizer.model"
    path.write_bytes(model.getvalue())
    return SentencePieceBackend(vocab_file=str(path), unk_token="<unk>", bos_token="<s>", eos_token="</s>", **options)


class TiktokenStyle(PreTrainedTokenizer):
    """As Qwen-1: slow, its own table of bytes, a `tiktoken` encoding inside, an `eod_id` and no EOS."""

    def __init__(self, **kwargs) -> None:
        merges = [b"th", b"the", b" the", b"\xe6\x97"]
        self.mergeable_ranks = {bytes([byte]): byte for byte in range(256)}
        self.mergeable_ranks |= {piece: 256 + index for index, piece in enumerate(merges)}
        self.special_tokens = {"<|endoftext|>": len(self.mergeable_ranks)}
        self.tokenizer = tiktoken.Encoding(
            "mini", pat_str=r" ?\S+|\s+", mergeable_ranks=self.mergeable_ranks, special_tokens=self.special_tokens
        )
        self.eod_id = self.tokenizer.eot_token
        super().__init__(**kwargs)

    @property
    def vocab_size(self) -> int:
        return self.tokenizer.n_vocab

    def get_vocab(self):
        return self.mergeable_ranks


def word_piece(lowercase: bool = False) -> PreTrainedTokenizerFast:
    """As BERT's for languages with capital letters: it forgets white space, and keeps everything else."""
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=lowercase, strip_accents=False)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    alphabet = [chr(code) for code in range(33, 127)]
    trainer = trainers.WordPieceTrainer(
        vocab_size=400, initial_alphabet=alphabet, special_tokens=["[PAD]", "[UNK]", "[SEP]"], show_progress=False
    )
    backend.train_from_iterator([*CORPUS, " ".join(f"{letter} x{letter}" for letter in alphabet)], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", pad_token="[PAD]", eos_token="[SEP]")


# How Llama 3 and Qwen split texts before byte-level BPE.
_MODERN_SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def split_byte_level(*steps: pre_tokenizers.PreTokenizer, normalizer=None, added: tuple[str, ...] = ()):
    """Byte-level BPE behind splits of its own; Llama 3's if none is given. With BOS in front, which no encoding here has."""
    backend = Tokenizer(models.BPE(ignore_merges=True))
    split = steps or (pre_tokenizers.Split(Regex(_MODERN_SPLIT), "isolated"),)
    backend.pre_tokenizer = pre_tokenizers.Sequence([*split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    backend.decoder = decoders.ByteLevel()
    if normalizer is not None:
        backend.normalizer = normalizer
    trainer = trainers.BpeTrainer(
        vocab_size=340, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=["<s>", "</s>"], show_progress=False
    )  # fmt: skip
    backend.train_from_iterator(CORPUS, trainer)
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    backend.add_tokens([AddedToken(content, special=False, normalized=False) for content in added])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")


def digits_apart():
    """As DeepSeek and StarCoder: every digit is a token."""
    return split_byte_level(
        pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.Split(Regex(r"\s?\S+"), "isolated")
    )


def bytes_alone():
    """A token for each byte, without any merge."""
    backend = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(pre_tokenizers.ByteLevel.alphabet())}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")


def gemma_like(byte_fallback: bool = True):
    """SentencePiece BPE as Gemma's: a normaliser writes the marks for spaces, nothing is put in front, nothing splits."""
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Replace(" ", "▁")
    trained.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=90, show_progress=False))
    model = json.loads(trained.to_str())["model"]
    fallback = [f"<0x{byte:02X}>" for byte in range(256)] if byte_fallback else []
    letters = [chr(code) for code in (*range(33, 127), *range(0xC0, 0x100), *range(0x410, 0x450))]
    pieces = dict.fromkeys(["<pad>", "<eos>", "<bos>", "<unk>", *fallback, "\n", "\n\n", *model["vocab"], *letters])
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    merges = [("\n", "\n"), *map(tuple, model["merges"])]
    backend = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=byte_fallback))
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<bos>", eos_token="<eos>", pad_token="<pad>"
    )


def unigram_of_letters(byte_fallback: bool = False):
    """As T5's and XLNet's: a space in front; what has no piece is unknown."""
    letters = "▁abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,;:!?'\"()-/<>|é日本語"
    pieces = [("<unk>", 0.0), ("</s>", 0.0), *((letter, -6.0) for letter in letters), ("▁the", -3.0), ("ing", -4.0)]
    pieces += [(f"<0x{byte:02X}>", -20.0) for byte in range(256)] if byte_fallback else []
    backend = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=byte_fallback))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    steps = [decoders.Metaspace(prepend_scheme="always"), *([decoders.ByteFallback()] if byte_fallback else [])]
    backend.decoder = decoders.Sequence(steps)
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="</s>")


def character_bpe():
    """As GPT-1's: the end of a word is marked, and white space is forgotten."""
    backend = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.BPEDecoder(suffix="</w>")
    trainer = trainers.BpeTrainer(
        vocab_size=120, end_of_word_suffix="</w>", special_tokens=["<unk>", "</s>"], show_progress=False
    )
    backend.train_from_iterator(CORPUS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="</s>")


def word_level():
    """A token for each word; the others are unknown."""
    backend = Tokenizer(models.WordLevel(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.train_from_iterator(
        CORPUS, trainers.WordLevelTrainer(special_tokens=["<unk>", "</s>"], show_progress=False)
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="</s>")


def encode_text(tokenizer, table: TokenBytes, text: str) -> Encoding:
    """The encoding of one text that its tokenizer can spell."""
    (encoding,) = encode_batch(tokenizer, table, [text])
    assert encoding is not None, text
    return encoding

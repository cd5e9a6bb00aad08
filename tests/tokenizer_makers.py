"""A tokenizer of every family, made on the spot."""

from __future__ import annotations

import io
import json

import sentencepiece
import tiktoken
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
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


def word_piece() -> PreTrainedTokenizerFast:
    """As BERT's for languages with capital letters: it forgets white space, and keeps everything else."""
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    alphabet = [chr(code) for code in range(33, 127)]
    trainer = trainers.WordPieceTrainer(
        vocab_size=400, initial_alphabet=alphabet, special_tokens=["[PAD]", "[UNK]", "[SEP]"], show_progress=False
    )
    backend.train_from_iterator([*CORPUS, " ".join(f"{letter} x{letter}" for letter in alphabet)], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", pad_token="[PAD]", eos_token="[SEP]")


def encode_text(tokenizer, table: TokenBytes, text: str) -> Encoding:
    """The encoding of one text that its tokenizer can spell."""
    (encoding,) = encode_batch(tokenizer, table, [text])
    assert encoding is not None, text
    return encoding

"""Ids that a tokenizer gives and a model cannot read: its embedding has no row for them.

Tokens are added to a tokenizer, or named in its configuration only (a BOS, a PAD), and the model is never resized. Reading
such an id ends in an IndexError, on a GPU in an assert of the device that names nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from distillkit.errors import PreconditionError, UsageError
from distillkit.models.located import LocatedModel
from distillkit.models.model_files import read_config, weight_files
from distillkit.models.plain_folder import pads_beyond
from distillkit.models.safetensors_reader import StoredWeights
from distillkit.models.shape import model_shape
from distillkit.silence_libraries import silence_transformers

# What architectures call the table of their tokens, for models that bring their own code.
_TABLES = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "tok_embeddings.weight", "embed_in.weight",
    "word_embedding.weight", "token_embedding.weight", "token_embeddings.weight", "embedding.weight")  # fmt: skip


def embedding_rows(located: LocatedModel) -> int | None:
    """Ids that a model can both read and write, by its files; None where they do not tell.

    Raises:
        PreconditionError: config.json and the weights contradict each other, or a file is damaged.
    """
    config = read_config(located.folder)
    shape = model_shape(config)
    if shape is None or shape.embedding is None:
        size = config.get("vocab_size")
        stored = _stored_rows(located.folder, _TABLES)
        return stored if stored is not None else size if isinstance(size, int) else None
    rows, name = shape.embedding
    stored = _stored_rows(located.folder, (".".join(name.split(".")[-2:]),))
    if stored is not None and stored != rows:
        raise PreconditionError(
            f"{located.reference.text}: config.json says that there are {rows:,} tokens, the embedding has {stored:,} rows",
            hint="do its weights belong to its config.json? get the model again",
        )
    return min(rows, shape.vocabulary) if shape.vocabulary else rows


def _stored_rows(folder: Path, endings: Sequence[str]) -> int | None:
    stored = StoredWeights(list(weight_files(folder)))
    tables = [name for name in stored if f".{name}".endswith(tuple(f".{ending}" for ending in endings))]
    tables = [name for name in tables if len(stored.shape(name)) == 2]
    # Others may end alike: the table of the tokens is the longest.
    return max((stored.shape(name)[0] for name in tables), default=None)


@dataclass(frozen=True)
class MissingRows:
    """The tokens of a tokenizer that its model has no row for.

    Attributes:
        role: "teacher" or "student".
        rows: of the embedding.
        size: of the tokenizer, its highest id and one.
        tokens: what has no row, id -> as the vocabulary spells it.
        needed: ids without a token that the model cannot do without (padding of its own configuration).
    """

    role: str
    rows: int
    size: int
    tokens: dict[int, str]
    needed: frozenset[int] = frozenset()

    @classmethod
    def of(cls, role: str, located: LocatedModel, tokenizer: Any) -> MissingRows | None:
        """None where every token has a row, or where the files do not tell.

        Raises:
            PreconditionError: as `embedding_rows`.
        """
        rows = embedding_rows(located)
        if rows is None:
            return None
        config = read_config(located.folder)
        padding = frozenset({config["pad_token_id"]} if pads_beyond(config) else ())
        tokens = {index: token for token, index in tokenizer.get_vocab().items() if index >= rows}
        if not tokens and not padding:
            return None
        return cls(role, rows, max([*tokens, *padding]) + 1, dict(sorted(tokens.items())), padding)

    def around(self, start: int | None, end: int | None) -> dict[int, str]:
        """The ids without a row that stand around every text, or that the model needs to be built: id -> what it is."""
        roles = dict.fromkeys(self.needed, "the padding of its config.json")
        roles |= {end: "its end-of-text token"} if end is not None and end >= self.rows else {}
        return roles | ({start: "its beginning-of-text token"} if start is not None and start >= self.rows else {})

    def inside(self, texts: Iterable[Sequence[int]]) -> dict[int, str]:
        """The ids without a row that are met in texts: id -> in how many."""
        met: dict[int, int] = {}
        for ids in texts:
            for index in {index for index in ids if index >= self.rows}:
                met[index] = met.get(index, 0) + 1
        return {index: f"in {count:,} {'text' if count == 1 else 'texts'}" for index, count in sorted(met.items())}

    def refused(self, met: dict[int, str]) -> PreconditionError:
        """What is said of a teacher that would have to read such ids.

        Args:
            met: id -> where it is met.
        """
        return PreconditionError(
            f"{self._counts()}: {self._named(met)}",
            hint=f"resize the model (resize_token_embeddings({self.size})) and save it, or correct its tokenizer's files",
        )

    def resized(self, met: dict[int, str]) -> str:
        """What is said of a student that gets rows for them."""
        added = self.size - self.rows
        rows = (
            "1 row like the mean of the others is" if added == 1 else f"{added:,} rows like the mean of the others are"
        )
        return f"{self._counts()}: {self._named(met)}; {rows} added"

    def unread(self) -> str:
        """What is said where none of them is met."""
        return f"{self._counts()}: {self._named(dict.fromkeys(self.tokens, ''))}; that does no harm, as no text has it"

    def _counts(self) -> str:
        return f"the {self.role}'s tokenizer has {self.size:,} tokens, its embedding {self.rows:,} rows"

    def _named(self, met: dict[int, str]) -> str:
        index = next(iter(met))
        notes = [repr(self.tokens[index])] if index in self.tokens else []
        notes += [met[index]] if met[index] else []
        named = f"id {index} ({', '.join(notes)})" if notes else f"id {index}"
        return f"{named} has no row" if len(met) == 1 else f"{named} and {len(met) - 1:,} more have no row"


def add_rows(model: nn.Module, rows: int, name: str) -> nn.Module:
    """A student whose embedding and head have `rows` rows; the new ones are drawn from the old ones' distribution, as
    transformers does it (Hewitt 2021, https://nlp.stanford.edu/~johnhew/vocab-expansion.html), the same every time.

    Raises:
        UsageError: the architecture cannot be resized.
    """
    changed: Any = model
    try:
        with silence_transformers(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            changed.resize_token_embeddings(rows, mean_resizing=True)
    except (NotImplementedError, AttributeError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"the student {name} needs {rows:,} rows in its embedding and cannot be resized: {type(error).__name__}",
            hint="resize it with its own code, or correct its tokenizer's files",
        ) from error
    return model

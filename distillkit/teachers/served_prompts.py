"""How a server is asked what it makes of a text: in which of its ways, and as the student's tokens or as a text.

Tokens come first: where the server has the student's vocabulary, what it says is about the very same tokens. Where it has another
one the text is sent, and the server's own tokens are told by their bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from distillkit.alignment.token_bytes import TokenBytes
from distillkit.errors import DistillkitError, PreconditionError
from distillkit.servers.client import MissingModelError, ServerClient
from distillkit.servers.prompt_logprobs import (
    WAYS,
    Likeliest,
    OtherVocabularyError,
    Vocabulary,
    Way,
    likeliest,
    question,
)
from distillkit.servers.spelled_prompt import OtherTextError, SpelledPrompt, spelled_prompt, text_question

# So many texts are tried before it is said that a server's tokens cannot be told.
_TRIED = 3


@dataclass(frozen=True)
class Asked:
    """A text that a server is asked about.

    Attributes:
        ids: as the student reads it.
        text: None for a conversation, which the template of one model has rendered.
    """

    ids: Sequence[int]
    text: str | None


@dataclass(frozen=True)
class PromptAsker:
    """Asks for the likeliest tokens at every place of texts.

    Attributes:
        vocabulary: the student's tokens, where the server has the same ones and these are sent; None where texts are.
        end_names: how the student names the end of a text.
        size: likeliest tokens at a place.
    """

    client: ServerClient
    way: Way
    vocabulary: Vocabulary | None
    end_names: frozenset[str]
    size: int

    @property
    def by_ids(self) -> bool:
        """Whether the student's tokens are sent."""
        return self.vocabulary is not None

    def likeliest(self, asked: Asked) -> Likeliest:
        """The server's distributions over the student's tokens.

        Raises:
            PreconditionError: the server has another vocabulary than it seemed to have.
            DistillkitError: it gives no answer.
        """
        try:
            return self._likeliest(asked)
        except OtherVocabularyError as error:
            raise PreconditionError(
                f"the teacher {self.client.model} has another vocabulary than the student: {error}",
                hint="use --box-type black, or a student with the teacher's tokenizer",
            ) from error

    def spelled(self, asked: Asked) -> SpelledPrompt | None:
        """The text in the server's tokens; None where they do not spell it.

        Raises:
            DistillkitError: the server gives no answer.
        """
        try:
            return self._spelled(asked)
        except OtherTextError:
            return None

    def _likeliest(self, asked: Asked) -> Likeliest:
        vocabulary = self.vocabulary
        if vocabulary is None:
            raise AssertionError("tokens are sent to a server that has the same ones")
        return self.client.scored(
            question(self.way, asked.ids, self.size),
            lambda content: likeliest(self.way, content, asked.ids, vocabulary),
        )

    def _spelled(self, asked: Asked) -> SpelledPrompt:
        text = asked.text
        if text is None:
            raise AssertionError("only texts are sent as texts")
        return self.client.scored(
            text_question(self.way, text, self.size),
            lambda content: spelled_prompt(self.way, content, text, self.end_names),
        )


def find_asker(client: ServerClient, table: TokenBytes | None, size: int, texts: Sequence[Asked]) -> PromptAsker:
    """Find out what the server knows, with the first of the texts.

    Args:
        table: the student's tokens; None where their bytes are not known.
        size: likeliest tokens at a place.

    Raises:
        PreconditionError: it has no such model, gives no log-probabilities of prompts, or has another vocabulary whose tokens
            cannot be told.
    """
    vocabulary, end_names = None, frozenset[str]()
    if table is not None:
        vocabulary = Vocabulary(table.pieces, table.specials, table.shadowed)
        if table.eos_id is not None and table.eos_id in table.specials:
            end_names = frozenset({table.specials[table.eos_id]})
    said: list[str] = []
    with client.tried_once():
        for way in WAYS:
            try:
                return _in_this_way(PromptAsker(client, way, vocabulary, end_names, size), texts)
            except DistillkitError as error:
                if isinstance(error, (_UntoldError, MissingModelError)):
                    raise
                said.append(f"{way}: {error.message}")
    raise PreconditionError(
        f"the server at {client.url} gives no {size} log-probabilities for the tokens of a prompt ({'; '.join(said)})",
        hint="use --box-type black; or a smaller sparse_size, if that is what it says (vLLM: --max-logprobs)",
    )


class _UntoldError(PreconditionError):
    """The server gives what it is asked for, and it cannot be used."""


def _in_this_way(asker: PromptAsker, texts: Sequence[Asked]) -> PromptAsker:
    as_text = replace(asker, vocabulary=None)
    model, differs = asker.client.model, ""
    if asker.by_ids:
        try:
            asker._likeliest(texts[0])
            return asker
        except OtherVocabularyError as error:
            differs = f": {error}"
        except DistillkitError:
            # It may know neither these tokens nor tokens at all.
            if texts[0].text is None:
                raise
    if texts[0].text is None:
        raise _UntoldError(
            f"the teacher {model} has another vocabulary than the student{differs}; conversations need the same tokens",
            hint="use --box-type black, or a student with the teacher's tokenizer",
        )
    for number, asked in enumerate(texts[:_TRIED]):
        try:
            as_text._spelled(asked)
            return as_text
        except OtherTextError as error:
            if number + 1 == min(_TRIED, len(texts)):
                raise _UntoldError(
                    f"the teacher {model} has another vocabulary than the student, and its tokens cannot be told by their "
                    f"bytes: {error}",
                    hint="use --box-type black, or a student with the teacher's tokenizer",
                ) from error
    raise AssertionError("there are no texts")

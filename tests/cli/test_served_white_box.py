"""White box from a server's log-probabilities: with the whole vocabulary it is the local teacher, with less its likeliest tokens."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from chat_server import ChatServer
from chat_templates import CHATML, as_chat
from conversation_runs import chat_models, conversations, distilled, prepared
from tiny_models import tiny_model, tiny_tokenizer

from distillkit import PreconditionError, UsageError
from distillkit.alignment.token_bytes import token_bytes
from distillkit.console import Console
from distillkit.data.chat_template import ChatTemplate
from distillkit.data.conversation import Conversation
from distillkit.data.conversation_examples import ConversationExampleBuilder
from distillkit.data.conversation_reader import ConversationReader
from distillkit.data.text_encoder import make_text_encoder
from distillkit.servers.prompt_logprobs import OtherVocabularyError, Vocabulary, likeliest
from distillkit.settings.parameters import Parameters
from distillkit.teachers.served_score import served_scores

Distil = Callable[..., Any]


class LogprobServer(ChatServer):
    """Gives the log-probabilities of a prompt in one of the two ways, as float64 of a model that is here.

    Args:
        way: the one that it knows; what it does not know is ignored, as vLLM and llama.cpp do.
        names: how it spells its tokens, by id.
        tokenizer: how it reads a text, with its end-of-text token in front.
    """

    def __init__(self, model: Any, names: list[str], way: str, tokenizer: Any = None) -> None:
        super().__init__()
        self.model, self.names, self.way, self.tokenizer = model.double().eval(), names, way, tokenizer

    def _written(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        choice: dict[str, Any] = {"text": "x", "finish_reason": "length"}
        ids = body["prompt"]
        if isinstance(ids, str) and self.tokenizer is not None:
            ids = [self.tokenizer.eos_token_id, *self.tokenizer(ids)["input_ids"]]
        if isinstance(ids, list) and max(ids) < len(self.names):
            with torch.inference_mode():
                logarithms = torch.log_softmax(self.model(torch.tensor([ids])).logits[0], -1)
            if self.way == "prompt_logprobs" and "prompt_logprobs" in body:
                choice["prompt_logprobs"] = self._vllm(ids, logarithms, body["prompt_logprobs"])
                if "logprobs" in body:
                    choice["logprobs"] = self._echo(ids, logarithms, body["logprobs"], first=len(ids))
            if self.way == "echo" and body.get("echo"):
                choice["logprobs"] = self._echo(ids, logarithms, body["logprobs"])
        return {"choices": [choice], "usage": {"prompt_tokens": len(ids), "completion_tokens": 1}}

    def _vllm(self, ids: list[int], logarithms: torch.Tensor, size: int) -> list[Any]:
        places: list[Any] = [None]
        for own, row in zip(ids[1:], logarithms, strict=False):
            chosen = dict.fromkeys([own, *row.topk(min(size, len(row))).indices.tolist()])
            places.append({str(i): {"logprob": float(row[i]), "decoded_token": self.names[i]} for i in chosen})
        return places

    def _echo(self, ids: list[int], logarithms: torch.Tensor, size: int, first: int = 0) -> dict[str, Any]:
        tops: list[Any] = [None]
        own: list[Any] = [None]
        # The one token that is written after the prompt stands behind it.
        ids = [*ids, int(logarithms[-1].argmax())]
        for token, row in zip(ids[1:], logarithms, strict=True):
            likely = row.topk(min(size, len(row))).indices.tolist()
            tops.append({self.names[i]: float(row[i]) for i in likely})
            own.append(float(row[token]))
        tokens = [self.names[i] for i in ids]
        return {"tokens": tokens[first:], "token_logprobs": own[first:], "top_logprobs": tops[first:]}


def spelled(piece: bytes | None, special: str | None) -> str:
    """As OpenAI spells a token: its text, or its bytes where they are no whole characters."""
    if piece is None:
        return special or ""
    try:
        return piece.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)


@pytest.fixture(scope="module")
def teacher(pair: SimpleNamespace) -> SimpleNamespace:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(pair.teacher)
    table = token_bytes(tokenizer)
    names = [spelled(piece, table.specials.get(index)) for index, piece in enumerate(table.pieces)]
    model = AutoModelForCausalLM.from_pretrained(pair.teacher, dtype=torch.float32)
    return SimpleNamespace(model=model, names=names, table=table, size=len(names), tokenizer=tokenizer)


@pytest.fixture(scope="module", params=["prompt_logprobs", "echo"])
def server(request: pytest.FixtureRequest, teacher: SimpleNamespace) -> Iterator[ChatServer]:
    with LogprobServer(teacher.model, teacher.names, request.param, teacher.tokenizer) as server:
        yield server


@pytest.fixture(scope="module")
def local(distil: Distil, pair: SimpleNamespace) -> dict[str, float]:
    """The first step's soft loss from the local teacher: all of its distribution, and its eight likeliest tokens."""
    exact = distil(temperature=1.0, teacher_cache="exact")
    few = distil(temperature=1.0, teacher_cache="sparse", sparse_method="top-k", sparse_size=8)
    foreign = distil(temperature=1.0, teacher_cache="exact", student_model_path=pair.foreign_student)
    return {"exact": soft(exact), "few": soft(few), "foreign": soft(foreign)}


def soft(result: Any) -> float:
    lines = (result.run_directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return next(line["soft_loss"] for line in map(json.loads, lines) if "soft_loss" in line)


def served(distil: Distil, server: ChatServer, **more: Any) -> Any:
    return distil(**{"teacher_model": "openai:tiny", "teacher_url": server.url, "temperature": 1.0} | more)


def test_the_whole_vocabulary_is_the_teacher(
    distil: Distil, server: LogprobServer, teacher: SimpleNamespace, local: dict[str, float]
) -> None:
    result = served(distil, server, sparse_size=teacher.size)
    assert soft(result) == pytest.approx(local["exact"], abs=1e-3)
    assert result.metrics["teacher_pass"]["tokens"] > 0


def test_a_few_tokens_and_a_tail(distil: Distil, server: LogprobServer, local: dict[str, float]) -> None:
    """The server gives the token that follows besides the likeliest: a finer partition has the larger divergence."""
    found = soft(served(distil, server, sparse_size=8))
    assert local["few"] - 1e-3 <= found <= local["exact"] + 1e-3
    asked = len(server.prompts)
    assert soft(served(distil, server, sparse_size=8, epochs=2)) == pytest.approx(found, abs=1e-6)
    assert len(server.prompts) == asked  # From the cache of the first run.


def test_conversations_are_learnt_where_they_answer(tmp_path: Path) -> None:
    """With the whole vocabulary the loss is that of the local teacher, on the answers alone."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from distillkit.alignment.token_bytes import token_bytes

    models = chat_models(tmp_path / "models")
    exact = distilled(prepared(tmp_path / "local", models, "same", temperature=1.0, teacher_cache="exact"))
    table = token_bytes(AutoTokenizer.from_pretrained(models.teacher))
    names = [spelled(piece, table.specials.get(index)) for index, piece in enumerate(table.pieces)]
    model = AutoModelForCausalLM.from_pretrained(models.teacher, dtype=torch.float32)
    with LogprobServer(model, names, "prompt_logprobs") as server:
        made = prepared(
            tmp_path / "served", models, "same", temperature=1.0, teacher_cache="auto", teacher_model_path=None,
            teacher_model="openai:tiny", teacher_url=server.url, sparse_size=len(names),
        )  # fmt: skip
        found = distilled(made)
    assert found["soft_loss"] == pytest.approx(exact["soft_loss"], abs=1e-3)


def test_a_server_with_other_tokens_is_refused_before_conversations_are_encoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only plain texts can be sent as texts. One that is out of reach by then is asked again when the training begins."""
    models = chat_models(tmp_path / "models")
    names = [spelled(piece, None) for piece in token_bytes(tiny_tokenizer(300)).pieces]
    settings = {
        "temperature": 1.0, "teacher_cache": "auto", "teacher_model_path": None, "teacher_model": "openai:tiny", "sparse_size": 8,
    }  # fmt: skip
    built: list[Any] = []
    build = ConversationExampleBuilder.build
    monkeypatch.setattr(
        ConversationExampleBuilder, "build", lambda self, *given: built.append(given) or build(self, *given)
    )
    other = tiny_model("gpt2", len(names), layers=1, hidden=16, seed=1, context=512)
    with LogprobServer(other, [*reversed(names)], "prompt_logprobs") as server:
        settings["teacher_url"] = server.url
        with pytest.raises(
            PreconditionError, match=r"another vocabulary than the student.*conversations need the same"
        ) as told:
            prepared(tmp_path / "refused", models, "base", **settings)
        assert "--box-type black" in str(told.value.hint)
        assert built == []
        assert 1 <= len(server.prompts) <= 2
        asked = len(server.prompts)
        prepared(tmp_path / "black", models, "base", **settings, box_type="black")
        assert len(server.prompts) == asked
    prepared(tmp_path / "gone", models, "base", **settings)
    assert built


def test_a_search_reads_what_the_server_said(distil: Distil, server: LogprobServer, tune: Callable[..., Any]) -> None:
    """Learning rates and alphas are searched: of another temperature or divergence nothing is known."""
    run = served(distil, server, sparse_size=8).run_directory
    asked = len(server.prompts)
    found = tune(run, trials=2)
    assert found.metrics["trials"] == 2
    result = json.loads((run / "tune" / "result.json").read_text(encoding="utf-8"))
    assert result["searched"] == ["learning_rate", "alpha"]
    assert len(server.prompts) == asked  # From the cache of the run.


def test_another_vocabulary_is_told_by_its_bytes(
    distil: Distil, server: LogprobServer, teacher: SimpleNamespace, local: dict[str, float], pair: SimpleNamespace
) -> None:
    """With the whole vocabulary it is the local teacher's byte-prefix marginalisation."""
    foreign = {"student_model_path": pair.foreign_student}
    result = served(distil, server, sparse_size=teacher.size, **foreign)
    assert soft(result) == pytest.approx(local["foreign"], abs=1e-3)
    assert isinstance(server.prompts[-1], str)


def test_tokens_that_cannot_be_told_are_refused(
    distil: Distil, teacher: SimpleNamespace, server: LogprobServer, pair: SimpleNamespace
) -> None:
    """A server that strips the spaces of its tokens, as some do SentencePiece's."""
    names = [name.strip() for name in teacher.names]
    with LogprobServer(teacher.model, names, server.way, teacher.tokenizer) as other:
        with pytest.raises(PreconditionError, match="its tokens cannot be told by their bytes") as caught:
            served(distil, other, student_model_path=pair.foreign_student)
        assert "--box-type black" in str(caught.value.hint)


def test_a_server_without_log_probabilities(distil: Distil) -> None:
    with ChatServer() as server, pytest.raises(PreconditionError, match="gives no 64 log-probabilities") as caught:
        served(distil, server)
    assert "--box-type black" in str(caught.value.hint)
    with (
        ChatServer() as server,
        pytest.raises(PreconditionError, match=r"^the server at \S+ has no model 'absent'") as caught,
    ):
        served(distil, server, teacher_model="openai:absent")
    assert "openai:MODEL" in str(caught.value.hint)


@pytest.mark.parametrize(
    "more",
    [{"temperature": 2.0}, {"teacher_cache": "exact"}, {"teacher_cache": "off"}, {"alignment": "bpm"}, {"divergence": "reverse-kl"}],
    ids=str,
)  # fmt: skip
def test_what_a_server_cannot_give(distil: Distil, more: dict[str, Any]) -> None:
    settings = {"temperature": 1.0, **more}
    with pytest.raises(UsageError, match="exclude each other"):
        distil(teacher_model="openai:tiny", teacher_url="http://127.0.0.1:9/v1", **settings)


# --- the teacher's own score -------------------------------------------------------------------------------------------


def test_the_score_is_that_of_the_local_teacher(
    distil: Distil, server: LogprobServer, teacher: SimpleNamespace, pair: SimpleNamespace
) -> None:
    """In black box, where `validate` alone asks for log-probabilities: of the student's tokens, and of the texts."""
    for student in (pair.student, pair.foreign_student):
        quick = {"box_type": "black", "alpha": 0.0, "student_model_path": student, "skip_validation": False}
        local = distil(**quick)
        found = served(distil, server, **quick)
        # The prompts of both are read behind the same start token.
        assert found.teacher["bits_per_byte"] == pytest.approx(local.teacher["bits_per_byte"], abs=1e-4)
        assert found.gap_closed == pytest.approx(local.gap_closed, abs=1e-3)
    assert "Gap to the teacher" in (found.student_path / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("way", ["prompt_logprobs", "echo"])
def test_of_conversations_the_contents_of_answers_are_scored(way: str) -> None:
    """A server with another vocabulary reads them as the student's template renders them; its tokens are none of that template."""
    theirs = tiny_tokenizer(384)
    table = token_bytes(theirs)
    names = [spelled(piece, table.specials.get(index)) for index, piece in enumerate(table.pieces)]
    model = tiny_model("gpt2", len(names), layers=1, hidden=16, seed=1, context=512)
    tokenizer: Any = as_chat(tiny_tokenizer(600), CHATML)
    encoder = make_text_encoder(tokenizer, 512, 512, needs_bytes=True)
    reader = ConversationReader(encoder, ChatTemplate.of(encoder, tokenizer.chat_template, "model", "the student"))
    built = ConversationExampleBuilder(reader, None, align=False, seed=1)
    examples = [vars(example) for example in built.build(conversations(6).splits["all"], 6)]
    with LogprobServer(model, names, way, theirs) as server:
        config = Parameters(teacher_model="openai:tiny", teacher_url=server.url)
        found = served_scores(config, encoder, reader, examples, Console(quiet=True))
    assert found is not None
    nats, size = 0.0, 0
    for example in examples:
        turns = Conversation.from_canonical(example["text"]).turns
        messages = [{"role": turn.role, "content": turn.text} for turn in turns]
        text: str = tokenizer.apply_chat_template(messages, tokenize=False)
        read = theirs(text, return_offsets_mapping=True)
        ids = [theirs.eos_token_id, *read["input_ids"]]
        with torch.inference_mode():
            logarithms = torch.log_softmax(model(torch.tensor([ids])).logits[0], -1)
        at = 0
        for turn in turns:
            begin = text.index(turn.text, at)
            at = begin + len(turn.text)
            if turn.role == "assistant":
                size += len(turn.text.encode())
                for place, (first, last) in enumerate(read["offset_mapping"]):
                    if first < at and last > begin:
                        nats -= float(logarithms[place, ids[place + 1]])
    assert int(found.bytes.sum()) == size
    assert float(found.nll.sum()) == pytest.approx(nats, rel=1e-6)


# --- spelling --------------------------------------------------------------------------------------------------------


def test_how_servers_spell_tokens() -> None:
    vocabulary = Vocabulary([b"a", b" the", b"\xe2\x80", b"\xe2", None, b"a"], {4: "</s>"}, frozenset({0}))
    spellings = {
        "a": 5, " the": 1, "▁the": 1, "bytes:\\xe2\\x80": 2, "<0xE2>": 3, "</s>": 4, "token_id:2": 2, "token_id:9": None,
        "\ufffd": None, "zzz": None,
    }  # fmt: skip
    assert {token: vocabulary.id_of(token) for token in spellings} == spellings
    assert vocabulary.may_be("the", 1)
    assert vocabulary.may_be("\ufffd", 2)
    assert not vocabulary.may_be("a", 1)


def test_tokens_that_the_student_has_not_are_in_the_tail() -> None:
    vocabulary = Vocabulary([b"a", b"b"], {})
    place = {"tokens": ["a", "b"], "token_logprobs": [None, -0.5], "top_logprobs": [None, {"zzz": -1.0, "b": -0.5}]}
    found = likeliest("echo", {"choices": [{"logprobs": place}]}, [0, 1], vocabulary)
    assert (found.counts.tolist(), found.ids.tolist()) == ([1], [1])
    assert found.unknown == pytest.approx(0.36788, abs=1e-5)
    with pytest.raises(OtherVocabularyError):
        likeliest("echo", {"choices": [{"logprobs": place}]}, [0, 0], vocabulary)

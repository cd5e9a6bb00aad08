"""The client of a server: what it sends, which faults pass, and what it says of those that do not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from chat_server import ChatServer

from distillkit.errors import DistillkitError, PreconditionError, UsageError
from distillkit.servers import pace
from distillkit.servers.client import Message, ServerClient, ServerSampling, is_loopback
from distillkit.servers.in_order import answers_in_order
from distillkit.servers.key import server_key
from distillkit.servers.pace import asked_seconds, back_off_seconds
from distillkit.settings.server_values import check_server_url

SAMPLING = ServerSampling(max_tokens=12, temperature=1.0, top_p=0.95, seed=7)
KEY = "sk-secret-0123456789"


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer() as server:
        yield server


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "_FIRST_SECONDS", 0.01)
    monkeypatch.setattr(pace, "_LONGEST_SECONDS", 0.05)


OPENED: list[ServerClient] = []


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    while OPENED:
        OPENED.pop().close()


def client(server: ChatServer | str, **settings: Any) -> ServerClient:
    url = server if isinstance(server, str) else server.url
    OPENED.append(ServerClient(url, "tiny", **settings))
    return OPENED[-1]


def test_a_text_and_an_answer(server: ChatServer) -> None:
    asked = client(server)
    reply = asked.complete("The old", SAMPLING)
    assert server.bodies[0] == {
        "model": "tiny", "stream": False, "prompt": "The old", "max_tokens": 12, "temperature": 1.0, "top_p": 0.95, "seed": 7,
    }  # fmt: skip
    assert reply.text.startswith(" ")
    assert (reply.prompt_tokens, reply.completion_tokens) == (2, len(reply.text.split()))
    assert reply == asked.complete("The old", SAMPLING)
    answer = asked.chat([Message("system", "Be brief."), Message("user", "Who?")], SAMPLING)
    assert server.bodies[-1]["messages"] == [
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who?"},
    ]  # fmt: skip
    assert answer.text


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 500}, {"status": 503, "body": b"<html>"}, {"status": 429, "headers": {"Retry-After": "0"}},
        {"body": b"no JSON"}, {"body": b'{"choices": []}'}, {"body": b'{"choices": [{"te', "cut": True},
        {"sleep": 1.0},
    ],
    ids=lambda fault: str(fault)[:40],
)  # fmt: skip
def test_what_passes_is_asked_again(server: ChatServer, fault: dict[str, Any]) -> None:
    server.fail(times=2, **fault)
    asked = client(server, timeout=0.5 if "sleep" in fault else 60.0)
    assert asked.complete("The old", SAMPLING).text
    assert len(server.prompts) == 3
    server.fail(times=99, **fault)
    with pytest.raises(DistillkitError, match="gives no answer that can be used, after 3 attempts") as caught:
        client(server, attempts=3, timeout=0.5 if "sleep" in fault else 60.0).complete("The old", SAMPLING)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 1


def test_retry_after_holds_all_threads(server: ChatServer) -> None:
    server.fail(status=429, headers={"Retry-After": "1"})
    asked = client(server)
    began = time.monotonic()
    list(answers_in_order(lambda text: asked.complete(text, SAMPLING), [f"text {n}" for n in range(6)], 2, asked.close))
    assert time.monotonic() - began >= 1
    assert server.most_at_once <= 2
    assert len(server.prompts) == 7


def test_a_pause_of_hours_is_an_error(server: ChatServer) -> None:
    server.fail(status=429, headers={"Retry-After": "86400"}, body=b'{"error": {"message": "Come back tomorrow."}}')
    with pytest.raises(DistillkitError, match=r"status 429, Come back tomorrow\."):
        client(server).complete("The old", SAMPLING)
    assert len(server.prompts) == 1


def test_an_empty_account_is_an_error_at_once(server: ChatServer) -> None:
    body = b'{"error": {"message": "You exceeded your current quota.", "code": "insufficient_quota"}}'
    server.fail(status=429, body=body, times=9)
    with pytest.raises(PreconditionError, match="You exceeded your current quota"):
        client(server).complete("The old", SAMPLING)
    assert len(server.prompts) == 1


def test_what_a_filter_refuses_is_no_error(server: ChatServer) -> None:
    server.fail(status=400, body=b'{"error": {"code": "content_filter", "message": "no"}}')
    assert client(server).complete("The old", SAMPLING).refused
    server.fail(body=b'{"choices": [{"text": "half of", "finish_reason": "content_filter"}]}')
    reply = client(server).complete("The old", SAMPLING)
    assert (reply.refused, reply.text) == (True, "")


def test_the_newer_name_of_the_limit(server: ChatServer) -> None:
    words = (
        b"Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    )
    server.fail(status=400, body=b'{"error": {"message": "' + words + b'"}}')
    asked = client(server)
    for _ in range(2):
        assert asked.chat([Message("user", "Who?")], SAMPLING).text
    assert ["max_tokens" in body for body in server.bodies] == [True, False, False]
    assert server.bodies[-1]["max_completion_tokens"] == 12


def test_thoughts_that_a_server_has_parted_from_the_answer(server: ChatServer) -> None:
    server.fail(
        body=b'{"choices": [{"message": {"content": "Four.", "reasoning_content": "2 + 2"}, "finish_reason": "stop"}]}'
    )
    assert client(server).chat([Message("user", "2 + 2?")], SAMPLING).text == "<think>\n2 + 2\n</think>\n\nFour."


# --- errors in one line ----------------------------------------------------------------------------------------------


def test_a_model_that_is_not_there() -> None:
    with ChatServer(models=("one", "two")) as server:
        assert client(server).models() == ["one", "two"]
        with pytest.raises(PreconditionError, match=r"has no model 'tiny'; it has one, two"):
            client(server).complete("The old", SAMPLING)


@pytest.mark.parametrize("key", [None, KEY])
def test_the_key_is_in_no_message(key: str | None) -> None:
    with ChatServer(key="another") as server:
        for ask in (lambda asked: asked.models(), lambda asked: asked.complete("The old", SAMPLING)):
            with pytest.raises(PreconditionError, match="the key is refused" if key else "it wants a key") as caught:
                ask(client(server, key=key))
            assert KEY not in f"{caught.value} {caught.value.hint}"
            assert "DISTILLKIT_TEACHER_KEY" in str(caught.value.hint)
    with ChatServer(key=KEY) as server:
        assert client(server, key=KEY).complete("The old", SAMPLING).text


def test_wrong_addresses(server: ChatServer) -> None:
    with pytest.raises(PreconditionError, match="there is no OpenAI API at") as caught:
        client(server.origin).models()
    assert caught.value.hint == f"did you mean --teacher-url {server.url}?"
    with pytest.raises(PreconditionError, match="no OpenAI-compatible server answers") as caught:
        client("http://127.0.0.1:9/v1").models()
    assert "refused" in str(caught.value)
    with pytest.raises(PreconditionError, match="no OpenAI-compatible server answers"):
        client("https" + server.url.removeprefix("http")).models()  # No TLS there.


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8000/v1", "ftp://host/v1", "http://", "http://host:port/v1", "http:///v1", "http://a b/v1"]
)
def test_no_addresses(url: str) -> None:
    with pytest.raises(UsageError):
        check_server_url(url, "flag")


@pytest.mark.parametrize("url", [f"http://me:{KEY}@host/v1", f"http://{KEY}@host/v1", f"https://host/v1?key={KEY}"])
def test_an_address_holds_no_secret(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_server_url(url, "flag")
    assert KEY not in f"{caught.value} {caught.value.hint}"


def test_which_key() -> None:
    assert server_key({}) is None
    assert server_key({"OPENAI_API_KEY": f" {KEY}\n"}) == KEY
    assert server_key({"OPENAI_API_KEY": KEY, "DISTILLKIT_TEACHER_KEY": "own"}) == "own"
    assert server_key({"OPENAI_API_KEY": KEY, "DISTILLKIT_TEACHER_KEY": ""}) is None
    with pytest.raises(UsageError) as caught:
        server_key({"OPENAI_API_KEY": f"{KEY}\nX-Other: 1"})
    assert KEY not in str(caught.value)


def test_this_machine() -> None:
    assert all(map(is_loopback, ("http://localhost:1/v1", "http://127.3.2.1/v1", "http://[::1]:80/v1")))
    assert not any(map(is_loopback, ("http://example.org/v1", "http://10.0.0.1/v1")))


# --- pauses and order ------------------------------------------------------------------------------------------------


def test_pauses_grow_and_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    pauses = [back_off_seconds("1/7", attempt) for attempt in range(9)]
    assert all(0.5 * min(60, 2**n) <= pause <= min(60, 2**n) for n, pause in enumerate(pauses))
    assert pauses == [back_off_seconds("1/7", attempt) for attempt in range(9)]
    assert pauses != [back_off_seconds("1/8", attempt) for attempt in range(9)]


def test_retry_after_in_seconds_and_as_a_date() -> None:
    assert asked_seconds({}) is None
    assert asked_seconds({"retry-after": "2.5"}) == 2.5
    assert asked_seconds({"retry-after": "-1"}) == 0
    assert asked_seconds({"retry-after": "soon"}) is None
    assert asked_seconds({"retry-after": "nan"}) is None
    from email.utils import formatdate

    found = asked_seconds({"retry-after": formatdate(time.time() + 30, usegmt=True)})
    assert found is not None
    assert 27 < found <= 30


def _asks(delays: list[float]) -> Callable[[int], int]:
    def ask(number: int) -> int:
        time.sleep(delays[number])
        return number

    return ask


def test_answers_keep_the_order_of_the_questions() -> None:
    delays = [0.2, 0.0, 0.1, 0.0, 0.05, 0.0]
    assert list(answers_in_order(_asks(delays), range(6), 4, lambda: None)) == list(range(6))


def test_an_error_comes_after_the_answers_before_it() -> None:
    asked: list[int] = []

    def ask(number: int) -> int:
        asked.append(number)
        if number == 3:
            raise ValueError("three")
        time.sleep(0.05 if number == 1 else 0)
        return number

    found: list[int] = []
    stopped = threading.Event()
    with pytest.raises(ValueError, match="three"):
        found.extend(answers_in_order(ask, range(1000), 2, stopped.set))
    assert found == [0, 1, 2]
    assert stopped.is_set()
    assert len(asked) < 20  # What came after was not asked any more.

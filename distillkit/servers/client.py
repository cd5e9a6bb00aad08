"""A client of the OpenAI API for everything that speaks it: vLLM, llama.cpp's server, `transformers serve`, ollama, hosted ones.

One request at a time, from as many threads as one likes. What passes by itself is sent again with growing pauses: no
connection, time-outs, cut replies, 408, 409, 429 and 5xx; everything else is an error of one line at once.
https://platform.openai.com/docs/api-reference/completions, https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

import contextlib
import ipaddress
import ssl
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

import httpx2

from distillkit import __version__
from distillkit.errors import DistillkitError, PreconditionError, first_line
from distillkit.servers.key import VARIABLES, without_key
from distillkit.servers.pace import Pace, asked_seconds, back_off_seconds
from distillkit.servers.replies import (
    MalformedReplyError,
    Reply,
    chat_reply,
    completion_reply,
    error_code,
    error_words,
    is_filtered,
    model_names,
)

Parsed = TypeVar("Parsed")

ATTEMPTS = 8
_PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529})
_CONNECT_SECONDS = 10.0
_PROBE_SECONDS = 15.0
# Whoever asks for a longer pause will not answer today.
_LONGEST_PAUSE_SECONDS = 3600.0
_LONGEST_WORDS = 300
# What OpenAI's newer models call `max_tokens`; they refuse the older name, which all others know.
_NEWER_NAME = "max_completion_tokens"


@dataclass(frozen=True)
class ServerSampling:
    """How one text is drawn.

    Attributes:
        max_tokens: new tokens at most.
        temperature: 0 for greedy decoding.
        top_p: the share of probability that is sampled from.
        seed: of the draws; servers that cannot keep it ignore it.
    """

    max_tokens: int
    temperature: float
    top_p: float
    seed: int


@dataclass(frozen=True)
class Message:
    """A turn of a conversation as the API has it."""

    role: Literal["system", "user", "assistant"]
    content: str


class MissingModelError(PreconditionError):
    """The server has no model of this name, however it is asked."""


class _FailedError(Exception):
    """An attempt that failed in a way that may pass."""

    def __init__(self, what: str, pause: float | None = None) -> None:
        super().__init__(what)
        self.pause = pause


class _RefusedError(Exception):
    """An answer that another attempt will not change."""

    def __init__(self, status: int, content: Any) -> None:
        super().__init__(status)
        self.status = status
        self.content = content


class ServerClient:
    """The server at `url`.

    Args:
        url: of the API, without a slash at its end: http://host:port/v1
        model: as the server names it.
        key: sent as a bearer token; never part of a message.
        at_once: connections that are kept.
        timeout: seconds for one reply.
        seed: of the pauses between attempts.
        attempts: for each request.
    """

    def __init__(
        self, url: str, model: str, *, key: str | None = None, at_once: int = 8, timeout: float = 600.0, seed: int = 0,
        attempts: int = ATTEMPTS,
    ) -> None:  # fmt: skip
        self.url = url.rstrip("/")
        self.model = model
        self.pace = Pace()
        self._key = key
        self._seed = seed
        self._attempts = attempts
        self._timeout = timeout
        self._length_name = "max_tokens"
        headers = {"User-Agent": f"distillkit/{__version__}"}
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        self._http = httpx2.Client(
            headers=headers,
            timeout=httpx2.Timeout(timeout, connect=min(timeout, _CONNECT_SECONDS), pool=None),
            limits=httpx2.Limits(max_connections=at_once + 1, max_keepalive_connections=at_once),
            # A key is never taken to another address.
            follow_redirects=False,
            # No proxy leads to this machine itself.
            trust_env=not is_loopback(url),
        )

    @property
    def sends_key(self) -> bool:
        """Whether requests carry a key."""
        return self._key is not None

    def close(self) -> None:
        """Nothing is asked any more; requests that wait give up."""
        self.pace.stopped.set()
        self._http.close()

    # --- what can be asked -----------------------------------------------------------------------------------------

    def models(self) -> list[str]:
        """The names of the models that the server has, [] where it does not list them. Not tried again: this is how one finds
        out at once that an address is wrong.

        Raises:
            PreconditionError: nobody answers there, the key is refused, or what answers is no such server.
        """
        try:
            return self._once("GET", "/models", None, model_names, timeout=min(self._timeout, _PROBE_SECONDS))
        except _RefusedError as refused:
            if refused.status in (404, 405):
                raise self._wrong_address() from None
            raise self._explained(refused) from None
        except (_FailedError, MalformedReplyError) as error:
            raise PreconditionError(
                f"no OpenAI-compatible server answers at {self.url}: {error}",
                hint="start the server, or check --teacher-url: it usually ends in /v1",
            ) from error

    def complete(self, text: str, sampling: ServerSampling) -> Reply:
        """What the model writes after `text`, which no template is put around.

        Raises:
            PreconditionError: the server refuses such requests, or the key, or has no such model.
            DistillkitError: it does not answer, after all attempts.
        """
        body = {"prompt": text, "max_tokens": sampling.max_tokens, **_drawing(sampling)}
        try:
            return self._written("/completions", body, completion_reply)
        except _RefusedError as refused:
            raise self._explained(refused) from None

    def chat(self, messages: Sequence[Message], sampling: ServerSampling) -> Reply:
        """What the model answers; its own template is put around the turns by the server.

        Raises:
            PreconditionError, DistillkitError: as for `complete`.
        """
        turns = [{"role": message.role, "content": message.content} for message in messages]
        limit = self._length_name
        body = {"messages": turns, limit: sampling.max_tokens, **_drawing(sampling)}
        try:
            return self._written("/chat/completions", body, chat_reply)
        except _RefusedError as refused:
            if refused.status == 400 and limit != _NEWER_NAME and _NEWER_NAME in error_words(refused.content):
                self._length_name = _NEWER_NAME
                return self.chat(messages, sampling)
            raise self._explained(refused) from None

    def scored(self, body: dict[str, Any], parse: Callable[[Any], Parsed]) -> Parsed:
        """A request to `/completions` for other things than a text.

        Args:
            body: beside the model.
            parse: raises MalformedReplyError for what it does not understand.

        Raises:
            PreconditionError, DistillkitError: as for `complete`.
        """
        try:
            return self._retried("/completions", body, parse)
        except _RefusedError as refused:
            raise self._explained(refused) from None

    @contextlib.contextmanager
    def tried_once(self) -> Iterator[None]:
        """In the block nothing is asked twice: it is being found out what the server knows."""
        attempts, self._attempts = self._attempts, 1
        try:
            yield
        finally:
            self._attempts = attempts

    # --- attempts --------------------------------------------------------------------------------------------------

    def _written(self, path: str, body: dict[str, Any], parse: Callable[[Any], Reply]) -> Reply:
        """A text. What the server's filter does not let through is one that is not kept, and no error."""
        try:
            return self._retried(path, body, parse)
        except _RefusedError as refused:
            if is_filtered(refused.content):
                return Reply("", "length", refused=True)
            raise

    def _retried(self, path: str, body: dict[str, Any], parse: Callable[[Any], Parsed]) -> Parsed:
        """The parsed answer to the first attempt that succeeds; raises `_RefusedError` where no attempt would."""
        body = {"model": self.model, "stream": False, **body}
        seed = f"{self._seed}/{body.get('seed')}/{body.get('prompt')}"
        what: Exception | None = None
        for attempt in range(self._attempts):
            pause = 0.0
            if attempt:
                asked = what.pause if isinstance(what, _FailedError) else None
                pause = 0.0 if asked is not None else back_off_seconds(seed, attempt - 1)
            if not self.pace.wait(pause):
                break
            try:
                return self._once("POST", path, body, parse)
            except (_FailedError, MalformedReplyError) as error:
                what = error
                if isinstance(error, _FailedError) and error.pause is not None:
                    if error.pause > _LONGEST_PAUSE_SECONDS:
                        break
                    self.pace.hold(error.pause)
        tries = "1 attempt" if self._attempts == 1 else f"{self._attempts} attempts"
        raise DistillkitError(
            f"the server at {self.url} gives no answer that can be used, after {tries}: {what or 'stopped'}",
            hint="see to the server, then continue the run: what is written stays; --teacher-timeout and "
            "--teacher-concurrency say how long it has and how much it is asked at once",
        )

    def _once(
        self, method: str, path: str, body: dict[str, Any] | None, parse: Callable[[Any], Parsed],
        timeout: float | None = None,
    ) -> Parsed:  # fmt: skip
        try:
            response = self._http.request(
                method, self.url + path, json=body, timeout=httpx2.USE_CLIENT_DEFAULT if timeout is None else timeout
            )
        except httpx2.TimeoutException as error:
            where = "no connection" if isinstance(error, httpx2.ConnectTimeout) else "no reply"
            limit = _CONNECT_SECONDS if isinstance(error, httpx2.ConnectTimeout) else timeout or self._timeout
            raise _FailedError(f"{where} within {min(limit, self._timeout):g} s") from error
        except (httpx2.RequestError, httpx2.InvalidURL) as error:
            problem = _tls_problem(error)
            if problem is not None:
                raise PreconditionError(
                    f"the certificate of {self.url} is not trusted: {problem}",
                    hint="let SSL_CERT_FILE name the certificates to trust, or use the http:// address of a server of your own",
                ) from error
            raise _FailedError(without_key(first_line(error), self._key)) from error
        except RuntimeError as error:  # The client was closed by another thread.
            if not self.pace.stopped.is_set():
                raise
            raise _FailedError("stopped") from error
        return self._read(response, parse)

    def _read(self, response: httpx2.Response, parse: Callable[[Any], Parsed]) -> Parsed:
        status = response.status_code
        try:
            content = response.json()
        except ValueError as error:
            content = None
            if status == 200:
                kind = response.headers.get("content-type", "no content type")[:60]
                raise MalformedReplyError(f"what it says is no JSON ({kind})") from error
        if status == 200:
            return parse(content)
        if status in _PASSING and error_code(content) != "insufficient_quota":
            words = self._words(content)
            what = f"status {status}" + (f", {words}" if words else "")
            raise _FailedError(what, asked_seconds(response.headers) if status in (429, 503, 529) else None)
        if 300 <= status < 400:
            content = {"error": f"it leads on to {response.headers.get('location', 'another address')[:200]}"}
        raise _RefusedError(status, content)

    # --- errors in one line ----------------------------------------------------------------------------------------

    def _words(self, content: Any) -> str:
        return without_key(error_words(content), self._key)[:_LONGEST_WORDS]

    def _explained(self, refused: _RefusedError) -> DistillkitError:
        """The error that a person can act on."""
        status, words = refused.status, self._words(refused.content)
        said = f": {words}" if words else ""
        if status in (401, 403):
            state = "the key is refused" if self._key is not None else "it wants a key"
            return PreconditionError(
                f"the server at {self.url}: {state} (status {status}{said})",
                hint=f"set the variable {' or '.join(VARIABLES)} to a key of this server",
            )
        if status == 404:
            return self._not_found(words)
        if 300 <= status < 400:
            return PreconditionError(f"the server at {self.url} is elsewhere{said}", hint="give that as --teacher-url")
        return PreconditionError(
            f"the server at {self.url} refuses the request (status {status}{said})",
            hint="check --teacher-model and --teacher-url; a context that is too short: lower --max-length",
        )

    def _not_found(self, words: str) -> DistillkitError:
        try:
            names = self._once("GET", "/models", None, model_names, timeout=min(self._timeout, _PROBE_SECONDS))
        except (_RefusedError, _FailedError, MalformedReplyError):
            return self._wrong_address()
        if self.model in names:
            return PreconditionError(
                f"the server at {self.url} has {self.model}, but not this way of asking it{f': {words}' if words else ''}",
                hint="it may lack /completions: use a server that has it",
            )
        shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        return MissingModelError(
            f"the server at {self.url} has no model {self.model!r}; it has {shown or 'none that it lists'}",
            hint="name one of them: --teacher-model openai:MODEL",
        )

    def _wrong_address(self) -> PreconditionError:
        hint = "check --teacher-url"
        if not self.url.endswith("/v1"):
            try:
                beside = self._http.get(f"{self.url}/v1/models", timeout=_PROBE_SECONDS)
                found = beside.status_code in (200, 401, 403)
            except httpx2.HTTPError:
                found = False
            hint = (
                f"did you mean --teacher-url {self.url}/v1?" if found else "check --teacher-url: it usually ends in /v1"
            )
        return PreconditionError(f"there is no OpenAI API at {self.url}: it has no /models there", hint=hint)


def _drawing(sampling: ServerSampling) -> dict[str, Any]:
    return {"temperature": sampling.temperature, "top_p": sampling.top_p, "seed": sampling.seed}


def is_loopback(url: str) -> bool:
    """Whether an address is of this machine itself."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _tls_problem(error: BaseException) -> str | None:
    """What is wrong with a certificate; None where that is not the cause."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return cause.verify_message or first_line(cause)
        cause = cause.__cause__ or cause.__context__
    return first_line(error) if "CERTIFICATE_VERIFY_FAILED" in str(error) else None

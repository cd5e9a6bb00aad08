"""A server on this machine that speaks the OpenAI API, for faults on demand; real servers are in tests/real/test_servers.py.

    with ChatServer() as server:            # server.url ends in /v1
        server.fail(status=429, times=2, headers={"Retry-After": "1"})
        …
        server.prompts                      # what it was asked, in the order of arrival

It answers a prompt with words that follow from the prompt and the seed alone.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_WORDS = (
    "old",
    "sailor",
    "carried",
    "little",
    "lamp",
    "to",
    "harbour",
    "and",
    "counted",
    "every",
    "boat",
    "before",
    "rain",
    "came",
    "wooden",
    "evening",
)


class ChatServer:
    """See the module.

    Args:
        models: what it lists; another name is answered with 404.
        key: what it wants as a bearer token, None for nothing.
        prefix: where the API lies.
    """

    def __init__(self, models: tuple[str, ...] = ("tiny",), *, key: str | None = None, prefix: str = "/v1") -> None:
        self.models, self.key, self.prefix = models, key, prefix
        self.prompts: list[Any] = []
        self.bodies: list[dict[str, Any]] = []
        self.at_once = self.most_at_once = 0
        self.usage = True
        self.delay: Callable[[int], float] = lambda number: 0.0
        self._faults: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                server.answer(self, None)

            def do_POST(self) -> None:
                server.answer(self, json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # A client that was killed.

        self._server = Server(("127.0.0.1", 0), Handler)
        self.origin = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.url = self.origin + prefix

    def __enter__(self) -> ChatServer:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def fail(
        self, *, times: int = 1, status: int = 200, body: bytes = b"{}", headers: Mapping[str, str] | None = None,
        cut: bool = False, sleep: float = 0.0, after: int = 0,
    ) -> None:  # fmt: skip
        """Let the next `times` texts that are asked for go wrong, `after` so many that go well."""
        self._faults.append(
            {"after": after, "times": times, "status": status, "body": body, "headers": headers or {}, "cut": cut,
             "sleep": sleep}
        )  # fmt: skip

    def answer(self, handler: BaseHTTPRequestHandler, body: dict[str, Any] | None) -> None:
        if not handler.path.startswith(self.prefix + "/"):
            return _send(handler, 404, {"detail": "Not Found"})
        given = handler.headers.get("Authorization")
        if self.key is not None and given != f"Bearer {self.key}":
            # As OpenAI does, it repeats what it was given.
            return _send(handler, 401, {"error": {"message": f"Incorrect API key provided: {given}."}})
        path = handler.path.removeprefix(self.prefix)
        if path == "/models":
            return _send(handler, 200, {"object": "list", "data": [{"id": name} for name in self.models]})
        assert body is not None
        if body["model"] not in self.models:
            return _send(handler, 404, {"error": {"message": f"The model `{body['model']}` does not exist."}})
        with self._lock:
            number = len(self.prompts)
            self.prompts.append(body.get("prompt") or body.get("messages"))
            self.bodies.append(body)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            fault = self._fault()
        try:
            time.sleep(self.delay(number))
            if fault is not None:
                time.sleep(fault["sleep"])
                return _send(handler, fault["status"], fault["body"], fault["headers"], cut=fault["cut"])
            return _send(handler, 200, self._written(path, body))
        finally:
            with self._lock:
                self.at_once -= 1

    def _fault(self) -> dict[str, Any] | None:
        if not self._faults:
            return None
        fault = self._faults[0]
        if fault["after"] > 0:
            fault["after"] -= 1
            return None
        fault["times"] -= 1
        if fault["times"] <= 0:
            self._faults.pop(0)
        return fault

    def _written(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        prompt = json.dumps(body.get("prompt") or body.get("messages"))
        chooser = random.Random(f"{prompt}/{body.get('seed')}")
        limit = body.get("max_tokens") or body.get("max_completion_tokens")
        words = chooser.choices(_WORDS, k=min(limit, chooser.randint(8, 20)))
        text = " " + " ".join(words) + "."
        choice: dict[str, Any] = {"index": 0, "finish_reason": "stop" if len(words) < limit else "length"}
        choice |= {"message": {"role": "assistant", "content": text}} if "chat" in path else {"text": text}
        usage = {"prompt_tokens": len(prompt.split()), "completion_tokens": len(words)}
        return {"object": "text_completion", "choices": [choice], **({"usage": usage} if self.usage else {})}


def _send(
    handler: BaseHTTPRequestHandler,
    status: int,
    content: Any,
    headers: Mapping[str, str] | None = None,
    *,
    cut: bool = False,
) -> None:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    handler.send_response(status)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(body) + (100 if cut else 0)))
    for name, value in (headers or {}).items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)
    if cut:
        handler.wfile.flush()
        handler.close_connection = True

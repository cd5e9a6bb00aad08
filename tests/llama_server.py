"""llama.cpp itself, from the wheel of xllamacpp, as a server inside this process: what the exported files are for."""

from __future__ import annotations

import importlib
import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class LlamaServer:
    """A model that llama.cpp has loaded."""

    def __init__(self, address: str) -> None:
        self._address = address

    def ask(self, path: str, **content: Any) -> Any:
        """The JSON that the server answers."""
        request = urllib.request.Request(
            self._address + path, json.dumps(content).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.loads(answer.read())

    def tokens(self, text: str, *, add_special: bool = False) -> list[int]:
        return self.ask("/tokenize", content=text, add_special=add_special, parse_special=False)["tokens"]

    def greedy(self, ids: list[int], count: int) -> list[int]:
        """What the model writes after `ids`, the likeliest token each time."""
        answer = self.ask(
            "/completion", prompt=ids, n_predict=count, temperature=0.0, return_tokens=True, cache_prompt=False,
            ignore_eos=True,
        )  # fmt: skip
        return answer["tokens"]


@contextmanager
def llama_server(path: Path, context: int) -> Iterator[LlamaServer]:
    """Load a GGUF file."""
    xllamacpp: Any = importlib.import_module("xllamacpp")

    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.n_parallel, params.warmup = str(path), context, 1, False
    params.cpuparams.n_threads = 1
    server = xllamacpp.Server(params)
    try:
        yield LlamaServer(server.listening_address)
    finally:
        del server

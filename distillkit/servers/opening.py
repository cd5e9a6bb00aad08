"""From a configuration to a client, and whether the server is there."""

from __future__ import annotations

import os

from distillkit.console import Console
from distillkit.servers.client import ServerClient, is_loopback
from distillkit.servers.key import VARIABLES, server_key
from distillkit.settings.conditions import SERVED
from distillkit.settings.parameters import Parameters


def open_client(config: Parameters) -> ServerClient:
    """The client of a configuration whose teacher is behind a server; nothing is asked yet.

    Raises:
        UsageError: the key cannot be sent.
    """
    if config.teacher_url is None:
        raise AssertionError("a teacher behind a server has an address")
    return ServerClient(
        config.teacher_url, config.teacher_model.removeprefix(SERVED), key=server_key(os.environ),
        at_once=config.teacher_concurrency, timeout=config.teacher_timeout, seed=config.seed,
    )  # fmt: skip


def check_server(client: ServerClient, console: Console) -> str:
    """Ask the server for its models before anything else, and say what is odd.

    Returns:
        What was found, for people.

    Raises:
        PreconditionError: it is not there, or not to be had with this key.
    """
    names = client.models()
    if client.sends_key and client.url.startswith("http://") and not is_loopback(client.url):
        console.warn(
            f"the key goes to {client.url} unencrypted, as the address is http: where it is needed by nobody there, set "
            f"{VARIABLES[0]} to nothing"
        )
    if names and client.model not in names:
        shown = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
        # Some load what they are asked for, and some answer to any name with the one model that they have.
        console.warn(f"the server at {client.url} does not list {client.model!r}; it lists {shown}")
    return f"answers at {client.url}" + (f", {len(names)} model{'s' if len(names) != 1 else ''}" if names else "")

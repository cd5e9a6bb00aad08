"""White box on conversations from a teacher behind a server: whether it has the student's tokens, asked before texts are encoded.

A text can be sent as a text, and the server's own tokens are told by their bytes. A conversation is rendered by the template of one
model, whose marks are tokens of that model alone: it is sent in the student's tokens, and a server with others cannot teach it.
"""

from __future__ import annotations

from collections.abc import Iterable

from distillkit.console import Console
from distillkit.data.chat_template import TemplateRefusalError
from distillkit.data.conversation_reader import ConversationReader
from distillkit.data.document import Document
from distillkit.errors import PreconditionError
from distillkit.run.context import needs_teacher
from distillkit.servers.opening import check_server, open_client
from distillkit.settings.conditions import is_behind_server, is_white_box
from distillkit.settings.parameters import Parameters
from distillkit.teachers.served_prompts import Asked, find_asker


def check_server_tokens(
    config: Parameters, student: ConversationReader, documents: Iterable[Document], console: Console
) -> None:
    """Refuse a server that cannot teach these conversations; any other teacher has nothing to be asked.

    A server that is out of reach by now is asked again when the training begins: its answers may be in the cache.

    Args:
        student: how the student reads.
        documents: the conversations.

    Raises:
        PreconditionError: it has another vocabulary than the student, no such model, or gives no log-probabilities of prompts.
    """
    if not (is_behind_server(vars(config)) and is_white_box(vars(config)) and needs_teacher(config)):
        return
    ids = _first_ids(student, documents)
    client = open_client(config)
    try:
        try:
            check_server(client, console)
        except PreconditionError as error:
            console.warn(f"{error.message}: whether it has the student's tokens is asked when the training begins")
            return
        if ids:
            find_asker(client, student.encoder.table, config.sparse_size, [Asked(ids, None)])
    finally:
        client.close()


def _first_ids(student: ConversationReader, documents: Iterable[Document]) -> list[int]:
    """What the student reads first, no more than it can read at a time; [] of texts that it cannot read."""
    for document in documents:
        if document.conversation is None:
            continue
        try:
            read = student.read(document.conversation.turns)
        except TemplateRefusalError:
            continue
        if read is not None and read.ids:
            return read.ids[: student.encoder.limit]
    return []

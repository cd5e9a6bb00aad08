"""What an OpenAI-compatible server answers, read with suspicion: every field may be missing or of another type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Finish = Literal["eos", "length"]

# What hosted servers call a prompt that their own filter does not let through.
_FILTERED = ("content_filter", "content_policy_violation", "contentfilter")


class MalformedReplyError(Exception):
    """An answer that is not of the documented form; its text says what is wrong."""


@dataclass(frozen=True)
class Reply:
    """What a model wrote.

    Attributes:
        text: without the prompt.
        finish: "eos" where the model ended the text, "length" where it was cut off.
        prompt_tokens, completion_tokens: as the server counted them; None where it does not say.
        refused: the server's own filter did not let it through; `text` is then empty.
    """

    text: str
    finish: Finish
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    refused: bool = False


def completion_reply(content: Any) -> Reply:
    """The reply of `/completions`.

    Raises:
        MalformedReplyError: it is not of that form.
    """
    choice = _choice(content)
    text = choice.get("text")
    if not isinstance(text, str):
        raise MalformedReplyError("choices[0].text is missing")
    return _reply(content, choice, text)


def chat_reply(content: Any) -> Reply:
    """The reply of `/chat/completions`.

    Raises:
        MalformedReplyError: it is not of that form.
    """
    choice = _choice(content)
    message = choice.get("message")
    if not isinstance(message, dict):
        raise MalformedReplyError("choices[0].message is missing")
    text = message.get("content")
    if text is None:  # A refusal, or nothing but a call of a tool.
        text = ""
    if not isinstance(text, str):
        raise MalformedReplyError("choices[0].message.content is no text")
    # Servers that part reasoning from the answer give it a field of its own: it belongs to what was written.
    thought = message.get("reasoning_content") or message.get("reasoning")
    if isinstance(thought, str) and thought.strip():
        text = f"<think>\n{thought.strip()}\n</think>\n\n{text}"
    return _reply(content, choice, text)


def _choice(content: Any) -> dict[str, Any]:
    choices = content.get("choices") if isinstance(content, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise MalformedReplyError("it has no choices")
    return choices[0]


def _reply(content: dict[str, Any], choice: dict[str, Any], text: str) -> Reply:
    usage = content.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    refused = choice.get("finish_reason") == "content_filter"
    return Reply(
        "" if refused else text,
        "eos" if choice.get("finish_reason") == "stop" else "length",
        _count(usage.get("prompt_tokens")),
        _count(usage.get("completion_tokens")),
        refused,
    )


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def model_names(content: Any) -> list[str]:
    """The ids that `/models` lists.

    Raises:
        MalformedReplyError: it is not of that form.
    """
    entries = content.get("data") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise MalformedReplyError("it lists no models")
    return [entry["id"] for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), str)]


def error_words(content: Any) -> str:
    """What a server says of an error: `error.message` (OpenAI), `error`, `message` or `detail` (FastAPI); "" for nothing."""
    if not isinstance(content, dict):
        return ""
    error = content.get("error")
    for value in (
        error.get("message") if isinstance(error, dict) else error,
        content.get("message"),
        content.get("detail"),
    ):
        if isinstance(value, str) and value.strip():
            return " ".join(value.split())
    return ""


def error_code(content: Any) -> str:
    """`error.code` or `error.type`, "" where there is none."""
    error = content.get("error") if isinstance(content, dict) else None
    if not isinstance(error, dict):
        return ""
    return next((value for name in ("code", "type") if isinstance(value := error.get(name), str)), "")


def is_filtered(content: Any) -> bool:
    """Whether an error says that the server's filter refuses this one prompt."""
    return error_code(content).lower() in _FILTERED

"""What makes a saved model a chat model: its template, and the token that ends an answer as an end of what it writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from distillkit.data.chat_template import ChatTemplate
from distillkit.storage import read_json


def write_chat_files(folder: Path, template: ChatTemplate) -> None:
    """Put a template beside the tokenizer, unless it is the model's own, which lies there; and make what `generate` reads end
    at the end of an answer.

    Args:
        folder: a saved model with its tokenizer.

    Raises:
        OSError, ValueError: a file cannot be read or written.
    """
    if template.origin != "model":
        (folder / "chat_template.jinja").write_text(template.source, encoding="utf-8")
        # Readers that are older than the file of its own look here.
        settings = folder / "tokenizer_config.json"
        if settings.is_file():
            _write(settings, read_json(settings) | {"chat_template": template.source})
    generation = folder / "generation_config.json"
    content: dict[str, Any] = read_json(generation) if generation.is_file() else {}
    model: dict[str, Any] = read_json(folder / "config.json")
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        if name not in content and model.get(name) is not None:
            content[name] = model[name]
    ends = content.get("eos_token_id")
    ends = list(ends) if isinstance(ends, list) else [] if ends is None else [ends]
    if template.end_id not in ends:
        # The first is what others than transformers take for the only one.
        content["eos_token_id"] = [template.end_id, *ends] if ends else template.end_id
    _write(generation, content)


def _write(path: Path, content: dict[str, Any]) -> None:
    if not path.is_file() or read_json(path) != content:
        path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

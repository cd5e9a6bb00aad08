"""How to do it again, and how to use what came of it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from distillkit.reports.html.elements import Markup, element, together
from distillkit.reports.html.sections.verdict import HERE
from distillkit.reports.html.writer import Writer

_LONGEST_COMMAND = 20_000


def reproduce(w: Writer) -> Markup:
    """The exact command, and config.yaml, which says the same."""
    command = _lines(w.facts.command)
    given = bool(command) and len(command) <= _LONGEST_COMMAND
    from_file = element("pre", element("code", "distillkit distill --config config.yaml"), tabindex=0)
    return w.section(
        "reproduce",
        element("p", w("reproduce.about", version=w.facts.version)),
        element("pre", element("code", command), tabindex=0) if given else from_file,
        element("p", w("reproduce.seed" if given else "reproduce.file"), class_="note"),
        w.folded(w("reproduce.config"), element("pre", element("code", w.facts.config_yaml), tabindex=0))
        if w.facts.config_yaml and len(w.facts.config_yaml) <= _LONGEST_COMMAND
        else None,
    )


def _lines(words: Sequence[str]) -> str:
    """A command for the shell, an option on each line."""
    parts: list[list[str]] = [[]]
    for word in words:
        if word.startswith("--"):
            parts.append([])
        parts[-1].append(word)
    return " \\\n  ".join(shlex.join(part) for part in parts)


def load(w: Writer) -> Markup:
    """The student in transformers and, where it was exported, in llama.cpp."""
    if not w.facts.students:
        return w.section("load", w.missing("load.missing", f"distillkit distill {HERE}"))
    folder = w.facts.students[0]
    extra = ", trust_remote_code=True" if w.facts.config.get("trust_remote_code") else ""
    code = (
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f'model = AutoModelForCausalLM.from_pretrained("{folder}"{extra})\n'
        f'tokenizer = AutoTokenizer.from_pretrained("{folder}"{extra})\n'
    )
    code += _CHAT if w.facts.stats.get("conversations") else _TEXT
    return w.section(
        "load",
        element("p", w("load.about", folder=element("code", folder))),
        element("h3", "transformers"),
        element("pre", element("code", code), tabindex=0),
        element("h3", "llama.cpp"),
        _llama(w),
    )


_TEXT = """
inputs = tokenizer("Once upon a time", return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=60)[0]))
"""
_CHAT = """
question = [{"role": "user", "content": "Hello!"}]
inputs = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=60)[0]))
"""


def _llama(w: Writer) -> Markup:
    if not w.facts.ggufs:
        return w.missing("load.no_gguf", f"distillkit export {HERE} --dtype q8_0")
    commands = "\n".join(f"llama-cli -m {shlex.quote(f'export/{name}')}" for name in w.facts.ggufs)
    sizes = ", ".join(f"{name}: {w.shown(size, 'bytes')}" for name, size in w.facts.ggufs.items())
    return together(element("pre", element("code", commands), tabindex=0), element("p", sizes, class_="note"))

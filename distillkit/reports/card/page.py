"""The README.md of an exported student: what it came from, how it was trained, what was measured, how to load it.

A card is made to be published: of local paths only the last part is shown, access tokens never, and no value of a
stranger can break the YAML front matter, a Markdown table or a code span.
"""

from __future__ import annotations

from collections.abc import Sequence

from distillkit.reports.card import markdown
from distillkit.reports.card.facts import CardFacts, ChatFacts
from distillkit.reports.card.front_matter import front_matter
from distillkit.reports.card.measured import measured
from distillkit.reports.card.method import method
from distillkit.reports.card.names import hub_repository
from distillkit.reports.card.origin import origin

# In the card of a folder, instead of the repository that it may be pushed to.
_PLACE = "path/to/this/folder"
_TEMPLATES = {
    "model": "the student's own",
    "file": "given for this student, which had none",
    "teacher": "its teacher's, whose tokenizer it has",
    "plain": "distillkit's plain one (`### User:` …), as the student had none",
}


def model_card(facts: CardFacts) -> str:
    """The model card as Markdown with YAML front matter; `huggingface_hub.ModelCard` reads it."""
    sections = [
        "# Distilled student",
        f"A causal language model, distilled with distillkit {markdown.plain(facts.version)}.",
        "## Origin",
        origin(facts),
        "## Method",
        *method(facts),
        markdown.table(
            ("parameter", "value"),
            [(markdown.code(name), markdown.value(value)) for name, value in facts.parameters.items()],
        ),
        "## Measured on held-out texts",
        *measured(facts.validation),
        *([] if facts.chat is None else ["## Chat", _chat(facts.chat)]),
        "## How to load it",
        *_loading(facts.trust_remote_code, facts.adapter_base),
    ]
    return f"---\n{front_matter(facts).to_yaml()}\n---\n\n" + "\n\n".join(sections) + "\n"


def published_card(card: str, repository: str, ggufs: Sequence[str]) -> str:
    """The card of a student that is pushed to the Hub.

    Args:
        card: as it lies in the student's folder.
        repository: the id of the repository.
        ggufs: names of the GGUF files that are pushed too.
    """
    card = card.replace(f'"{_PLACE}"', f'"{repository}"')
    if not ggufs:
        return card
    commands = "\n".join(f"llama-cli --hf-repo {repository} --hf-file {name}" for name in ggufs)
    return card.rstrip("\n") + f"\n\nAs GGUF, with llama.cpp:\n\n```sh\n{commands}\n```\n"


def _chat(chat: ChatFacts) -> str:
    family = "" if chat.family is None else f" ({chat.family})"
    # No cell of a table: a pipe stays what it is.
    end = markdown.line(chat.end).replace("`", "'")
    return (
        f"Conversations are read in the chat template that lies with the tokenizer: {_TEMPLATES[chat.origin]}{family}. An answer ends "
        f"with `{end}`, at which `generate` stops."
    )


def _loading(trust_remote_code: bool, adapter_base: str | None) -> list[str]:
    extra = ", trust_remote_code=True" if trust_remote_code else ""
    lines = ["from transformers import AutoModelForCausalLM, AutoTokenizer"]
    model = f'model = AutoModelForCausalLM.from_pretrained("{{}}"{extra})'
    if adapter_base is None:
        lines.append(model.format(_PLACE))
    else:
        base = f"{_PLACE}/base" if adapter_base == "base" else hub_repository(adapter_base) or "path/to/the/base/model"
        lines = ["from peft import PeftModel", *lines, model.format(base)]
        lines.append(f'model = PeftModel.from_pretrained(model, "{_PLACE}")')
    lines.append(f'tokenizer = AutoTokenizer.from_pretrained("{_PLACE}"{extra})')
    paragraphs = ["\n".join(["```python", *lines, "```"])]
    if trust_remote_code:
        paragraphs.append(
            "Remote code was trusted during distillation (`trust_remote_code`): a model's own Python code was allowed to run. Read "
            "the `.py` files in this folder, if there are any, before you allow the same."
        )
    return paragraphs

"""The card of a student that was kept as an adapter, for where it goes: merged into a whole model, or to the Hub beside its base."""

from __future__ import annotations

import re

_LOADING = re.compile(
    r"from peft import PeftModel\n(?P<imports>from transformers import [^\n]*\n)"
    r'model = AutoModelForCausalLM\.from_pretrained\("[^"\n]*"(?P<more>[^\n]*)\n'
    r'model = PeftModel\.from_pretrained\(model, (?P<place>"[^"\n]*")\)\n'
)


def relation_to_base(adapter_base: str | None) -> str:
    """`base_model_relation` of a card, by which the Hub shows a model beside the one that it was made from.

    Args:
        adapter_base: of `CardFacts`.
    """
    return "finetune" if adapter_base in (None, "base") else "adapter"


def merged_card(card: str) -> str:
    """For the whole model that the adapter and its base make together."""
    card = card.replace("library_name: peft\n", "library_name: transformers\n", 1)
    card = card.replace("base_model_relation: adapter\n", "base_model_relation: finetune\n", 1)
    card = card.replace("kept beside the weights", "merged into the weights")
    load = "model = AutoModelForCausalLM.from_pretrained("
    return _LOADING.sub(lambda found: f"{found['imports']}{load}{found['place']}{found['more']}\n", card)


def card_beside_base(card: str, repository: str, base: str) -> str:
    """For a repository that holds the adapter and, in a folder of its own, the model that it is for.

    transformers would take the repository for the adapter, whatever folder in it is named, so it is downloaded first.

    Args:
        repository: its id.
        base: the folder.
    """
    place = (
        f'folder = snapshot_download("{repository}")\nmodel = AutoModelForCausalLM.from_pretrained(f"{{folder}}/{base}"'
    )
    return _LOADING.sub(
        lambda found: (
            f"from huggingface_hub import snapshot_download\nfrom peft import PeftModel\n{found['imports']}{place}"
            f"{found['more']}\nmodel = PeftModel.from_pretrained(model, folder)\n"
        ),
        card,
    )

"""What a model of the zoo does in each of its roles, against plain transformers; docs/models.md is made of this.

python tests/zoo_roles.py --write        runs the whole zoo, writes tests/zoo_outcomes.json and docs/models.md
python tests/zoo_roles.py --page         writes docs/models.md from the stored outcomes
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from zoo_models import VOCABULARY, kinds, zoo_config, zoo_model

from distillkit.console import Console
from distillkit.errors import DistillkitError
from distillkit.models.backbone_and_head import split_model
from distillkit.models.decoding import Decoding
from distillkit.models.decoding_ways import decoding_way
from distillkit.models.loading import load_student
from distillkit.models.located import LocatedModel
from distillkit.models.locating import locate
from distillkit.models.pruning import keep_layers
from distillkit.models.references import parse_reference
from distillkit.silence_libraries import silence_transformers
from distillkit.teachers.blocks import BlockwiseTeacher, streaming_problem
from distillkit.training.export_check import check_written

OUTCOMES = Path(__file__).with_name("zoo_outcomes.json")
PAGE = Path(__file__).resolve().parents[1] / "docs" / "models.md"
ROLES = ("teacher", "cached", "streamed", "black box", "student", "cut")
CPU = torch.device("cpu")
_TEXTS = ([5, 9, 22, 33, 40, 7, 3, 13, 50, 51, 52, 17, 29, 31, 8, 61, 19], [8, 11, 60, 4, 21, 6])
_NEW = 6
_FIRST = 3  # The first token that is nothing special, such as padding.
_ROUNDING = 2e-3


class _OtherError(Exception):
    """Something works, and gives other numbers than plain transformers."""


def outcome_of(kind: str) -> dict[str, str]:
    """{role: "works" or why not}; {"made": why not} for what cannot be made tiny here."""
    with silence_transformers(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _outcome_of(kind)


def _outcome_of(kind: str) -> dict[str, str]:
    try:
        config = zoo_config(kind)
        if config.model_type != kind:
            return {"made": f"its text model is `{config.model_type}`"}
        model: Any = zoo_model(kind)
        with torch.no_grad():
            if model(input_ids=torch.tensor([_TEXTS[0]]), use_cache=False).logits.shape[-1] != VOCABULARY:
                return {"made": "its head is not over tokens"}
    except Exception as error:
        return {"made": _words(error)}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "model"
        model.save_pretrained(folder)
        try:
            located = locate(parse_reference(str(folder)), Console(quiet=True))
        except DistillkitError as error:
            return dict.fromkeys(ROLES, error.message.replace(str(folder), "it"))
        roles: dict[str, Callable[[], str]] = {
            "teacher": lambda: _teacher(model),
            "cached": lambda: "works" if split_model(model).apart else "its head is more than a linear layer",
            "streamed": lambda: _streamed(model, located),
            "black box": lambda: _black_box(model),
            "cut": lambda: _cut(model, Path(place) / "cut"),
            "student": lambda: _student(located, Path(place) / "student"),
        }
        return {role: _try(roles[role]) for role in ROLES}


def _try(role: Callable[[], str]) -> str:
    try:
        return role()
    except DistillkitError as error:
        return error.message
    except Exception as error:
        return f"fails: {_words(error)}"


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


def _plain(model: Any, ids: list[int]) -> Tensor:
    """[T, V] logits of a text alone, by transformers."""
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]


def _compare(found: Tensor, expected: Tensor, what: str) -> None:
    apart = (found - expected).abs().max() / expected.std()
    if not bool(apart < _ROUNDING):
        raise _OtherError(f"other numbers than transformers: {what}, {apart:.1e} of their spread")


def _teacher(model: Any) -> str:
    """Its logits in a padded batch, and that no token sees a later one."""
    model.eval()
    width = max(map(len, _TEXTS))
    batch = {"input_ids": torch.tensor([[*text, *[0] * (width - len(text))] for text in _TEXTS])}
    batch["attention_mask"] = torch.tensor([[1] * len(text) + [0] * (width - len(text)) for text in _TEXTS])
    parts = split_model(model)
    with torch.no_grad():
        together = parts.head(parts.hidden(batch))
    for text, logits in zip(_TEXTS, together, strict=True):
        _compare(logits[: len(text)], _plain(model, text), "in a batch")
    beginning = _plain(model, _TEXTS[0][:-5])
    if not torch.allclose(beginning, _plain(model, _TEXTS[0])[:-5], atol=_ROUNDING):
        raise _OtherError("tokens see later ones")
    return "works"


def _streamed(model: Any, located: LocatedModel) -> str:
    problem = streaming_problem(model.config.to_dict())
    if problem is not None:
        return "no"
    whole: Any = BlockwiseTeacher(located, torch.float32, CPU).whole_model()
    for text in _TEXTS:
        _compare(_plain(whole, text), _plain(model, text), "block by block")
    return "works"


def _black_box(model: Any) -> str:
    """Greedy texts of prompts of unlike lengths, by the sampler and by `generate()`."""
    model.eval()
    prompts = [_TEXTS[0], _TEXTS[1], _TEXTS[0][2:8]]
    way = decoding_way(model, CPU)
    texts = Decoding(model, prompts, CPU, way)
    written, plain = [], []
    with torch.inference_mode():
        for _ in range(_NEW):
            chosen = texts.logits()[:, _FIRST:].argmax(-1) + _FIRST
            written.append(chosen)
            texts.append(chosen, torch.ones(len(prompts), dtype=torch.bool))
        for row, prompt in enumerate(prompts):
            ids = [*prompt, *(int(step[row]) for step in written)]
            plain.append(_plain(model, ids)[len(prompt) - 1 : -1, _FIRST:].argmax(-1) + _FIRST)
    found = [list(row) for row in zip(*(step.tolist() for step in written), strict=True)]
    if found != [row.tolist() for row in plain]:
        raise _OtherError("other texts than the plain forward pass")
    return "works" if way.state is not None else "works, slowly: it reads its text again for each token"


def _student(located: LocatedModel, place: Path) -> str:
    student: Any = load_student(located, console=Console(quiet=True))
    parts = split_model(student)
    optimizer = torch.optim.AdamW(student.parameters(), lr=2e-3)
    ids = torch.tensor([_TEXTS[0], _TEXTS[0][::-1]])
    losses = []
    torch.manual_seed(0)  # Dropout.
    for _ in range(4):
        student.train()
        logits = parts.head(parts.hidden({"input_ids": ids, "attention_mask": torch.ones_like(ids)}))
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
        optimizer.zero_grad()
    if not losses[-1] < losses[0]:
        raise _OtherError(f"the loss does not fall ({losses[0]:.3f}, {losses[-1]:.3f})")
    student.eval().save_pretrained(place)
    check_written(place, student, _TEXTS[0])
    return "works"


def _cut(model: Any, place: Path) -> str:
    try:
        student: Any = keep_layers(model, 2)
    except DistillkitError as error:
        return f"some layers: {error.hint}" if "can be saved" in (error.hint or "") else "no"
    student.save_pretrained(place)
    check_written(place, student, _TEXTS[0])
    return "works"


# --- the page --------------------------------------------------------------------------------------------------------


def page(outcomes: dict[str, dict[str, str]]) -> str:
    """docs/models.md."""
    made = {kind: found for kind, found in outcomes.items() if "made" not in found}
    lines = [
        "# Which architectures work",
        "",
        "A tiny model with random weights of every architecture that `AutoModelForCausalLM` of transformers 5.24 knows, in "
        "each of its roles, compared with transformers' own numbers. Written by `python tests/zoo_roles.py --write`, and "
        "checked by `pytest tests/zoo`.",
        "",
        "- *teacher*: white box; its logits in a batch are those of each text alone.",
        "- *cached*: its hidden states can be cached exactly; otherwise `--teacher-cache sparse` or `off`.",
        "- *streamed*: it can run block by block when it is larger than memory (`--teacher-streaming`).",
        "- *black box*: its greedy texts, in batches, are those of its plain forward pass.",
        "- *student*: it trains, and the student that is saved is the one that was trained.",
        "- *cut*: evenly spaced layers alone (`teacher:0,4,9`); otherwise the error names a choice that can be saved, and `teacher:N` takes one like it.",
        "",
        f"| architecture | {' | '.join(ROLES)} |",
        f"|---|{'---|' * len(ROLES)}",
    ]
    notes: dict[str, int] = {}

    def cell(outcome: str) -> str:
        if outcome == "works":
            return "✓"
        if outcome == "no":
            return "–"
        return f"({notes.setdefault(outcome, len(notes) + 1)})"

    for kind, found in made.items():
        lines.append(f"| `{kind}` | {' | '.join(cell(found[role]) for role in ROLES)} |")
    lines += ["", "✓ works, – is refused with a line that says so."]
    lines += ["", *(f"{number}. {note}" for note, number in notes.items())]
    lines += [
        "",
        "## Not tried",
        "",
        "These are made of more than a text model, or cannot be made tiny by their settings.",
        "",
    ]
    lines += [f"- `{kind}`: {found['made']}" for kind, found in outcomes.items() if "made" in found]
    return "\n".join(lines) + "\n"


def stored() -> dict[str, dict[str, str]]:
    """What the last run of the whole zoo found."""
    return json.loads(OUTCOMES.read_text(encoding="utf-8"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--page", action="store_true")
    parser.add_argument("kinds", nargs="*")
    arguments = parser.parse_args()
    outcomes = {} if arguments.page else {kind: outcome_of(kind) for kind in arguments.kinds or kinds()}
    if arguments.page or arguments.write:
        outcomes = (stored() if OUTCOMES.is_file() else {}) | outcomes
        OUTCOMES.write_text(json.dumps(outcomes, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        PAGE.write_text(page(outcomes), encoding="utf-8")
    else:
        json.dump(outcomes, sys.stdout, ensure_ascii=False, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())

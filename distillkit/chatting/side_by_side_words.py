"""What the models of a run wrote side by side, as a person reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distillkit.chatting.sampling import Sampling
from distillkit.chatting.side_by_side import SideBySide
from distillkit.console import Console, format_bytes, sanitize


def say_how_they_write(models: SideBySide, sampling: Sampling, console: Console) -> None:
    """How texts are drawn, and a line for each model that does not take part, with the reason."""
    given = {name: f"{value:g}" if isinstance(value, float) else value for name, value in sampling.record().items()}
    console.info(console.say("demo.drawn", **given))
    for why in models.left_out.values():
        amounts = {name: format_bytes(why[name]) for name in ("needed", "free") if name in why}
        console.info(console.say(f"demo.left_out.{why['why']}", **amounts))


def show_texts(found: Mapping[str, Any], console: Console) -> None:
    """What was written, then how: speed, and how many texts end, and how many loop.

    Args:
        found: the content of demo.json.
    """
    say = console.say
    rows: list[tuple[str, str]] = []
    for text, figures in zip(found["texts"], found["figures"], strict=True):
        rows += [("", "")] if rows else []
        rows.append((say("demo.prompt"), sanitize(text["prompt"]).strip()))
        for name, of_text in figures.items():
            rows.append((say(f"model.{name}"), sanitize(text[name]).strip()))
            rows += [("", f"({remark})")] if (remark := _remark(of_text, console)) else []
    console.table(say("demo.title"), [say("demo.who"), say("demo.text")], rows, to_stdout=True)
    columns = [say(f"demo.{name}") for name in ("who", "tokens", "speed", "ended", "repeated")]
    speeds = [
        [say(f"model.{name}"), speed["tokens"], f"{speed['tokens_per_second']:.1f}", *_endings(found, name, console)]
        for name, speed in found["models"].items()
    ]
    console.table(say("demo.how"), columns, speeds, numeric=range(1, 5), to_stdout=True)


def _remark(figures: Mapping[str, Any], console: Console) -> str:
    """What is wrong with a text, in words; "" if nothing is."""
    if figures["fault"] is None:
        return ""
    key = figures["fault"].replace(" ", "_")
    return console.say(f"demo.fault.{key}", share=f"{100 * figures['repeated_share']:.0f}")


def _endings(found: Mapping[str, Any], name: str, console: Console) -> list[str]:
    """How many texts of a model it ended itself, and which share of them, on average, was there before."""
    figures = [texts[name] for texts in found["figures"] if name in texts]
    ended = sum(of_text["finish"] == "end" for of_text in figures)
    repeated = sum(of_text["repeated_share"] for of_text in figures) / len(figures)
    return [console.say("demo.of", part=ended, whole=len(figures)), f"{100 * repeated:.0f} %"]


def repeating(found: Mapping[str, Any]) -> dict[str, int]:
    """How many texts of each model repeat themselves."""
    return {name: sum(texts[name]["fault"] == "repetition" for texts in found["figures"]) for name in found["models"]}

"""What prepare-data read: ten lines for people, from what `data/stats.json` holds.

A wrong column, a test split that is trained on or a table read as prose shows here, before anything is trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from distillkit.data.document_kinds import told_row
from distillkit.data.notes import by_file, told_format
from distillkit.words import reworded, say

# With the names of the lines, two lines of a terminal.
_SHOWN_CHARACTERS = 100


def input_report(stats: Mapping[str, Any], lang: str = "en") -> list[tuple[str, str]]:
    """The lines as (what, what was found); those that have nothing to tell are left out.

    Args:
        stats: the content of `data/stats.json`.
        lang: for people; what is recorded is English.
    """
    reading: Mapping[str, Any] = stats.get("reading", {})
    lines = [
        ("source", stats["source"]),
        ("mix", _mix(stats.get("mix") or [], lang)),
        ("read_as", by_file(reading.get("read_as", {}), lang)),
        ("column", _columns(reading, lang)),
        (
            "format",
            by_file({name: told_format(record, lang) for name, record in reading.get("formats", {}).items()}, lang),
        ),
        ("first_row", told_row(reading.get("first_conversation", ()), lang)),
        ("splits", _splits(reading.get("splits", {}), stats.get("source_documents"), lang)),
        ("texts", _amounts(stats, lang)),
        ("left_out", _left_out(stats, reading, lang)),
        ("special_tokens", _special_tokens(stats.get("special_tokens"), lang)),
        ("changed", _normalised(stats.get("normalised"), lang)),
        ("tokenizers", _tokenizers(stats, lang)),
    ]
    # Of a conversation the first row says the same, as people read it.
    text = "" if reading.get("first_conversation") else first_text(stats)
    named = [
        *((say(lang, f"input.{what}"), found) for what, found in lines),
        *_further_teachers(stats, lang),
        (say(lang, "input.first_text"), text),
    ]
    return [(what, found) for what, found in named if found]


def _further_teachers(stats: Mapping[str, Any], lang: str) -> list[tuple[str, str]]:
    """A line for each teacher besides the first, and what all of them guide together."""
    lines = [
        (say(lang, "input.teacher", number=number), _further_teacher(told, lang))
        for number, told in enumerate(stats.get("extra_teachers") or [], 2)
    ]
    if not lines:
        return []
    guided = stats["guided"]
    if guided["all"] == 1:
        together = say(lang, "input.all_guide")
    else:
        together = say(lang, "input.together", any=_percent(guided["any"]), all=_percent(guided["all"]))
    return [*lines, (say(lang, "input.teachers"), together)]


def _further_teacher(told: Mapping[str, Any], lang: str) -> str:
    parts = [told["name"]]
    alignment = told.get("alignment")
    if alignment is None:
        parts.append(say(lang, "input.reads_it"))
    else:
        one = (told.get("conversations") or {}).get("one_tokenizer")
        parts.append(say(lang, "input.other_template" if one else "input.other_tokenizer", **_guided(alignment)))
    if unread := told["unread"]["train"]:
        parts.append(say(lang, "input.unread", count=unread))
    if shortened := told["shortened"]:
        parts.append(say(lang, "input.shortened", count=f"{shortened:,}"))
    return "; ".join(parts)


def _guided(alignment: Mapping[str, float]) -> dict[str, str]:
    return {"tokens": _percent(alignment["positions_aligned"]), "bytes": _percent(alignment["bytes_aligned"])}


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _mix(sources: Sequence[Mapping[str, Any]], lang: str) -> str:
    told = []
    for source in sources:
        amounts = {part: f"{source['splits'][part]['examples']:,}" for part in ("train", "validation", "test")}
        share = f"{100 * source['share']:.3g}"
        told.append(say(lang, "input.mixed", source=source["source"], share=share, **amounts))
    return "; ".join(told)


def first_text(stats: Mapping[str, Any]) -> str:
    """The beginning of the first text that is trained on, with its white space made visible."""
    text = stats.get("first_text", "")
    shown = text[:_SHOWN_CHARACTERS].replace("\n", "⏎").replace("\t", "⇥")
    return f"“{shown}{'…' if len(text) > _SHOWN_CHARACTERS else ''}”" if text else ""


def _columns(reading: Mapping[str, Any], lang: str) -> str:
    chosen = {
        name: f"{made['column']} ({reworded(lang, made['why'], 'why')})"
        for name, made in reading.get("columns", {}).items()
    }
    return by_file(chosen, lang)


def _splits(documents: Mapping[str, int], all_documents: int | None, lang: str) -> str:
    if not documents:
        return (
            say(lang, "input.no_splits") if all_documents is None else say(lang, "input.divided", count=all_documents)
        )
    splits = (say(lang, "input.split", split=split, count=count) for split, count in documents.items())
    return say(lang, "input.has_splits", splits=", ".join(splits))


def _amounts(stats: Mapping[str, Any], lang: str) -> str:
    made = {part: stats["splits"][part] for part in ("train", "validation", "test") if part in stats["splits"]}
    examples = ", ".join(say(lang, f"input.{part}", count=f"{of['examples']:,}") for part, of in made.items())
    *most, last = [of_part["documents"] for of_part in made.values()]
    if not most:
        return say(lang, "input.of_one_part", examples=examples, last=last)
    return say(lang, "input.of_documents", examples=examples, most=", ".join(f"{count:,}" for count in most), last=last)


def _left_out(stats: Mapping[str, Any], reading: Mapping[str, Any], lang: str) -> str:
    why = partial(reworded, lang, family="why")
    bad = [
        say(lang, "input.bad_rows", count=note["rows"], name=name, first=_first_rows(note, name))
        for name, note in reading.get("bad_rows", {}).items()
    ]
    counts = [
        f"{why(what.removesuffix(' left out'))}: {amount:,}" for what, amount in reading.get("counts", {}).items()
    ]
    files = [
        say(lang, "input.files", why=why(reason), count=amount)
        for reason, amount in reading.get("files_left_out", {}).items()
    ]
    dropped = [
        say(lang, f"input.{key}", count=f"{stats['dropped'][key]:,}")
        for key in ("inexact", "too_short")
        if stats["dropped"].get(key)
    ]
    duplicates = [
        f"{why(what.replace(' left out', '', 1))}: {amount:,}" for what, amount in stats.get("duplicates", {}).items()
    ]
    return "; ".join([*bad, *files, *counts, *duplicates, *dropped]) or say(lang, "input.nothing")


def _first_rows(note: Mapping[str, Any], name: str) -> str:
    first = [row.removeprefix(f"{name}, ") for row in note["first"]]
    return "; ".join([*first, *(["…"] if note["rows"] > len(first) else [])])


def _special_tokens(decided: Mapping[str, Any] | None, lang: str) -> str:
    if not decided or not decided.get("names"):
        return ""
    names = decided["names"]
    shown = ", ".join(f"{name} {amount:,}×" for name, amount in list(names.items())[:4])
    if len(names) > 4:
        shown = say(lang, "input.and_more_names", names=shown, count=len(names) - 4)
    return say(lang, "input.as_tokens" if decided["decided"] == "parse" else "input.as_text", names=shown)


def _normalised(changed: Mapping[str, Mapping[str, int]] | None, lang: str) -> str:
    return "; ".join(
        say(lang, f"input.{role}_changes", kind=kind, count=count)
        for role, kinds in (changed or {}).items()
        for kind, count in kinds.items()
    )


def _tokenizers(stats: Mapping[str, Any], lang: str) -> str:
    if stats.get("served"):
        return say(lang, "input.served")
    if stats["same_tokenizer"]:
        return say(lang, "input.same")
    alignment = stats.get("alignment")
    one = stats.get("conversations", {}).get("one_tokenizer")
    found = say(lang, "input.templates" if one else "input.different")
    return say(lang, "input.guided", found=found, **_guided(alignment)) if alignment else found

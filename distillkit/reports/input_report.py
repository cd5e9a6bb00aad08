"""What prepare-data read: ten lines for people, from what `data/stats.json` holds.

A wrong column, a test split that is trained on or a table read as prose shows here, before anything is trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Files of which each is named; more are counted.
_NAMED = 2
_SHOWN_CHARACTERS = 160


def input_report(stats: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The lines as (what, what was found); those that have nothing to tell are left out.

    Args:
        stats: the content of `data/stats.json`.
    """
    reading: Mapping[str, Any] = stats.get("reading", {})
    lines = [
        ("source", stats["source"]),
        ("read as", _by_file(reading.get("read_as", {}))),
        ("column", _by_file({name: f"{made['column']} ({made['why']})" for name, made in _columns(reading).items()})),
        ("splits", _splits(reading.get("splits", {}))),
        ("texts", _amounts(stats)),
        ("left out", _left_out(stats, reading)),
        ("special tokens", _special_tokens(stats.get("special_tokens"))),
        ("changed", _normalised(stats.get("normalised"))),
        ("tokenizers", _tokenizers(stats)),
        ("first text", first_text(stats)),
    ]
    return [(what, found) for what, found in lines if found]


def first_text(stats: Mapping[str, Any]) -> str:
    """The beginning of the first text that is trained on, with its white space made visible."""
    text = stats.get("first_text", "")
    shown = text[:_SHOWN_CHARACTERS].replace("\n", "⏎").replace("\t", "⇥")
    return f"“{shown}{'…' if len(text) > _SHOWN_CHARACTERS else ''}”" if text else ""


def _columns(reading: Mapping[str, Any]) -> Mapping[str, Mapping[str, str]]:
    return reading.get("columns", {})


def _by_file(found: Mapping[str, str]) -> str:
    """Once where it is the same of all files, else by file."""
    different = list(dict.fromkeys(found.values()))
    if len(different) <= 1:
        return different[0] if different else ""
    named = [f"{name}: {what}" for name, what in list(found.items())[:_NAMED]]
    return "; ".join(named) + (f"; {len(found) - _NAMED} more files" if len(found) > _NAMED else "")


def _splits(documents: Mapping[str, int]) -> str:
    if not documents:
        return "the source has none: its documents are divided"
    return "as in the source: " + ", ".join(f"{split} {count:,} documents" for split, count in documents.items())


def _amounts(stats: Mapping[str, Any]) -> str:
    parts = {"train": "to train on", "validation": "to choose by", "test": "to judge by"}
    amounts = [
        f"{made['examples']:,} {parts[part]} (of {made['documents']:,} documents)"
        for part in parts
        if (made := stats["splits"].get(part))
    ]
    return ", ".join(amounts)


def _left_out(stats: Mapping[str, Any], reading: Mapping[str, Any]) -> str:
    bad = [
        f"{note['rows']:,} bad rows of {name} ({'; '.join(note['first'])}{'; …' if note['rows'] > len(note['first']) else ''})"
        for name, note in reading.get("bad_rows", {}).items()
    ]
    counts = [f"{what.removesuffix(' left out')}: {amount:,}" for what, amount in reading.get("counts", {}).items()]
    dropped = [
        f"texts that {why}: {stats['dropped'][key]:,}"
        for key, why in (("inexact", "a tokenizer cannot spell"), ("too_short", "have fewer than two tokens"))
        if stats["dropped"].get(key)
    ]
    return "; ".join([*bad, *counts, *dropped]) or "nothing"


def _special_tokens(decided: Mapping[str, Any] | None) -> str:
    if not decided or not decided.get("names"):
        return ""
    names = decided["names"]
    first = ", ".join(f"{name} {amount:,}×" for name, amount in list(names.items())[:4])
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    how = "read as tokens" if decided["decided"] == "parse" else "read as ordinary text"
    return f"{how}: {first}{more}"


def _normalised(changed: Mapping[str, Mapping[str, int]] | None) -> str:
    return "; ".join(
        f"{kind}: {count:,} texts, as the {role}'s tokenizer does"
        for role, kinds in (changed or {}).items()
        for kind, count in kinds.items()
    )


def _tokenizers(stats: Mapping[str, Any]) -> str:
    if stats["same_tokenizer"]:
        return "the same"
    alignment = stats.get("alignment")
    if not alignment:
        return "different"
    return (
        f"different: the teacher guides {100 * alignment['positions_aligned']:.1f} % of the student's tokens "
        f"({100 * alignment['bytes_aligned']:.1f} % of the bytes)"
    )

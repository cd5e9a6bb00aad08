"""What prepare-data read: ten lines for people, from what `data/stats.json` holds.

A wrong column, a test split that is trained on or a table read as prose shows here, before anything is trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from distillkit.data.document_kinds import told_row
from distillkit.data.notes import by_file, told_format

# With the names of the lines, two lines of a terminal.
_SHOWN_CHARACTERS = 100


def input_report(stats: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The lines as (what, what was found); those that have nothing to tell are left out.

    Args:
        stats: the content of `data/stats.json`.
    """
    reading: Mapping[str, Any] = stats.get("reading", {})
    lines = [
        ("source", stats["source"]),
        ("mix", _mix(stats.get("mix") or [])),
        ("read as", by_file(reading.get("read_as", {}))),
        ("column", by_file({name: f"{made['column']} ({made['why']})" for name, made in _columns(reading).items()})),
        ("format", by_file({name: told_format(record) for name, record in reading.get("formats", {}).items()})),
        ("first row", told_row(reading.get("first_conversation", ()))),
        ("splits", _splits(reading.get("splits", {}), stats.get("source_documents"))),
        ("texts", _amounts(stats)),
        ("left out", _left_out(stats, reading)),
        ("special tokens", _special_tokens(stats.get("special_tokens"))),
        ("changed", _normalised(stats.get("normalised"))),
        ("tokenizers", _tokenizers(stats)),
        *_further_teachers(stats),
        # Of a conversation the first row says the same, as people read it.
        ("first text", "" if reading.get("first_conversation") else first_text(stats)),
    ]
    return [(what, found) for what, found in lines if found]


def _further_teachers(stats: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A line for each teacher besides the first, and what all of them guide together."""
    lines = [
        (f"teacher {number}", _further_teacher(told))
        for number, told in enumerate(stats.get("extra_teachers") or [], 2)
    ]
    if not lines:
        return []
    guided = stats["guided"]
    if guided["all"] == 1:
        return [*lines, ("teachers", "all of them guide every token of the student")]
    together = (
        f"of the student's tokens {100 * guided['any']:.1f} % are guided by one teacher at least, "
        f"{100 * guided['all']:.1f} % by all; where some say nothing, the weights of the others are normalised again"
    )
    return [*lines, ("teachers", together)]


def _further_teacher(told: Mapping[str, Any]) -> str:
    parts = [told["name"]]
    alignment = told.get("alignment")
    if alignment is None:
        parts.append("it reads the student's tokens")
    else:
        other = "other chat template" if (told.get("conversations") or {}).get("one_tokenizer") else "other tokenizer"
        parts.append(
            f"{other}: it guides {100 * alignment['positions_aligned']:.1f} % of the student's tokens "
            f"({100 * alignment['bytes_aligned']:.1f} % of the bytes)"
        )
    if unread := told["unread"]["train"]:
        parts.append(f"{unread:,} training texts it cannot read")
    if shortened := told["shortened"]:
        parts.append(f"of {shortened:,} only the beginning fits into its context")
    return "; ".join(parts)


def _mix(sources: Sequence[Mapping[str, Any]]) -> str:
    return "; ".join(
        f"{source['source']} ({100 * source['share']:.3g} %): "
        + ", ".join(f"{source['splits'][part]['examples']:,} {part}" for part in ("train", "validation", "test"))
        for source in sources
    )


def first_text(stats: Mapping[str, Any]) -> str:
    """The beginning of the first text that is trained on, with its white space made visible."""
    text = stats.get("first_text", "")
    shown = text[:_SHOWN_CHARACTERS].replace("\n", "⏎").replace("\t", "⇥")
    return f"“{shown}{'…' if len(text) > _SHOWN_CHARACTERS else ''}”" if text else ""


def _columns(reading: Mapping[str, Any]) -> Mapping[str, Mapping[str, str]]:
    return reading.get("columns", {})


def _splits(documents: Mapping[str, int], all_documents: int | None) -> str:
    if not documents:
        amount = "" if all_documents is None else f"{all_documents:,} "
        return f"the source has none: its {amount}documents are divided"
    return "as in the source: " + ", ".join(f"{split} {count:,} documents" for split, count in documents.items())


def _amounts(stats: Mapping[str, Any]) -> str:
    parts = {"train": "to train on", "validation": "to choose by", "test": "to judge by"}
    made = {part: stats["splits"][part] for part in parts if part in stats["splits"]}
    examples = ", ".join(f"{of_part['examples']:,} {parts[part]}" for part, of_part in made.items())
    *most, last = [f"{of_part['documents']:,}" for of_part in made.values()]
    return f"{examples}; from {', '.join(most)} and {last} documents" if most else f"{examples}; from {last} documents"


def _left_out(stats: Mapping[str, Any], reading: Mapping[str, Any]) -> str:
    bad = [
        f"{note['rows']:,} bad {'row' if note['rows'] == 1 else 'rows'} of {name} ({_first_rows(note, name)})"
        for name, note in reading.get("bad_rows", {}).items()
    ]
    counts = [f"{what.removesuffix(' left out')}: {amount:,}" for what, amount in reading.get("counts", {}).items()]
    files = [
        f"{why}: {amount:,} {'file' if amount == 1 else 'files'}"
        for why, amount in reading.get("files_left_out", {}).items()
    ]
    dropped = [
        f"texts that {why}: {stats['dropped'][key]:,}"
        for key, why in (("inexact", "a tokenizer cannot spell"), ("too_short", "have fewer than two tokens"))
        if stats["dropped"].get(key)
    ]
    duplicates = [
        f"{what.replace(' left out', '', 1)}: {amount:,}" for what, amount in stats.get("duplicates", {}).items()
    ]
    return "; ".join([*bad, *files, *counts, *duplicates, *dropped]) or "nothing"


def _first_rows(note: Mapping[str, Any], name: str) -> str:
    first = [row.removeprefix(f"{name}, ") for row in note["first"]]
    return "; ".join([*first, *(["…"] if note["rows"] > len(first) else [])])


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
    if stats.get("served"):
        return "the student's; the teacher is behind a server, which reads texts"
    if stats["same_tokenizer"]:
        return "the same"
    alignment = stats.get("alignment")
    one = stats.get("conversations", {}).get("one_tokenizer")
    found = "the same, but the chat templates differ" if one else "different"
    if not alignment:
        return found
    return (
        f"{found}: the teacher guides {100 * alignment['positions_aligned']:.1f} % of the student's tokens "
        f"({100 * alignment['bytes_aligned']:.1f} % of the bytes)"
    )

"""The words of report.html: both languages have the same keys and places, and the page uses all of them and no others."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from string import Formatter

import pytest

import distillkit.reports.html
from distillkit.reports.html.words import LANGUAGES, words
from distillkit.stages import STAGES

ROOT = Path(distillkit.reports.html.__file__).parent


def places(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


def test_the_languages_have_the_same_keys_and_places() -> None:
    english, russian = (words(lang) for lang in LANGUAGES)
    assert list(english) == list(russian)
    for key, text in english.items():
        assert places(text) == places(russian[key]), key


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_text_is_finished(lang: str) -> None:
    for key, text in words(lang).items():
        assert text.strip() or key in ("percent", "list.separator"), key
        assert "TODO" not in text
        if lang == "ru" and re.search("[A-Za-zА-Яа-я]{4}", re.sub(r"\{\w+\}", "", text)):
            assert re.search("[А-Яа-я]", text) or key in ("source.argument", "reproduce.config"), key


def asked_for() -> tuple[set[str], list[re.Pattern[str]]]:
    """The keys that the sources name, and patterns of those that they put together."""
    named: set[str] = set()
    made: list[re.Pattern[str]] = []
    for path in ROOT.rglob("*.py"):
        if path.parent.name == "words":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                named.add(node.value)
            if isinstance(node, ast.JoinedStr):
                parts = [re.escape(str(part.value)) if isinstance(part, ast.Constant) else ".+" for part in node.values]
                if len(parts) > 1 and parts[0] != ".+" and re.match(r"[a-z]+\\?\.", parts[0]):
                    made.append(re.compile("".join(parts)))
    return named, made


def test_no_words_are_left_over() -> None:
    named, made = asked_for()
    for key in words("en"):
        assert key in named or any(pattern.fullmatch(key) for pattern in made), f"nothing uses {key}"


def test_every_stage_has_a_name() -> None:
    for stage in STAGES:
        assert f"stage.{stage}" in words("en"), stage

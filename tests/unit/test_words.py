"""The words of results and plans: both languages have the same, nothing is left over, every reason of a plan is known."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from string import Formatter

import pytest

import distillkit
from distillkit.words import LANGUAGES, locale_language, reworded, say, words

ROOT = Path(distillkit.__file__).parent
# What decides something that a plan tells, with the reason as its second argument.
CHOICES = {"StreamingChoice", "CacheChoice", "CompileChoice", "ControlChoice"}
# A flag is its own reason.
FLAG = re.compile(r"--[\w-]+")


def places(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


def trees() -> Iterator[ast.AST]:
    for path in ROOT.rglob("*.py"):
        if path.parent.name != "words":
            yield from ast.walk(ast.parse(path.read_text(encoding="utf-8")))


def test_the_languages_have_the_same_keys_and_places() -> None:
    english, russian = (words(lang) for lang in LANGUAGES)
    assert list(english) == list(russian)
    for key, text in english.items():
        assert places(text) == places(russian[key]) or key == "early.one", key


def test_every_text_is_in_its_language() -> None:
    for key, text in words("ru").items():
        rest = re.sub(r"\{\w+\}|--?[\w-]+|\(distillkit tune\)", "", text)
        if re.search(r"[A-Za-z]{3}", re.sub(r"\{\w+\}", "", words("en")[key])):
            assert re.search("[а-яё]", rest), key
    assert not any(re.search("[а-яё]", text) for text in words("en").values())


def test_no_words_are_left_over() -> None:
    named: set[str] = set()
    made: list[re.Pattern[str]] = []
    for node in trees():
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            named |= {node.value, f"plan.{node.value}"}
        if isinstance(node, ast.JoinedStr):
            parts = [re.escape(str(part.value)) if isinstance(part, ast.Constant) else ".+" for part in node.values]
            made.append(re.compile("".join(parts)))
    made = [pattern for pattern in made if re.match(r"[a-z]+(_[a-z]+)*\\\.", pattern.pattern)]
    for key in words("en"):
        used = (
            key in named
            or key.startswith(("said.", "why.", "from."))
            or any(pattern.fullmatch(key) for pattern in made)
        )
        # Of a decision: what it is about, and what it came to.
        decided = key.rpartition(".")[0] in named and key.rpartition(".")[2] in ("exact", "sparse", "on", "off")
        assert used or decided or key in ("plan.on", "plan.off"), f"nothing uses {key}"


def sample(node: ast.expr) -> str | None:
    """The text that an expression gives, with a word wherever something is put in; None where it has no text of its own."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr) and any(isinstance(part, ast.Constant) for part in node.values):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "7" for part in node.values)
    return None


def test_every_reason_of_a_plan_is_said_in_russian() -> None:
    reasons = {
        text
        for node in trees()
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CHOICES
        if len(node.args) > 1 and (text := sample(node.args[1])) is not None
    }
    assert len(reasons) > 12
    # What begins with something put in is made of two texts, and tried as a whole in the tests of the plan.
    for text in reasons - {text for text in reasons if text.startswith("7,") or FLAG.fullmatch(text)}:
        if text != "not decided yet" and "the cache is complete" not in text and "all trials" not in text:
            assert re.search("[а-яё]", reworded("ru", text)), text
    assert reworded("en", "run") == "run"


@pytest.mark.parametrize(
    ("english", "russian"),
    [
        ("skip, not made: alpha is 0: the training without the teacher is the run itself", "пропуск, не делается: alpha равно 0"),
        ("2.8 GB for 1,000 tokens, read in every epoch", "2.8 GB на 1,000 токенов, читается в каждой эпохе"),
        ("it takes about 1:00 of 3:00, less than half of the whole run", "займёт около 1:00 из 3:00, меньше половины запуска"),
        ("about 3 GB; of an exact one, its cache takes 9 GB, 1 GB are free in /a b", "около 3 GB; о точном: его кэш занимает 9 GB"),
        ("continue, it was cut off", "продолжится, было прервано"),
        ("run again, changed: temperature", "выполнится заново, изменилось: temperature"),
        ("nobody has said this", "nobody has said this"),
    ],
)  # fmt: skip
def test_a_sentence_of_another_module_is_found_again(english: str, russian: str) -> None:
    assert reworded("ru", english).startswith(russian)


@pytest.mark.parametrize(
    ("family", "english", "russian"),
    [
        ("from", "preset weak-pc", "пресет weak-pc"),
        ("from", "derived (dataset_path was given)", "выведено (задано dataset_path)"),
        ("from", "not used, mix wins", "не используется, важнее mix"),
        ("why", "called as texts are", "назван так, как называют тексты"),
        ("why", "called run", "назван run"),
        ("why", "answers at http://a, 2 models", "отвечает по адресу http://a, моделей: 2"),
        ("why", "flag", "flag"),
    ],
)
def test_a_reason_is_found_again_in_its_family(family: str, english: str, russian: str) -> None:
    assert reworded("ru", english, family) == russian
    assert reworded("en", english, family) == english


def test_a_number_has_the_form_of_its_noun() -> None:
    assert [say("en", "input.split", split="train", count=count) for count in (0, 1, 2, 1200)] == [
        "train 0 documents", "train 1 document", "train 2 documents", "train 1,200 documents",
    ]  # fmt: skip
    forms = {0: "документов", 1: "документ", 2: "документа", 4: "документа", 5: "документов", 11: "документов",
             12: "документов", 14: "документов", 20: "документов", 21: "документ", 22: "документа", 111: "документов",
             101: "документ"}  # fmt: skip
    for count, noun in forms.items():
        assert say("ru", "input.split", split="a", count=count) == f"a — {count} {noun}"


@pytest.mark.parametrize(
    ("environment", "lang"),
    [
        ({}, "en"),
        ({"LANG": "ru_RU.UTF-8"}, "ru"),
        ({"LANG": "C.UTF-8"}, "en"),
        ({"LANG": "ru_RU.UTF-8", "LC_MESSAGES": "en_GB.UTF-8"}, "en"),
        ({"LANG": "en_US", "LC_MESSAGES": "ru"}, "ru"),
        ({"LANG": "en_US", "LC_MESSAGES": "en", "LC_ALL": "ru_UA@x"}, "ru"),
        ({"LANG": "ru_RU", "LC_ALL": "C"}, "en"),
        ({"LANG": "ru_RU", "LC_ALL": ""}, "ru"),
        ({"LANG": "rusyn"}, "en"),
    ],
)
def test_the_locale_names_the_language(environment: dict[str, str], lang: str) -> None:
    assert locale_language(environment) == lang


def test_words_that_are_not_there() -> None:
    with pytest.raises(KeyError):
        words("de")
    with pytest.raises(KeyError):
        say("ru", "no.such.words")

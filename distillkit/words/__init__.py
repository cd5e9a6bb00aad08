"""What the terminal says of the start of a run, results, plans and samples, in English and in Russian; which of the two is spoken.

The words of report.html are `reports.html.words`, those of the parameters `settings.help_texts`. What is recorded in a run, and
what `--json` prints, is English in any language.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping

LANGUAGES = ("en", "ru")
LANGUAGE_VARIABLE = "DISTILLKIT_LANG"
# As setlocale(3) looks for the language of messages: the first that is set decides.
_LOCALE_VARIABLES = ("LC_ALL", "LC_MESSAGES", "LANG")


def words(lang: str) -> Mapping[str, str]:
    """Key to words; `lang` is one of `LANGUAGES`, KeyError for another."""
    if lang == "en":
        from distillkit.words.en import WORDS
    elif lang == "ru":
        from distillkit.words.ru import WORDS
    else:
        raise KeyError(lang)
    return WORDS


def say(lang: str, key: str, **parts: object) -> str:
    """The words of a key, with the parts put in.

    `{count:text|texts}` in the words is a whole number with its noun, `1 text` or `1,200 texts`; Russian has three forms,
    `{count:текст|текста|текстов}`.

    Raises:
        KeyError: there are no such words, or a part is missing.
    """
    counted = {name: _Count(value) if type(value) is int else value for name, value in parts.items()}
    return words(lang)[key].format(**counted)


class _Count(int):
    """A whole number that knows its noun in a text of words: two forms are English, three Russian."""

    def __format__(self, form: str) -> str:
        if "|" not in form:
            return int.__format__(self, form)
        nouns = form.split("|")
        return f"{int(self):,} {nouns[(self != 1) if len(nouns) == 2 else _russian_form(abs(self))]}"


def _russian_form(count: int) -> int:
    """Which form follows a number: 0 as 1, 21 and 101, 1 as 2 to 4 and 22, else 2 (5, 11 to 14, 20)."""
    if count % 100 in range(11, 15):
        return 2
    return 0 if count % 10 == 1 else 1 if count % 10 in (2, 3, 4) else 2


def asked_language(environment: Mapping[str, str]) -> str | None:
    """The language that DISTILLKIT_LANG asks for; None where it asks for none of `LANGUAGES`."""
    asked = environment.get(LANGUAGE_VARIABLE)
    return asked if asked in LANGUAGES else None


def locale_language(environment: Mapping[str, str]) -> str:
    """The language of LC_ALL, LC_MESSAGES or LANG if it is one of `LANGUAGES`, else English."""
    value = next((value for name in _LOCALE_VARIABLES if (value := environment.get(name))), "")
    found = re.split(r"[_.@]", value, maxsplit=1)[0].lower()
    return found if found in LANGUAGES else LANGUAGES[0]


def reworded(lang: str, text: str, family: str = "said") -> str:
    """What another module says in English, in another language; else as it is.

    The reason for a decision is recorded in the run and in the object of --json as one English sentence: here it is found
    again. In a plan, what stands within it is said in the language too.

    Args:
        family: the first word of the keys that it may have: "said" in a plan, "why" of what was read or looked for, "from" of
            where a parameter is from.
    """
    if lang == "en":
        return text
    for key, pattern in _patterns(family):
        found = pattern.fullmatch(text)
        if found is not None:
            parts = found.groupdict()
            nested = {name: reworded(lang, part) for name, part in parts.items()} if family == "said" else parts
            return say(lang, key, **nested)
    return text


@functools.cache
def _patterns(family: str) -> list[tuple[str, re.Pattern[str]]]:
    """The sentences of other modules as patterns, the longest first: what says more is looked for before what says less."""
    said = sorted(
        ((key, text) for key, text in words("en").items() if key.startswith(f"{family}.")),
        key=lambda one: -len(re.sub(r"\{\w+\}", "", one[1])),
    )
    return [
        (key, re.compile(re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>.+)", re.escape(text)), re.DOTALL)) for key, text in said
    ]

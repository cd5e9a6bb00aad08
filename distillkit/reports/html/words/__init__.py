"""The words of the page by key, in English and Russian; `{name}` stands for a figure or a name.

Both languages have the same keys with the same places: `tests/unit/reports/test_html_words.py`.
"""

from __future__ import annotations

from collections.abc import Mapping

LANGUAGES = ("en", "ru")


def words(lang: str) -> Mapping[str, str]:
    """Key to words; `lang` is one of `LANGUAGES`, KeyError for another."""
    if lang == "en":
        from distillkit.reports.html.words.en import WORDS
    elif lang == "ru":
        from distillkit.reports.html.words.ru import WORDS
    else:
        raise KeyError(lang)
    return WORDS

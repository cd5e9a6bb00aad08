"""The texts that explain each parameter, in English and Russian.

Loaded for every `--help`: nothing here imports more than dataclasses, and a language is loaded when it is asked for.
Types, defaults, ranges and choices are not written here; they come from the declaration in `parameters.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

LANGUAGES = ("en", "ru")


@dataclass(frozen=True)
class HelpText:
    """What a person should know of a parameter. `code` stands in backticks.

    Attributes:
        what: what it is, as one short phrase without a full stop; the help line of its option.
        effect: how it changes the result.
        choose: how to choose it.
        example: a command line, or lines of a configuration file, that can be pasted as they are.
    """

    what: str
    effect: str
    choose: str
    example: str


def help_texts(lang: str = "en") -> Mapping[str, HelpText]:
    """Parameter name to its texts; `lang` is one of `LANGUAGES`, KeyError for another."""
    if lang == "en":
        from distillkit.settings.help_texts.en import TEXTS
    elif lang == "ru":
        from distillkit.settings.help_texts.ru import TEXTS
    else:
        raise KeyError(lang)
    return TEXTS


def help_text(name: str, lang: str = "en") -> HelpText:
    """The texts of one parameter; KeyError for an unknown name or language."""
    return help_texts(lang)[name]


def group_title(heading: str, lang: str = "en") -> str:
    """The words of a group or of a topic of parameters; KeyError for another one or an unknown
    language."""
    if lang == "en":
        from distillkit.settings.help_texts.en import GROUP_TITLES, TOPIC_TITLES
    elif lang == "ru":
        from distillkit.settings.help_texts.ru import GROUP_TITLES, TOPIC_TITLES
    else:
        raise KeyError(lang)
    return TOPIC_TITLES[heading] if heading in TOPIC_TITLES else GROUP_TITLES[heading]

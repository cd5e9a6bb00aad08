"""Answers that only say that there will be none: known by how they begin, in English and Russian."""

from __future__ import annotations

import re

# The first words, in small letters, ’ as ', ё as е. Whole words: "as an aide" is none.
OPENINGS = (
    "i'm sorry, but", "i am sorry, but", "i'm so sorry, but", "i'm very sorry, but", "i'm afraid i can't", "i'm afraid i cannot",
    "sorry, but i", "sorry, i can't", "sorry, i cannot", "i'm sorry, i can't", "i'm sorry, i cannot", "i am sorry, i cannot",
    "i'm sorry. i can't", "i'm sorry. i cannot",
    "i apologize, but", "i apologise, but", "my apologies, but", "unfortunately, i can't", "unfortunately, i cannot",
    "unfortunately, i am unable", "unfortunately, i'm unable", "unfortunately, i'm not able",
    "i can't help", "i cannot help", "i can't assist", "i cannot assist", "i can't answer", "i cannot answer",
    "i can't provide", "i cannot provide", "i can't comply", "i cannot comply", "i can't fulfill", "i cannot fulfill",
    "i can't create", "i cannot create", "i can't generate", "i cannot generate", "i can't discuss", "i cannot discuss",
    "i can't do that", "i cannot do that", "i won't be able to", "i will not be able to",
    "i'm unable to", "i am unable to", "i'm not able to", "i am not able to", "i must decline", "i have to decline",
    "i must refuse", "i have to refuse", "it is not appropriate for me", "it's not appropriate for me",
    "as an ai", "as an artificial intelligence", "as a language model", "as a large language model", "i'm just an ai",
    "i am just an ai", "i'm only an ai",
    "извините, но", "извините, я не могу", "простите, но", "простите, я не могу", "прошу прощения, но", "сожалею, но",
    "к сожалению, я не могу", "к сожалению, я не в состоянии", "к сожалению, не могу", "мне жаль, но", "мне очень жаль, но",
    "я не могу помочь", "я не могу ответить", "я не могу предоставить", "я не могу выполнить", "я не могу обсуждать",
    "я не могу создать", "я не могу написать", "я не могу дать", "я не могу этого", "я не могу это",
    "не могу помочь", "не могу ответить", "не могу выполнить", "я не в состоянии", "я вынужден отказать", "я вынуждена отказать",
    "я должен отказать", "я должна отказать", "как ии", "как искусственный интеллект", "как языковая модель",
    "как большая языковая модель", "я — языковая модель", "я - языковая модель", "я языковая модель",
)  # fmt: skip

_OPENING = re.compile("|".join(rf"{re.escape(opening)}\b" for opening in OPENINGS))
_BEFORE_THE_FIRST_WORD = re.compile(r"^[\W_]+")


def is_refusal(answer: str) -> bool:
    """Whether an answer begins as refusals do."""
    text = " ".join(answer[:200].casefold().replace("’", "'").replace("ё", "е").split())
    return _OPENING.match(_BEFORE_THE_FIRST_WORD.sub("", text)) is not None

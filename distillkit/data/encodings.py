"""Which encoding bytes that are no UTF-8 may be in: a guess to be shown with what it reads, never one to be read by.

An encoding is likely if it decodes the bytes and what comes out is common in one of the languages that use it: its letters,
the frequent ones more than the rare ones, no capital after a small letter, no letter of one script in a word of another, no
letter for the end of a word inside one; of Chinese, Japanese and Korean, the commonest characters and those of the first
levels of their standards.
"""

from __future__ import annotations

import codecs
import functools
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

_SAMPLE_BYTES = 32 << 10
_CONTEXT = 14  # Characters on either side of the place that are shown.
_LEAST_SCORE = 0.4
# What a character is worth: the commonest of Chinese, Japanese and Korean; others that are not rare.
_COMMON, _LEVEL_1, _RARE_SYLLABLE = 1.1, 0.7, 0.45
# What a letter is worth, from the third of the most frequent ones of its language to the rare ones; and one of another language.
_BY_FREQUENCY, _RARE, _FOREIGN = (1.0, 0.75, 0.4), 0.2, -0.3
_CLOSE = 0.12


class Guess(NamedTuple):
    """An encoding, by a name that Python knows, and what the bytes around the place are in it."""

    encoding: str
    reading: str


class _Alphabet(NamedTuple):
    """The letters beyond ASCII of the languages of an encoding.

    Attributes:
        languages: of each language its small letters; where `is_ranked`, the most frequent ones first.
        rare: what is met seldom in all of them.
        script_mixes: whether ASCII letters stand in the same words.
        is_ranked: whether how frequent the letters are tells languages apart.
    """

    languages: tuple[str, ...]
    rare: str = ""
    script_mixes: bool = False
    is_ranked: bool = True


_LATIN_MARKS = "“”‘’–—…«»€£§°·¡¿©®™„‚•\u00a0²³½"
_WESTERN = _Alphabet(
    # French, German, Spanish, Portuguese, Italian, those of the North, Icelandic, Dutch, Catalan, Estonian.
    (
        "éèàçêôîûùâëïœ",
        "äöüß",
        "áéíóúñüªº",
        "ãçáéóíõêâúàôªº",
        "àèìòùé",
        "åäöøæé",
        "áðéíóúþæö",
        "ëéïóüè",
        "àçèéíïòóúü",
        "äöõü",
    ),
    "ÿý",
    script_mixes=True,
    is_ranked=False,
)
_CENTRAL = _Alphabet(
    # Polish, Czech, Slovak, Hungarian, Romanian, Croatian and Slovene, German.
    ("ąęłóśżćńź", "áíéěšřčžýůúťďňó", "áíéšľčťžýúäňôďĺŕó", "áéíóöőüúű", "ăâîșşțţ", "čšžćđ", "äöüß"),
    script_mixes=True,
    is_ranked=False,
)
_RUSSIAN = _Alphabet(
    # Russian, Ukrainian, Bulgarian, Serbian.
    (
        "оеаинтсрвлкмдпуяыьгзбчйхжшюцщэфъё", "оанивертслкдпмуязьбгйчхіїжцшєюфщґ",
        "аоиетнрсвлпкдмяъгзучбжцщшйхфюь", "аиоенрстувдкмпјлгзбчшжцњхљћђфџ",
    ),
)  # fmt: skip
_THAI_CONSONANTS = "".join(map(chr, range(0xE01, 0xE2F)))
_THAI_MARKS = "\u0e31\u0e34\u0e35\u0e36\u0e37\u0e38\u0e39\u0e3a" + "".join(map(chr, range(0xE47, 0xE4F)))
_ALPHABETS: dict[str, _Alphabet] = {
    "cp1252": _WESTERN,
    "mac_roman": _WESTERN,
    "cp850": _WESTERN,
    "cp1250": _CENTRAL,
    "iso8859_2": _CENTRAL,
    "cp1254": _Alphabet(("ığşçöüİâîû",), script_mixes=True, is_ranked=False),
    "cp1251": _RUSSIAN,
    "koi8-r": _RUSSIAN,
    "cp866": _RUSSIAN,
    "iso8859_5": _RUSSIAN,
    "cp1253": _Alphabet(("αοιετνσηρπκμλςυόίάγέήώδχθφβξύζψω",), "ϊϋΐΰ"),
    "cp1255": _Alphabet(("יוהלאמרבתנשעדחפקטםןסגכזצץףך",), "ְֱֲֳִֵֶַָֹֻּׁׂ"),
    "cp1256": _Alphabet(("اليمنوترهبدعسفكقحجةشصطىأخضزثذغئءإؤظآ", "اينرمدهوتبسشکگزخلقفجحپصعطغچآثظضذژئءأ"), "،؟؛ًٌٍَُِّْ"),
    "cp874": _Alphabet(
        ("\u0e19\u0e23\u0e32\u0e2d\u0e01\u0e40\u0e07\u0e21\u0e22\u0e25\u0e27\u0e14\u0e17\u0e2a\u0e48\u0e49\u0e31\u0e35"
         "\u0e34\u0e15\u0e30\u0e1b\u0e1a\u0e04\u0e2b\u0e41\u0e08\u0e1e\u0e0a\u0e02\u0e43\u0e44\u0e42\u0e37\u0e38\u0e39\u0e47"
         "\u0e4c\u0e33\u0e16\u0e1c\u0e0b\u0e18\u0e28\u0e20\u0e13\u0e36",),
        "ฃฅฆฉฌญฎฏฐฑฒฝฟฤฦษฬฮฯๆ๏๐๑๒๓๔๕๖๗๘๙",
    ),
}  # fmt: skip
# Stand at the end of a word only.
_FINAL_LETTERS = "ςםןףץךةى"
_ACCENTED_GREEK = "άέήίόύώΐΰ"
_LETTERS_WITHOUT_ACCENT = 12  # Among so many small letters of Greek one has an accent.
_IN_CAPITALS = 0.1
# The commonest characters: half of a Chinese text, more of a Korean one.
_COMMON_HAN = frozenset(
    "的一是不了在人有我他这为之大来以个中上们到说国和地也子时道出而要于就下得可你年生自会那后能对着事其里所去行过家十用发天如然作方成者多日都"
    "三小军二无同么经法当起与好看学进种将还分此心前面又定见只主没公从文品快很太非常推荐给北京商東西台市本書語話新年月東京都区日今気物買思見食"
    "這為來個們到說國時後對著裡過發樣經當與學進種將還從沒見會麼產質很最高點開關電問題長門車馬"
)
_COMMON_HANGUL = frozenset(
    "이다는에의을가고하를은로지한도사서기리아나어대자그정시인수으라해있일전게니만제보상주부면성구여조음요원우었장들과위거무마소것문안스동오공국"
    "세적신생용내당회비습화선치경계개했관간실미분와연모통방산행중각말반물체히심남더경식입저유않많없때저좋매추천품날씨책서울았겠됩습까합"
)


def _gb18030(character: str) -> float:
    code = _code(character, "gb2312")
    if code is None:
        return -1.0
    if code[0] < 0xB0:
        return 1.0 if code[0] in (0xA1, 0xA3) and (_is_wide_mark(character) or character in _LATIN_MARKS) else -0.5
    return _COMMON if character in _COMMON_HAN else _LEVEL_1 if code[0] <= 0xD7 else 0.0


def _big5(character: str) -> float:
    code = _code(character, "big5")
    if code is None:
        return -1.0
    if code[0] < 0xA4:
        return 1.0 if _is_wide_mark(character) or character in _LATIN_MARKS else -0.5
    return _COMMON if character in _COMMON_HAN else _LEVEL_1 if code[0] <= 0xC6 else 0.0


def _korean(character: str) -> float:
    if character in _COMMON_HANGUL:
        return _COMMON
    if "ㄱ" <= character <= "ㅣ" or _is_wide_mark(character):
        return 1.0
    # Syllables beyond the standard's are spelt out, in eight bytes.
    is_usual = "가" <= character <= "힣" and len(_code(character, "euc-kr") or b"") == 2
    return _RARE_SYLLABLE if is_usual else -1.0


def _japanese(character: str) -> float:
    if "ぁ" <= character <= "ー" or _is_wide_mark(character):
        return 1.0
    code = _code(character, "euc-jp")
    if code is None or len(code) != 2 or not 0xB0 <= code[0] <= 0xCF:
        return -1.0
    return _COMMON if character in _COMMON_HAN else _LEVEL_1


def _any_script(character: str) -> float:
    """For UTF-16 and UTF-32: ASCII, or what is common in any of the scripts."""
    if character.isascii():
        return 1.0 if character.isprintable() or character in "\t\r\n" else -1.0
    if character in _LATIN_MARKS or any(character in _letters_of(alphabet) for alphabet in _ALPHABETS.values()):
        return 1.0
    return max(of_character(character) for of_character in _CJK.values()) if ord(character) > 0x2FFF else 0.0


def _is_wide_mark(character: str) -> bool:
    return "\u3000" <= character <= "\u303f" or "\uff00" <= character <= "\uff60"


def _code(character: str, encoding: str) -> bytes | None:
    try:
        return character.encode(encoding)
    except UnicodeEncodeError:
        return None


_CJK: dict[str, Callable[[str], float]] = {
    "gb18030": _gb18030, "big5": _big5, "euc-kr": _korean, "shift_jis": _japanese, "euc-jp": _japanese,
}  # fmt: skip
# How much likelier an encoding is than its letters tell: some are seldom met, and some decode nearly everything.
_PRIORS = {
    "cp1252": 0.05,
    "cp1254": -0.05,
    "cp1250": -0.05,
    "iso8859_2": -0.1,
    "mac_roman": -0.15,
    "cp850": -0.15,
    "cp874": -0.15,
}
_KANA_PRIOR = 0.15  # Where a third of the characters are kana: no other script has them.
# What is decoded where the plain name has too few characters: the supersets that Windows writes.
_SUPERSETS = {"big5": "cp950", "euc-kr": "cp949", "shift_jis": "cp932"}


def guess_encodings(data: bytes, at: int, *, without: str | None = None) -> list[Guess]:
    """The encodings that `data` is likely to be in, the likeliest first; at most two, and one where it is clear.

    Args:
        data: a part of a file that begins at the start of the file or of a line.
        at: the byte of it that could not be decoded.
        without: an encoding that was tried already.
    """
    start = _line_start(data, at)
    sample = data[start : start + _SAMPLE_BYTES]
    tried = None if without is None else codecs.lookup(without).name
    ranked: list[tuple[float, Guess]] = []
    for encoding in ("utf-8", *_wide_encodings(data), *_CJK, *_ALPHABETS):
        decoder_name = _SUPERSETS.get(encoding, encoding)
        if tried in (codecs.lookup(encoding).name, codecs.lookup(decoder_name).name):
            continue
        part, place = (data[: len(data) // 4 * 4], at) if encoding[:6] in ("utf-16", "utf-32") else (sample, at - start)
        try:
            text = codecs.getincrementaldecoder(decoder_name)().decode(part)
        except UnicodeDecodeError:
            continue
        score = -1.0 if "\0" in text else _score(text, encoding)
        if score >= _LEAST_SCORE:
            ranked.append((score, Guess(decoder_name, _reading(part, place, decoder_name))))
    ranked.sort(key=lambda pair: -pair[0])
    return [
        guess
        for number, (score, guess) in enumerate(ranked[:2])
        if number == 0 or (score > ranked[0][0] - _CLOSE and guess.reading != ranked[0][1].reading)
    ]


def guess_words(
    data: bytes, at: int, *, without: str | None = None, unknown: str = "name the file's encoding with --encoding"
) -> str:
    """`guess_encodings` as a hint: `--encoding cp1252 (reads "café")`; `unknown` where none is likely."""
    guesses = guess_encodings(data, at, without=without)
    if not guesses:
        return unknown
    return "look whether it is " + " or ".join(
        f'--encoding {guess.encoding} (reads "{guess.reading}")' for guess in guesses
    )


def is_utf8(data: bytes) -> bool:
    """Whether `data`, which may be cut off at its end, is UTF-8."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data)
    except UnicodeDecodeError:
        return False
    return True


def broken_utf8_share(data: bytes) -> float:
    """Which part of what is not ASCII in `data` is no UTF-8: near 0 in a UTF-8 file with a few damaged bytes."""
    text = data.decode("utf-8", "surrogateescape")
    odd = [character for character in text if not character.isascii()]
    return sum("\udc80" <= character <= "\udcff" for character in odd) / len(odd) if odd else 0.0


def little_endian(data: bytes) -> bool:
    """Whether UTF-16 without a byte-order mark has its low bytes first, by where spaces, line ends and ASCII put zeros."""
    return data[1::2].count(0) >= data[0::2].count(0)


def _wide_encodings(data: bytes) -> tuple[str, ...]:
    """UTF-16 and UTF-32 in their two orders of bytes, as the zero bytes tell; none in text of other encodings."""
    zeros = data.count(0)
    if not zeros:
        return ()
    if zeros > len(data) * 0.6:
        return ("utf-32-le",) if data[3::4].count(0) >= data[0::4].count(0) else ("utf-32-be",)
    return ("utf-16-le",) if little_endian(data) else ("utf-16-be",)


def _line_start(data: bytes, at: int) -> int:
    """Where a part that holds the place may begin without cutting a character: after a line end, or a space in long lines."""
    line = data.rfind(b"\n", 0, at) + 1
    if at - line <= _SAMPLE_BYTES // 2:
        return line
    return data.rfind(b" ", 0, at - _CONTEXT) + 1


def _reading(data: bytes, at: int, encoding: str) -> str:
    before = codecs.getincrementaldecoder(encoding)("ignore").decode(data[:at])
    text = codecs.getincrementaldecoder(encoding)("ignore").decode(data)
    centre = min(len(before), len(text))
    left = text[max(0, centre - _CONTEXT) : centre].rpartition("\n")[2]
    right = text[centre : centre + _CONTEXT].partition("\n")[0]
    shown = "".join(c if c.isprintable() else " " for c in left + right)
    return " ".join(shown.replace('"', "'").split())


def _score(text: str, encoding: str) -> float:
    """From -1 to about 1: how common the characters are that are not ASCII."""
    if encoding == "utf-8":
        return 1.2 if not text.isascii() else -1.0
    if encoding[:6] in ("utf-16", "utf-32"):
        return sum(map(_any_script, text)) / len(text) if text else -1.0
    of_character = _CJK.get(encoding)
    if of_character is not None:
        padded = f" {text} "
        scores = [
            # Between Latin letters it is rather one of them.
            -0.5 if _is_latin(before) and _is_latin(after) else of_character(character)
            for before, character, after in zip(padded, padded[1:], padded[2:], strict=False)
            if not character.isascii()
        ]
        kana = sum("ぁ" <= character <= "ヿ" for character in text) > len(scores) / 3 and of_character is _japanese
        return sum(scores) / len(scores) + _KANA_PRIOR * kana if scores else -1.0
    alphabet = _ALPHABETS[encoding]
    # Letters are the same for all languages but in worth: they are counted once.
    fine: Counter[str] = Counter()
    total, count = 0.0, 0
    padded = f" {text} "
    for before, character, after in zip(padded, padded[1:], padded[2:], strict=False):
        if character.isascii():
            continue
        count += 1
        fixed = _score_in_place(before, character, after, alphabet)
        if fixed is None:
            # A capital in a word of capitals: Hebrew looks so where it is read as Russian.
            total -= _IN_CAPITALS * (character.isupper() and before.isupper() and not before.isascii())
            lower = character.lower()
            fine[lower if len(lower) == 1 else character] += 1
        else:
            total += fixed
    if not count:
        return -1.0
    best = max(
        sum(amount * _worth(letter, language, alphabet) for letter, amount in fine.items())
        for language in alphabet.languages
    )
    if encoding == "cp1253" and not any(letter in fine for letter in _ACCENTED_GREEK):
        small = sum(character.islower() and not character.isascii() for character in text)
        best -= 0.5 * count * (small >= _LETTERS_WITHOUT_ACCENT)
    return (total + best) / count + _PRIORS.get(encoding, 0.0)


def _is_latin(character: str) -> bool:
    return character.isascii() and character.isalpha()


def _score_in_place(before: str, character: str, after: str, alphabet: _Alphabet) -> float | None:
    """What a character is worth for what stands beside it; None where only how common it is tells."""
    if character in _LATIN_MARKS:
        # Typographic marks are common, but not in the middle of a word, where other encodings have letters.
        return -0.5 if before.isalpha() and after.isalpha() and character not in "’·" else 0.9
    if character not in _letters_of(alphabet) or (character.isupper() and before.islower()):
        return -1.0
    if character in _FINAL_LETTERS and after.isalpha():
        return -1.0
    if character in _THAI_MARKS and before not in _THAI_CONSONANTS and before not in _THAI_MARKS:
        return -1.0
    neighbours = [other for other in (before, after) if other.isalpha()]
    if alphabet.script_mixes:
        return 0.0 if len(neighbours) == 2 and not any(other.isascii() for other in neighbours) else None
    return -0.5 if any(other.isascii() for other in neighbours) else None


def _worth(letter: str, language: str, alphabet: _Alphabet) -> float:
    """What a letter is worth in a language."""
    place = language.find(letter)
    if place < 0:
        return _RARE if letter in alphabet.rare else _FOREIGN
    return _BY_FREQUENCY[3 * place // len(language)] if alphabet.is_ranked else 1.0


@functools.cache
def _letters_of(alphabet: _Alphabet) -> frozenset[str]:
    """All of them, also as capitals."""
    every = "".join(alphabet.languages) + alphabet.rare
    return frozenset(every + every.upper())

"""Which encoding bytes that are no UTF-8 may be in: a guess to be shown with what it reads, never one to be read by.

An encoding is likely if it decodes the bytes and what comes out is common in the languages that use it: common letters,
no capital after a small letter, no letter of one script in a word of another; of Chinese, Japanese and Korean, the
characters of the first levels of their standards.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable
from typing import NamedTuple

_SAMPLE_BYTES = 64 << 10
_CONTEXT = 14  # Characters on either side of the place that are shown.
_LEAST_SCORE = 0.4
_CLOSE = 0.12


class Guess(NamedTuple):
    """An encoding, by a name that Python knows, and what the bytes around the place are in it."""

    encoding: str
    reading: str


class _Alphabet(NamedTuple):
    common: str
    rare: str
    script_mixes: bool  # Whether ASCII letters stand in the same words.


_LATIN_MARKS = "“”‘’–—…«»€£§°·¡¿©®™„‚•\u00a0²³½"
_LATIN_1 = _Alphabet("éèàâêëîïôùûçäöüßñáíóúåæøãõœìò", "ÉÈÀÂÊÎÔÇÄÖÜÑÁÍÓÚÅÆØÃÕŒìÿýðþÞÐÿÝ", True)
_RUSSIAN = _Alphabet("оеаинтсрвлкмдпуяыьгзбчйх", "жшюцщэфъёіїєґўЁІЇЄҐЎАБВГДЕЖЗИЙКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯ", False)
_ALPHABETS: dict[str, _Alphabet] = {
    "cp1252": _LATIN_1,
    "mac_roman": _LATIN_1,
    "cp850": _LATIN_1,
    "cp1250": _Alphabet("ąćęłńóśźżáčďéěíňřšťúůýžőűöüäâăîșț", "ĄĆĘŁŃÓŚŹŻÁČĎÉĚÍŇŘŠŤÚŮÝŽŐŰÖÜÄÂĂÎßôľĺŕđş", True),
    "cp1254": _Alphabet("ğışçöüİ", "ĞŞÇÖÜâîû", True),
    "cp1251": _RUSSIAN,
    "koi8-r": _RUSSIAN,
    "cp866": _RUSSIAN,
    "iso8859_5": _RUSSIAN,
    "cp1253": _Alphabet("αοειτνσςηρκπυλμίόέάήωύώδγθβχφξζψ", "ΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡΣΤΥΦΧΨΩΆΈΉΊΌΎΏϊϋΐΰ", False),
    "cp1255": _Alphabet("יוהלאמרבתנשעדחפקטסגכזצםןךףץ", "", False),
    "cp1256": _Alphabet("اليمنوترهبدعسفكقحجشصطخذضزغثظءآأإؤئةى،؟", "پچژگکی", False),
    "cp874": _Alphabet("".join(map(chr, range(0xE01, 0xE3B))) + "".join(map(chr, range(0xE40, 0xE4F))), "๏๐๑๒๓๔๕๖๗๘๙", False),
}  # fmt: skip


def _gb18030(character: str) -> float:
    code = _code(character, "gb2312")
    return (
        -1.0
        if code is None
        else 1.0
        if 0xB0 <= code[0] <= 0xD7 or code[0] in (0xA1, 0xA3)
        else -0.5
        if code[0] < 0xB0
        else 0.0
    )


def _big5(character: str) -> float:
    code = _code(character, "big5")
    return -1.0 if code is None else 1.0 if 0xA4 <= code[0] <= 0xC6 or code[0] in (0xA1, 0xA2) else 0.0


def _korean(character: str) -> float:
    # A little more than 1: Korean read as Chinese is all common characters too, the other way round it is not.
    return (
        1.05 if "가" <= character <= "힣" and _code(character, "euc-kr") else 1.0 if _is_wide_mark(character) else -1.0
    )


def _japanese(character: str) -> float:
    if "ぁ" <= character <= "ー" or _is_wide_mark(character):
        return 1.0
    code = _code(character, "euc-jp")
    return 0.7 if code is not None and len(code) == 2 and 0xB0 <= code[0] <= 0xCF else -1.0


def _any_script(character: str) -> float:
    """For UTF-16 and UTF-32: ASCII, or what is common in any of the scripts."""
    if character.isascii():
        return 1.0 if character.isprintable() or character in "\t\r\n" else -1.0
    if character in _LATIN_MARKS or any(
        character in alphabet.common + alphabet.rare for alphabet in _ALPHABETS.values()
    ):
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
_PRIORS = {"cp1252": 0.05, "cp1250": -0.05, "cp1254": -0.05, "mac_roman": -0.15, "cp850": -0.15, "cp874": -0.25}
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
        odd = [character for character in text if not character.isascii()]
        kana = sum("ぁ" <= character <= "ヿ" for character in odd) > len(odd) / 3 and of_character is _japanese
        return sum(map(of_character, odd)) / len(odd) + _KANA_PRIOR * kana if odd else -1.0
    alphabet = _ALPHABETS[encoding]
    total, count = 0.0, 0
    padded = f" {text} "
    for before, character, after in zip(padded, padded[1:], padded[2:], strict=False):
        if character.isascii():
            continue
        count += 1
        total += _letter_score(before, character, after, alphabet)
    return total / count + _PRIORS.get(encoding, 0.0) if count else -1.0


def _letter_score(before: str, character: str, after: str, alphabet: _Alphabet) -> float:
    if character in _LATIN_MARKS:
        # Typographic marks are common, but not in the middle of a word, where other encodings have letters.
        return -0.5 if before.isalpha() and after.isalpha() and character not in "’·" else 0.9
    score = 1.0 if character in alphabet.common else 0.4 if character in alphabet.rare else -1.0
    if character.isupper() and before.islower():
        return -1.0
    neighbours = [other for other in (before, after) if other.isalpha()]
    if alphabet.script_mixes:
        foreign = len(neighbours) == 2 and not any(other.isascii() for other in neighbours)
    else:
        foreign = any(other.isascii() for other in neighbours)
    return min(score, -0.5) if foreign else score

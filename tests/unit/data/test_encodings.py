"""A guess at the encoding of bytes that are no UTF-8, and decoding by the one that is asked for."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from distillkit.console import Console
from distillkit.data.encodings import broken_utf8_share, guess_encodings, guess_words
from distillkit.data.notes import ReadingNotes
from distillkit.data.sources import load_documents
from distillkit.data.text_decoding import decode_blocks
from distillkit.errors import UsageError
from distillkit.settings.parameters import Parameters

TEXTS = {
    "french": "Le café est fermé, à côté de l’église où l'été fut très doux.",
    "german": "Die Straße ist für Fußgänger geöffnet; übrigens schön.",
    "spanish": "El niño comió piñas mañana — ¿qué?",
    "quotes": "it’s a “quoted” word – yes",
    "polish": "Zażółć gęślą jaźń, proszę państwa. Książka jest dobra.",
    "czech": "Příliš žluťoučký kůň úpěl ďábelské ódy.",
    "turkish": "Bugün hava çok güzel, parka gittik. Işık şöyle yağmur.",
    "russian": "Он измерил фонарь и тяжёлую телегу на третий день.",
    "greek": "Σήμερα ο καιρός είναι καλός και πήγαμε στο πάρκο.",
    "hebrew": "היום מזג האוויר יפה והלכנו לפארק.",
    "arabic": "اليوم الطقس جميل وذهبنا إلى الحديقة.",
    "thai": "วันนี้อากาศดีมากเราไปเดินเล่น",
    "simplified": "今天天气很好，我们去公园散步吧。他说这本书非常有意思。",
    "traditional": "今天天氣很好，我們去公園散步吧。他說這本書非常有意思。",
    "japanese": "今日は天気がいいので、公園を散歩しましょう。この本はとても面白いです。",
    "korean": "오늘은 날씨가 좋아서 공원을 산책했습니다. 이 책은 매우 재미있다.",
}
WRITTEN = [
    ("french", "cp1252"), ("german", "cp1252"), ("spanish", "cp1252"), ("quotes", "cp1252"), ("french", "mac_roman"),
    ("polish", "cp1250"), ("czech", "cp1250"), ("turkish", "cp1254"), ("russian", "cp1251"), ("russian", "koi8-r"),
    ("russian", "cp866"), ("greek", "cp1253"), ("hebrew", "cp1255"), ("arabic", "cp1256"), ("thai", "cp874"),
    ("simplified", "gb18030"), ("traditional", "cp950"), ("japanese", "cp932"), ("japanese", "euc-jp"), ("korean", "cp949"),
    ("french", "utf-16-le"), ("russian", "utf-16-be"), ("simplified", "utf-16-le"), ("german", "utf-32-le"),
]  # fmt: skip


SHORT = [
    ("cp1251", "ПРИВЕТ, КАК ДЕЛА? ВСЁ ХОРОШО"), ("koi8-r", "ПРИВЕТ, КАК ДЕЛА? ВСЁ ХОРОШО"), ("cp1251", "Дуже дякую за швидку доставку"),
    ("cp1253", "Πολύ καλό προϊόν, το συνιστώ ανεπιφύλακτα!"), ("cp1250", "Bardzo dobry produkt, polecam każdemu. Dziękuję!"),
    ("iso8859_2", "Wczoraj poszliśmy na długi spacer, a później do domu."), ("cp1250", "Árvíztűrő tükörfúrógép"),
    ("cp1254", "İstanbul'da yağmur yağıyor"), ("cp1254", "Kitabı okudum ve beğendim"), ("cp1255", "שלום עולם"),
    ("cp1255", "מוצר מצוין, ממליץ לכולם! משלוח מהיר"), ("cp1256", "السلام عليكم"), ("cp1256", "امروز هوا خوب است و ما به پارک رفتيم"),
    ("cp932", "東京都新宿区"), ("euc-jp", "すぐに壊れました。残念です"), ("gb18030", "北京"), ("gb18030", "质量太差，用了一周就坏了"),
    ("cp950", "品質太差，用了一週就壞了"), ("cp949", "서울"), ("cp949", "일주일 만에 고장났어요 ㅠㅠ 비추"), ("cp874", "สินค้าดีมากแนะนำเลย"),
]  # fmt: skip


@pytest.mark.parametrize(("encoding", "text"), SHORT)
def test_the_right_guess_comes_first_for_short_texts(encoding: str, text: str) -> None:
    """Where letters of several encodings come out, how common they are decides."""
    data = f"id,text\n1,{text}\n".encode(encoding)
    at = next(place for place, byte in enumerate(data) if byte > 127)
    assert guess_encodings(data, at)[0].encoding == encoding


def load(path: Path, **settings: object) -> tuple[list[str], list[str]]:
    """Texts and notes."""
    documents = load_documents(Parameters(dataset_path=str(path), **settings), Console(quiet=True))  # type: ignore[arg-type]
    return [document.text for document in documents.splits["all"]], documents.notes


def refusal(path: Path, **settings: object) -> UsageError:
    with pytest.raises(UsageError) as caught:
        load(path, **settings)
    return caught.value


@pytest.mark.parametrize(("language", "encoding"), WRITTEN)
def test_the_guess_reads_the_file(tmp_path: Path, language: str, encoding: str) -> None:
    """What the hint proposes, taken at its word, gives the texts."""
    text = TEXTS[language]
    path = tmp_path / "reviews.csv"
    path.write_bytes("".join(["id,text\n", *(f'{number},"{text}"\n' for number in range(4))]).encode(encoding))
    hint = refusal(path).hint or ""
    guess = hint.split("--encoding ")[1].split(" ")[0]
    assert guess == encoding
    assert set(load(path, encoding=guess)[0]) == {text}


def test_the_hint_shows_what_stands_at_the_place(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("First line.\nA small café, open.\n".encode("cp1252"))
    error = refusal(path)
    assert "a.txt: not valid UTF-8 at line 2, byte 23" in error.message
    assert error.hint == 'look whether it is --encoding cp1252 (reads "A small café, open.")'
    assert "iconv" not in error.hint


def test_a_damaged_utf8_file_is_not_said_to_be_of_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes((TEXTS["russian"] * 20).encode() + b" caf\xe9 " + TEXTS["russian"].encode())
    assert "all but a few bytes of the file are UTF-8" in (refusal(path).hint or "")
    assert broken_utf8_share("naïve".encode("cp1252")) == 1
    assert broken_utf8_share("naïve".encode()) == 0


def test_bytes_of_no_text_give_no_guess() -> None:
    assert guess_encodings(bytes(range(128, 256)) * 4, 0) == []
    assert "--encoding" in guess_words(bytes(range(128, 256)) * 4, 0)
    ascii_with_nul = b"An ordinary text in English, and\0 then a byte that is none.\n" * 3
    assert guess_encodings(ascii_with_nul, ascii_with_nul.index(0)) == []


def test_a_wrong_encoding_is_refused_and_the_right_one_proposed(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(TEXTS["german"].encode("cp1252"))
    error = refusal(path, encoding="shift_jis")
    assert "a.txt: not valid SHIFT_JIS at line 1, byte 16" in error.message
    assert "--encoding cp1252" in (error.hint or "")
    path.write_bytes(TEXTS["french"].encode())
    assert "--encoding utf-8" in (refusal(path, encoding="ascii").hint or "")


def test_what_is_valid_utf8_and_read_otherwise_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("naïve", encoding="utf-8")
    texts, notes = load(path, encoding="cp1252")
    assert texts == ["naÃ¯ve"]
    assert notes == ["a.txt: read as cp1252, as --encoding says, although its beginning is valid UTF-8"]
    path.write_text("plain")
    assert load(path, encoding="cp1252") == (["plain"], [])


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_wins(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("Grüße, 漢字 😀".encode(encoding))
    for wanted in (None, encoding):
        texts, notes = load(path, encoding=wanted)
        assert texts == ["Grüße, 漢字 😀"]
        assert len(notes) == 1
    texts, notes = load(path, encoding="cp1251")
    assert texts == ["Grüße, 漢字 😀"]
    assert notes[0].endswith("as its byte-order mark says, not as cp1251")


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_wide_encodings_without_a_mark(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("Plain.\n".encode(encoding))
    assert "NUL character at line 1" in refusal(path).message
    path.write_bytes("Grüße, 漢字 😀.\n".encode(encoding))
    assert f"--encoding {encoding} " in (refusal(path).hint or "")
    texts, notes = load(path, encoding=encoding[:6])
    assert texts == ["Grüße, 漢字 😀."]
    assert notes[0] == f"a.txt: no byte-order mark, read as {'little' if encoding.endswith('le') else 'big'} endian"


@pytest.mark.parametrize(
    ("language", "encoding"),
    [("simplified", "gb18030"), ("japanese", "shift_jis"), ("japanese", "euc-jp"), ("japanese", "iso2022_jp"),
     ("korean", "euc-kr"), ("traditional", "big5"), ("russian", "koi8-r"), ("german", "utf-16-be"), ("german", "utf-32")],
)  # fmt: skip
@pytest.mark.parametrize("block_bytes", [4, 5, 7])
def test_characters_across_block_borders(
    monkeypatch: pytest.MonkeyPatch, language: str, encoding: str, block_bytes: int
) -> None:
    monkeypatch.setattr("distillkit.data.text_decoding.BLOCK_BYTES", block_bytes)
    text = f"{TEXTS[language]}\n" * 3
    assert "".join(decode_blocks(io.BytesIO(text.encode(encoding)), "a", ReadingNotes(), encoding)) == text


@pytest.mark.parametrize("block_bytes", [4, 5, 1 << 20])
def test_the_place_is_right_in_encodings_of_several_bytes(monkeypatch: pytest.MonkeyPatch, block_bytes: int) -> None:
    monkeypatch.setattr("distillkit.data.text_decoding.BLOCK_BYTES", block_bytes)
    good = "漢字\n漢".encode("gb18030")
    with pytest.raises(UsageError, match=rf"GB18030 at line 2, byte {len(good)}"):
        list(decode_blocks(io.BytesIO(good + b"\xff\n"), "a", ReadingNotes(), "gb18030"))


@pytest.mark.parametrize("kind", ["txt", "jsonl", "json", "csv", "tsv"])
def test_every_format_of_text_is_decoded(tmp_path: Path, kind: str) -> None:
    text = TEXTS["russian"]
    rows = {
        "txt": text,
        "jsonl": f'{{"text": "{text}"}}\n',
        "json": f'["{text}"]',
        "csv": f"text\n{text}\n",
        "tsv": f"id\ttext\n1\t{text}\n",
    }
    path = tmp_path / f"a.{kind}"
    path.write_bytes(rows[kind].encode("cp1251"))
    assert load(path, encoding="cp1251")[0] == [text]
    assert "--encoding cp1251" in (refusal(path).hint or "")

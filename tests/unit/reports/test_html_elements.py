"""The element builder: texts are escaped, hidden characters are shown, and nothing leads out of the page."""

from __future__ import annotations

import pytest

from distillkit.reports.html.elements import Markup, element, escaped, together, visible


def test_texts_are_escaped_and_markup_is_not() -> None:
    made = element("p", 'a < b & "c"', element("b", "d"), None, ["e", ["f"]], class_="x", aria_label='"><script>')
    assert made == ('<p class="x" aria-label="&quot;&gt;&lt;script&gt;">a &lt; b &amp; &quot;c&quot;<b>d</b>ef</p>')
    assert isinstance(made, Markup)
    assert together("<", made[:0]) == "&lt;"


def test_void_elements_and_attributes_without_a_value() -> None:
    assert element("meta", name="x", hidden=True, id=None, lang=False) == '<meta name="x" hidden>'
    assert element("circle", cx=1.0, cy=2.345678) == '<circle cx="1" cy="2.35"></circle>'


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\u202eb\u2066c\u200f", "a⟨U+202E⟩b⟨U+2066⟩c⟨U+200F⟩"),
        ("\x00\x07\r", "␀␇␍"),
        ("\x1b[31mred", "␛[31mred"),
        ("tab\tline\n", "tab\tline\n"),
        ("\ud800\uffff\x85", "\ufffd\ufffd\ufffd"),
        ("שלום", "שלום"),
    ],
)
def test_what_cannot_be_seen_is_shown(text: str, shown: str) -> None:
    assert visible(text) == shown
    escaped(text).encode("utf-8")


@pytest.mark.parametrize("name", ["p onclick", "", "1a", "p>"])
def test_a_name_that_html_does_not_have_is_a_mistake(name: str) -> None:
    with pytest.raises(ValueError, match="no names of HTML"):
        element(name)


@pytest.mark.parametrize("link", ["https://x.org/", "javascript:alert(1)", "//x.org", "data:text/html,x", "page.html"])
def test_no_link_leads_out_of_the_page(link: str) -> None:
    with pytest.raises(ValueError, match="out of the page"):
        element("a", "x", href=link)
    assert element("a", "x", href="#x") == '<a href="#x">x</a>'

"""README.ru.md says what README.md says: the same sections, commands, code, tables, links, flags and files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ENGLISH, RUSSIAN = "README.md", "README.ru.md"
# The map of the modules stands in README.md alone.
MAP = re.compile(r"```\ndistillkit/\n.*?```\n", re.DOTALL)
# In the Russian page its own language comes first.
SAME_PAGE = {"docs/parameters.ru.md": "docs/parameters.md"}
OTHER_LANGUAGE = {ENGLISH, RUSSIAN, f"{ENGLISH}#the-source"}


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it."""

    level: int
    title: str
    text: str

    def code(self) -> list[str]:
        """The lines of its code, without comments and drawings."""
        blocks = re.findall(r"^```(\w+)\n(.*?)^```$", self.text, re.DOTALL | re.MULTILINE)
        lines = [line for _, block in blocks for line in block.splitlines()]
        return [re.sub(r"\s+# .*$", "", line) for line in lines if line.strip()]

    def table_rows(self) -> int:
        return len(re.findall(r"^\|", self.text, re.MULTILINE))

    def links(self) -> set[str]:
        found = re.findall(r"\]\(([^)\s]+)\)", self.text)
        return {SAME_PAGE.get(link, link) for link in found} - OTHER_LANGUAGE

    def spelled(self) -> set[str]:
        """What is quoted as code within the text."""
        outside = re.sub(r"^```.*?^```$", "", self.text, flags=re.DOTALL | re.MULTILINE)
        return set(re.findall(r"`([^`\n]+)`", outside.replace("\n", " ")))

    def bullets(self) -> int:
        return len(re.findall(r"^- ", self.text, re.MULTILINE))


def sections(name: str) -> list[Section]:
    text = MAP.sub("", (ROOT / name).read_text(encoding="utf-8"))
    text = re.sub(r"^<!-- .* -->\n", "", text, flags=re.MULTILINE)
    # A `#` in code is a comment, no heading.
    hidden = re.sub(
        r"^```.*?^```$", lambda block: block.group().replace("\n#", "\n\0"), text, flags=re.DOTALL | re.MULTILINE
    )
    parts = re.split(r"^(#+) (.+)$", hidden, flags=re.MULTILINE)[1:]
    return [
        Section(len(level), title, below.replace("\0", "#"))
        for level, title, below in zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    ]


def differences() -> list[str]:
    """What has to be mended, a line each."""
    english, russian = sections(ENGLISH), sections(RUSSIAN)
    found: list[str] = []
    if [one.level for one in english] != [one.level for one in russian]:
        titles = [f"{ours.title if ours else '(none)'} | {theirs.title if theirs else '(none)'}"
                  for ours, theirs in zip_longest(english, russian)]  # fmt: skip
        return [f"{RUSSIAN} has other headings than {ENGLISH}, side by side: {'; '.join(titles)}"]
    for ours, theirs in zip(english, russian, strict=True):
        where = f"{RUSSIAN}, section «{theirs.title}» ({ENGLISH}: “{ours.title}”)"
        for line, its in zip_longest(ours.code(), theirs.code()):
            if line != its:
                found.append(f"{where}: the code {its!r} has to be {line!r}")
                break
        for what, one, other in (
            ("the link", ours.links(), theirs.links()), ("what is quoted", ours.spelled(), theirs.spelled()),
        ):  # fmt: skip
            found += [f"{where}: {what} {text!r} is missing" for text in sorted(one - other)]
            found += [f"{where}: {what} {text!r} is not in {ENGLISH}" for text in sorted(other - one)]
        for what, count, its_count in (
            ("rows of tables", ours.table_rows(), theirs.table_rows()), ("points of lists", ours.bullets(), theirs.bullets()),
        ):  # fmt: skip
            if count != its_count:
                found.append(f"{where}: {its_count} {what} instead of {count}")
    return found


def test_the_russian_page_keeps_step() -> None:
    assert not (mends := differences()), "mend:\n" + "\n".join(mends)


def test_each_page_leads_to_the_other() -> None:
    for name, other in ((ENGLISH, RUSSIAN), (RUSSIAN, ENGLISH)):
        assert f"]({other})" in (ROOT / name).read_text(encoding="utf-8").split("## ")[0], name


def test_the_russian_page_is_in_russian() -> None:
    for section in sections(RUSSIAN)[1:]:
        assert re.search("[а-яё]", section.title), section.title
    for line in sections(RUSSIAN)[2].text.splitlines():
        if "  # " in line:
            assert re.search("[а-яё]", line.split("  # ")[1]), line

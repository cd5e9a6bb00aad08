"""Lets MkDocs publish pages that lie outside docs/, and turns links that work in the repository into links of the site."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
DOCS = "docs/"
# Pages outside docs/ that are on the site, under their own paths.
_OUTSIDE = ("CHANGELOG.md", "CONTRIBUTING.md", "benchmarks/**/*.md")
_LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^(```.*?^```[^\n]*$)", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that lie outside docs/."""
    for pattern in _OUTSIDE:
        for path in sorted(ROOT.glob(pattern)):
            files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Every link of the page as one of the site; one to what the site has not, such as a source file, as its text."""
    there = {_in_repository(file.src_uri): file.src_uri for file in files}
    own = page.file.src_uri
    folder = posixpath.dirname(_in_repository(own))

    def changed(found: re.Match[str]) -> str:
        words, target = found.groups()
        name, mark, anchor = target.partition("#")
        if not name or "://" in target or target.startswith("mailto:"):
            return found.group()
        place = posixpath.normpath(posixpath.join(folder, name))
        if place in there:
            return f"[{words}]({posixpath.relpath(there[place], posixpath.dirname(own) or '.')}{mark}{anchor})"
        return words if (ROOT / place).exists() else found.group()

    parts = _FENCE.split(markdown)
    return "".join(part if part.startswith("```") else _LINK.sub(changed, part) for part in parts)


def _in_repository(uri: str) -> str:
    """The path of a page of the site in the repository."""
    return uri if (ROOT / uri).is_file() and not (ROOT / DOCS / uri).is_file() else DOCS + uri

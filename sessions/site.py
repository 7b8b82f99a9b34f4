"""What MkDocs does not do by itself; `mkdocs.yml` names this file as a hook.

Pages can be read in the repository as well as on the site: a link that leaves the folder docs leads to a copy on the
site. Files outside of docs that have a page of their own are those of `_outside`: every README, and the examples.
Framework after framework, marked in a page as ``<!-- tabs -->``, becomes a row of tabs. API pages are generated.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from sessions import api_pages

ROOT = Path(__file__).resolve().parents[1]
ELSEWHERE = "repository/"
"""Where the copies of files outside of docs are on the site."""
LINK = re.compile(r"(?<=\]\()([^()\s#:]+)(#[^()\s]*)?(?=\))")
TABS = re.compile(r"<!-- tabs -->\n(.*?)<!-- end of tabs -->\n", re.DOTALL)
FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files outside of docs, and the pages of the API."""
    for path in _outside():
        name = path.relative_to(ROOT).as_posix()
        if path.suffix == ".py":
            text = f"# {path.name}\n\n```python\n{path.read_text('utf-8')}```\n"
            files.append(File.generated(config, f"{ELSEWHERE}{name}.md", content=text))
        elif path.suffix == ".md":
            files.append(File.generated(config, f"{ELSEWHERE}{name}", content=path.read_text("utf-8")))
        else:
            files.append(File.generated(config, f"{ELSEWHERE}{name}", abs_src_path=str(path)))
    for name, text in api_pages.pages().items():
        files.append(File.generated(config, f"api/{name}", content=text))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links that leave the page's own tree, and sections that are tabs."""
    here = page.file.src_uri
    parts = FENCE.split(markdown)
    fences = FENCE.findall(markdown)
    turned = [LINK.sub(lambda match: _turned(match, here, files), part) for part in parts]
    return TABS.sub(_tabs, "".join(a + b for a, b in zip(turned, [*fences, ""], strict=True)))


def _outside() -> Iterator[Path]:
    """Files that have a copy on the site."""
    yield from (ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"))
    for pattern in ("examples/*/*.md", "examples/*/*.py", "benchmarks/*.md", "benchmarks/**/*.png"):
        yield from sorted(ROOT.glob(pattern))


def _home(uri: str) -> str:
    """The place in the repository of a page of the site."""
    if not uri.startswith(ELSEWHERE):
        return f"docs/{uri}"
    home = uri.removeprefix(ELSEWHERE)
    return home.removesuffix(".md") if home.endswith(".py.md") else home


def _turned(match: re.Match[str], here: str, files: Files) -> str:
    """A link of the repository as one of the site."""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(_home(here)), match[1]))
    places = [target.removeprefix("docs/")] if target.startswith("docs/") else []
    places += [f"{ELSEWHERE}{target}{rest}" for rest in ("", ".md", "/README.md")]
    for place in places:
        if files.get_file_from_path(place) is not None:
            return posixpath.relpath(place, posixpath.dirname(here)) + (match[2] or "")
    return match[0]


def _tabs(match: re.Match[str]) -> str:
    """Sections with a heading each as tabs."""
    _, *rest = re.split(r"^### (.*)\n", match[1], flags=re.MULTILINE)
    titled: Iterator[Any] = zip(rest[::2], rest[1::2], strict=True)
    return "".join(f'=== "{title}"\n\n{_indented(text)}\n' for title, text in titled)


def _indented(text: str) -> str:
    return "".join(f"    {line}\n" if line else "\n" for line in text.strip().split("\n"))

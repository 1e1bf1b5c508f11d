"""Hooks of mkdocs: let pages link to files outside docs/, as they do in the repository.

The README becomes the start page. Markdown, data and pictures that a page links to become part of
the site, at their path in the repository. Links to source code become plain text: the reference
pages show that code.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
PAGES = {
    "README.md": "index.md",
    "config/agents/README.md": "config/agents/README.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "SECURITY.md": "SECURITY.md",
    "CHANGELOG.md": "CHANGELOG.md",
}
SHOWN = {".svg", ".png", ".json", ".csv"}
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#:\s]+)(#[^)]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and the linked files that lie outside docs/."""
    for source, uri in PAGES.items():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / source)))
    for page in files.documentation_pages():
        for _, _, target, _ in LINK.findall(page.content_string):
            path = _in_repository(_source_of(page.src_uri), target)
            uri = _uri_of(path)
            if Path(path).suffix in SHOWN and uri == path and uri not in files.src_uris:
                files.append(File.generated(config, uri, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point each link at its page or file on the site."""
    source = _source_of(page.file.src_uri)

    def rewritten(match: re.Match[str]) -> str:
        picture, text, target, anchor = match.groups(default="")
        uri = _uri_of(_in_repository(source, target))
        if uri not in files.src_uris and (ROOT / _in_repository(source, target)).exists():
            return text
        here = posixpath.dirname(page.file.src_uri) or "."
        return f"{picture}[{text}]({posixpath.relpath(uri, here)}{anchor})"

    return LINK.sub(rewritten, markdown)


def _source_of(uri: str) -> str:
    """Path in the repository of a page of the site."""
    return next((source for source, page in PAGES.items() if page == uri), f"docs/{uri}")


def _in_repository(source: str, target: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), target))


def _uri_of(path: str) -> str:
    """Path on the site of a file of the repository."""
    return PAGES.get(path, path.removeprefix("docs/"))

"""Hooks of mkdocs: generated pages, links between `docs/` and the root, and a check that the site works offline."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent))

from commands import build_reference

ROOT_PAGES = ("ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
"""Files of the root that are pages too. Their links, and links to them, are those of the checkout."""

LINK = re.compile(r"\[(?P<text>[^]]*)\]\((?P<path>[^):#\s]+)(?P<anchor>#[^)\s]*)?\)")
EXTERNAL = re.compile(r"""<(?:script|img|link rel="?(?:stylesheet|preconnect|icon))[^>]*="?(?:https?:)?//[^>]*>""")


def on_files(files: Files, config: Any) -> Files:
    """Add the files of the root as pages."""
    for name in ROOT_PAGES:
        files.append(File.generated(config, name, abs_src_path=str(Path(config.config_file_path).with_name(name))))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Fill in the command reference, and turn links of the checkout into links of the site.

    A link from a file of the root to one that is no page becomes text.
    """
    in_root = page.file.src_uri in ROOT_PAGES

    def replace(link: re.Match[str]) -> str:
        name = link["path"].removeprefix("docs/" if in_root else "../")
        if name in files.src_uris:
            return f"[{link['text']}]({name}{link['anchor'] or ''})"
        return link["text"] if in_root else link[0]

    if page.file.src_uri == "commands.md":
        markdown += build_reference()
    return LINK.sub(replace, markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Leave out the default `...` of options: their texts state the default."""
    return re.sub(r",?\s*default:\s*<code>\.\.\.</code>", "", html)


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Fail if a page would load a script, style or picture from another host."""
    if found := EXTERNAL.search(output):
        raise PluginError(f"{page.file.src_uri} loads from another host: {found[0]}")
    return output

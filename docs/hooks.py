"""What the documentation site needs beyond Markdown that GitHub shows as well: links to code, and the recipes."""

import ast
import logging
import os
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LOG = logging.getLogger("mkdocs.hooks")  # its warnings fail a strict build
FIELDS = ("Command", "Device", "Time and memory", "Score", "Samples")


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """Links out of docs/ lead to the repository; in recipes.md the docstrings of configs/ are put in."""
    markdown = markdown.replace("<!-- recipes -->", recipes())
    folder = Path("docs") / Path(page.file.src_uri).parent

    def absolute(match: re.Match) -> str:
        path = os.path.normpath(folder / match[1])
        if path.startswith("docs/"):
            return match[0]
        if not (ROOT / path).exists():
            LOG.warning(f"{page.file.src_uri} links to {match[1]}, which is not there")
        return f"]({config.repo_url}/blob/main/{path})"

    return re.sub(r"\]\((\.\./[^)#]+)\)", absolute, markdown)


def recipes() -> str:
    """A section for each recipe: its first line, a table of FIELDS, and the text after them."""
    paths = sorted((ROOT / "configs").glob("*.py"))
    return "\n\n".join(section(path.stem, ast.get_docstring(ast.parse(path.read_text())) or "") for path in paths)


def section(name: str, docstring: str) -> str:
    """The section of one recipe from its docstring."""
    title, fields, text = docstring.split("\n\n", 2)
    found = dict(re.findall(rf"^({'|'.join(FIELDS)}): (.*?)(?=^\S|\Z)", fields, re.MULTILINE | re.DOTALL))
    rows = [f"| {key} | {' '.join(found[key].split())} |" for key in FIELDS]
    items = re.sub(r"^(?=`:)", "\n- ", text, flags=re.MULTILINE)  # variants
    return "\n".join([f"## {name}", "", title, "", "| | |", "| --- | --- |", *rows, "", items])

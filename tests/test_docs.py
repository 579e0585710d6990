"""The pages of docs/ are true: their examples run, and their links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .examples import BLOCK, run_page

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
ALL = [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_examples(page: Path) -> None:
    """A page is read from top to bottom: its examples share their names."""
    blocks = re.findall("^" + BLOCK, page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    run_page(page.name, "\n".join(blocks))


@pytest.mark.parametrize("page", ALL, ids=lambda page: page.stem)
def test_links(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if not target.startswith("https://"):
            assert (page.parent / target).exists(), target


def test_the_readme_leads_to_every_page() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(f"(docs/{page.name})" in text for page in PAGES)

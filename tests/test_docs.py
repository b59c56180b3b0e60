"""Documents: no unfilled place, no broken link between them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_places_and_links(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not re.findall(r"@[A-Z0-9]+@", text), "a figure was not filled in"
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text)
    missing = [x for x in links if "://" not in x and not (page.parent / x).exists()]
    assert not missing

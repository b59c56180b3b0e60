"""The pages on programs run as written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

PAGES = Path(__file__).resolve().parents[2] / "docs" / "recipes"


def run(page: str, folder: Path, monkeypatch: Any) -> dict[str, Any]:
    text = (PAGES / page).read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.S)
    assert len(blocks) == 1
    monkeypatch.chdir(folder)
    found: dict[str, Any] = {}
    exec(compile(blocks[0], page, "exec"), found)
    return found


def test_cascade(tmp_path: Path, monkeypatch: Any) -> None:
    pytest.importorskip("sklearn")
    found = run("cascade.md", tmp_path, monkeypatch)
    assert [link.seen for link in found["found"].links] == [100, 50]
    assert (found["found"].labels == found["y"]).mean() > 0.8


def test_encoders(tmp_path: Path, monkeypatch: Any) -> None:
    found = run("encoders.md", tmp_path, monkeypatch)
    assert (
        found["model"].predict(found["images"]).tolist() == ["cat"] * 5 + ["dog"] * 5 + ["cow"] * 5
    )


def test_glov(tmp_path: Path, monkeypatch: Any) -> None:
    found = run("glov.md", tmp_path, monkeypatch)
    assert len(found["search"].trials) == 3
    assert (tmp_path / "search.json").exists()
    assert (tmp_path / "prompts.json").exists()

"""The page on adapters runs as written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "recipes" / "adapters.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)


@pytest.mark.parametrize("number", range(3))
def test_blocks_run(number: int, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    found: dict[str, Any] = {}
    exec(compile(BLOCKS[number], PAGE.name, "exec"), found)
    told = capsys.readouterr().out
    if number == 0:
        assert found["aligner"].r2_ > 0.9
        assert (tmp_path / "aligner.safetensors").exists()
    elif number == 1:
        assert found["model"].recall_ > 0.5
    else:
        assert told.strip() == "['new 0' 'new 1']"


def test_blocks_are_three() -> None:
    assert len(BLOCKS) == 3

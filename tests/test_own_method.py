"""docs/your-own-method.md, as written: its file, its Python lines and its command."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from byname.errors import UsageError
from byname.ops import unit
from byname.plugins import load_plugin

PAGE = Path(__file__).parents[1] / "docs" / "your-own-method.md"


def blocks() -> list[str]:
    found: list[str] = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "spread.py").write_text(blocks()[0], encoding="utf-8")
    (tmp_path / "use.py").write_text(
        blocks()[1] + "\nprint(model.recipe, mixed.weigh)\n", encoding="utf-8"
    )
    rng = np.random.default_rng(0)
    texts = unit(rng.standard_normal((3, 4, 8)).astype(np.float32))
    np.savez(
        tmp_path / "task.npz",
        images=unit(texts[0][np.arange(20) % 4] + 0.5 * rng.standard_normal((20, 8))),
        texts=texts,
        labels=np.arange(20) % 4,
        classes=np.array(["a", "b", "c", "d"]),
        templates=np.array(["{}", "a {}", "the {}"]),
    )
    return tmp_path


def python(folder: Path, *words: str) -> str:
    made = subprocess.run(
        [sys.executable, *words], cwd=folder, capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    return made.stdout


def test_it_is_thirty_lines() -> None:
    assert len(blocks()[0].strip().splitlines()) <= 30


def test_the_python_lines(folder: Path) -> None:
    assert python(folder, "use.py").split() == ["spread", "spread"]


def test_the_command(folder: Path) -> None:
    command = re.search(r"byname (--plugin spread.py evaluate .*)", PAGE.read_text("utf-8"))
    assert command is not None
    words = command[1].replace("TASK.npz", "task.npz").split()
    python(folder, "-m", "byname", *words, "-o", "out.json", "--metrics", "top1")
    table = json.loads((folder / "out.json").read_text("utf-8"))
    assert "spread" in json.dumps(table)
    assert "skipped" not in json.dumps(table)


@pytest.mark.parametrize(
    "text, message",
    [
        ("x = 1\n", "it adds no member. Write @register"),
        ("1 / 0\n", r"it does not import \(ZeroDivisionError: division by zero\)"),
    ],
)
def test_files_that_are_no_plugin(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "broken.py"
    file.write_text(text, "utf-8")
    with pytest.raises(UsageError, match=message):
        load_plugin(str(file))


def test_missing_files_and_modules(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no such file"):
        load_plugin(str(tmp_path / "none.py"))
    with pytest.raises(UsageError, match=r"it does not import .*No module named 'no_such_module'"):
        load_plugin("no_such_module")

"""Tables whose rows do not fit their header."""

from __future__ import annotations

from pathlib import Path

import pytest

from byname.errors import UsageError
from byname.joins import read_table


@pytest.mark.parametrize(
    "text, message",
    [
        ("file,caption\na,b\nc,a cat, on a mat\n", "line 3 has 3 cells, but the header 2.*','"),
        ("file;caption\na;b; c\n", "line 2 has 3 cells, but the header 2.*';'"),
        ("file\tcaption\na\tb\tc\n", "Put a text that holds a tab into quotes"),
        ('file,caption\na,"b\nb"\nc,d,e\n', "line 4 has 3 cells"),
    ],
)
def test_rows_with_more_cells_than_the_header(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_table(tmp_path / "t.csv", "read it")


def test_empty_cells_at_the_end_lose_nothing(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('file,caption\na,"b, c",,\nd\n,,,\n')
    assert read_table(tmp_path / "t.csv", "read it")[1] == [["a", "b, c"], ["d", ""]]

"""Corrections as CSV with inert cells."""

from __future__ import annotations

import csv
import io

import pytest

from byname.serve.export import inert, table


@pytest.mark.parametrize("cell", ["=1", "+1", "-1", "@x", "\t=1", " =1", "\r=1", "=cmd|'/c'!A1"])
def test_formulas_are_made_inert(cell: str) -> None:
    assert inert(cell) == f"'{cell}"


@pytest.mark.parametrize("cell", ["", "a=b", "cat", "1-2", "é", "<b>"])
def test_other_cells_stay(cell: str) -> None:
    assert inert(cell) == cell


def test_every_cell_survives_the_way_through_csv() -> None:
    row = ('a,"b".jpg', "id\n2", "日本 'x'", "")
    header, found = csv.reader(io.StringIO(table([row]).decode(), newline=""))
    assert header == ["file_name", "class_id", "label", "predicted_class_id"]
    assert tuple(found) == row

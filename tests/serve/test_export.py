"""Corrections as CSV with inert cells."""

from __future__ import annotations

import csv
import io

import pytest

from byname.serve.export import inert, table

PREDICTED = ("predicted_class_id", "predicted_label")


@pytest.mark.parametrize("cell", ["=1", "+1", "-1", "@x", "\t=1", " =1", "\r=1", "=cmd|'/c'!A1"])
def test_formulas_are_made_inert(cell: str) -> None:
    assert inert(cell) == f"'{cell}"


@pytest.mark.parametrize("cell", ["", "a=b", "cat", "1-2", "é", "<b>"])
def test_other_cells_stay(cell: str) -> None:
    assert inert(cell) == cell


def test_every_cell_survives_the_way_through_csv() -> None:
    row = ('a,"b".jpg', "id\n2", "日本 'x'", "", "")
    header, found = csv.reader(io.StringIO(table([row]).decode(), newline=""))
    assert header == ["file_name", "class_id", "label", *PREDICTED]
    assert tuple(found) == row


@pytest.mark.parametrize("own", ["-1", "+1", "-a b", "cat", "3.5", "日本", "-a/b"])
def test_ids_are_compared_by_others_and_stay(own: str) -> None:
    (_, found) = csv.reader(io.StringIO(table([("a", own, "-1", own, "=1")]).decode(), newline=""))
    assert found == ["a", own, "'-1", own, "'=1"]


@pytest.mark.parametrize("own", ["=1+1", "-1+cmd|'/c calc'!A1", "@SUM(1)", "+HYPERLINK(1)", "-1\n"])
def test_ids_that_could_call_something_are_made_inert(own: str) -> None:
    (_, found) = csv.reader(io.StringIO(table([("a", own, "b", "", "")]).decode(), newline=""))
    assert found[1] == f"'{own}"

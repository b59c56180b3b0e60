"""A finding as data, and the order of several."""

from __future__ import annotations

import json
from dataclasses import fields

from byname.study.finding import Finding, by_level


def test_ready_for_json_with_all_fields() -> None:
    one = Finding(
        "weak_class",
        "problem",
        "1 of 2 classes is weak.",
        next="# look",
        classes=("a",),
        images=("b.jpg",),
        texts=("a b",),
        count=1,
        values={"share": 0.5},
    )
    told = one.to_dict()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert set(told) == {field.name for field in fields(Finding)}
    assert (told["classes"], told["images"], told["texts"]) == (["a"], ["b.jpg"], ["a b"])
    assert told["values"] == {"share": 0.5}


def test_two_findings_share_no_values() -> None:
    one, two = Finding("a", "note", "."), Finding("b", "note", ".")
    one.to_dict()["values"]["x"] = 1.0
    assert one.values == two.values == {}
    assert one.values is not two.values


def test_problems_first_and_each_level_in_the_given_order() -> None:
    levels = ("note", "problem", "warning", "note", "problem")
    found = [Finding(str(i), level, ".") for i, level in enumerate(levels)]  # type: ignore[arg-type]
    assert [one.kind for one in by_level(iter(found))] == ["1", "4", "2", "0", "3"]
    assert by_level([]) == []

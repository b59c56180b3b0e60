"""Findings about flags of classes."""

from __future__ import annotations

import pytest

from byname.diagnose import ClassDiagnosis, Diagnosis
from byname.study.classes import check_classes
from byname.study.finding import SHOWN
from byname.study.subject import Subject
from tests.report.worlds import subject_of, world


@pytest.fixture(scope="module")
def subject() -> Subject:
    return subject_of(world(n=2)[0])


def found(flags: list[str], name: str = "name") -> Diagnosis:
    classes = {
        f"c{k}": ClassDiagnosis(f"{name} {k}", 0.1, 5, 0.1, 0.4, None, (), flag, f"do {k}")
        for k, flag in enumerate(flags)
    }
    return Diagnosis("plain", 90, 0.4, (0.2, 0.6), tuple(reversed(classes)), classes)


@pytest.mark.parametrize(
    ("flag", "kind", "level", "one", "several"),
    [
        (
            "weak",
            "weak_class",
            "problem",
            "is expected to be right in",
            "are expected to be right in",
        ),
        ("never predicted", "never_predicted", "problem", "wins no image:", "win no image:"),
        ("ambiguous name", "ambiguous_name", "warning", "shares a name or", "share a name or"),
    ],
)
def test_one_class_and_several(
    subject: Subject, flag: str, kind: str, level: str, one: str, several: str
) -> None:
    made, numbers = check_classes(subject, found([flag, "", ""]))
    assert [(m.kind, m.level, m.count, m.classes) for m in made] == [(kind, level, 1, ("c0",))]
    assert f"1 of 3 classes {one}" in made[0].what
    assert made[0].what.endswith("'name 0'.")
    assert numbers == {}
    made, _ = check_classes(subject, found([flag, flag, ""]))
    assert f"2 of 3 classes {several}" in made[0].what
    assert made[0].classes == ("c1", "c0"), "the worst first"
    assert made[0].next == "do 1"


def test_nothing_to_say(subject: Subject) -> None:
    assert check_classes(subject, found(["", ""])) == ([], {})


def test_many_classes_are_counted_and_the_first_named(subject: Subject) -> None:
    made, _ = check_classes(subject, found(["weak"] * 50))
    assert made[0].count == 50
    assert len(made[0].classes) == SHOWN
    assert made[0].what.endswith("'name 49', 'name 48', 'name 47' and 47 more.")


def test_hostile_names_stay_on_one_line_and_short(subject: Subject) -> None:
    made, _ = check_classes(subject, found(["weak"] * 3, "<b>\nrm -r" + "x" * 500))
    assert "\n" not in made[0].what
    assert len(made[0].what) < 400

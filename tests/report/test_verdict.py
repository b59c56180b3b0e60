"""The sentence on top: it says how sure it is, and does not contradict itself."""

from __future__ import annotations

from byname.diagnose import ClassDiagnosis, Diagnosis
from byname.report.verdict import verdict


def found(flags: list[str], n: int = 1000, share: float | None = 0.4) -> Diagnosis:
    classes = {
        f"c{k}": ClassDiagnosis(f"name {k}", 0.1, 5, 0.1, 0.4, None, (), flag, "")
        for k, flag in enumerate(flags)
    }
    span = None if share is None else (0.2, 0.64)
    return Diagnosis("plain", n, share, span, tuple(classes), classes)


def test_from_overall_interval_and_numbers_of_classes() -> None:
    said = verdict(found(["weak", "weak", "never predicted", "weak", ""]))
    assert said == (
        "About 40% (20%-64%) of the answers are expected to be right; of 5 classes 3 are weak and "
        "1 wins no image: begin with 'name 0', 'name 1', 'name 2' and 1 more."
    )
    assert "expected to fail" not in said


def test_one_of_each() -> None:
    said = verdict(found(["ambiguous name", "weak"]))
    assert "of 2 classes 1 is weak and 1 shares its name: begin with 'name 0', 'name 1'." in said


def test_nothing_stands_out() -> None:
    assert verdict(found(["", ""])).endswith("to be right; no class stands out as failing.")


def test_few_images_are_hardly_a_guess() -> None:
    few = "hardly more than a guess, from 11 images for 4 classes"
    assert few in verdict(found([""] * 4, n=11))
    assert "guess" not in verdict(found([""] * 4, n=12))
    assert "from 1 image for 4 classes" in verdict(found([""] * 4, n=1))


def test_other_answers_than_the_highest_scores() -> None:
    assert verdict(found(["", ""]), 0.31).startswith("About 31% of the answers are expected")


def test_groups_are_told() -> None:
    said = verdict(found(["", ""]), 0.04, 0.83)
    assert said.startswith(
        "About 4% of the answers are expected to be right and 83% to be a group that holds"
    )
    assert "group" not in verdict(found(["", ""]), 0.3, 0.001)


def test_one_class() -> None:
    assert "nothing to tell apart" in verdict(found([""], share=None))


def test_names_stay_on_one_line_and_short() -> None:
    made = found(["weak", ""])
    bad = ClassDiagnosis("a\nb" + "x" * 500, 0.1, 5, 0.1, 0.4, None, (), "weak", "")
    said = verdict(
        Diagnosis("plain", 100, 0.4, (0.2, 0.6), ("c0", "c1"), made.classes | {"c0": bad})
    )
    assert "\n" not in said
    assert len(said) < 250

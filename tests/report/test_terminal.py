"""What is printed: the table on standard output, all else on standard error."""

from __future__ import annotations

from typing import Any

import pytest

from byname.recipes import get_recipe
from byname.report.data import make_report
from byname.report.terminal import show
from tests.report.made_up import made_up
from tests.report.worlds import subject_of, world


def printed(capsys: pytest.CaptureFixture[str], report: Any, **options: bool) -> tuple[str, str]:
    show(report, **options)
    out, err = capsys.readouterr()
    return out, " ".join(err.split())


def test_the_worst_twenty_or_all(capsys: pytest.CaptureFixture[str]) -> None:
    report = made_up(30, 2)
    out, err = printed(capsys, report)
    assert "class 19" in out
    assert not any(line.startswith("│ class 20") for line in out.splitlines())
    assert "... and 10 more classes" in err
    out, err = printed(capsys, report, every=True)
    assert any(line.startswith("│ class 29") for line in out.splitlines())
    assert "more classes;" not in err


def test_findings_and_notes(capsys: pytest.CaptureFixture[str]) -> None:
    _, err = printed(capsys, made_up(3, 2))
    assert "problem: what 0 next: next 0" in err
    assert "note: note 0" in err


def test_truth_only_with_labels(capsys: pytest.CaptureFixture[str]) -> None:
    out, err = printed(capsys, made_up(3, 2, labelled=True))
    assert "┃ accuracy" in out
    assert "65.0% of 2 labelled images are right" in err
    out, err = printed(capsys, made_up(3, 2, labelled=False))
    assert "┃ accuracy" not in out
    assert "labelled" not in err
    assert "expected accuracy 70% (60%-80%), an estimate without labels" in err


def test_a_class_without_answers_has_no_interval(capsys: pytest.CaptureFixture[str]) -> None:
    report = made_up(2, 2)
    report["classes"]["id 0"] |= {"expected_accuracy": 0.0, "interval": None, "cmm": None, "n": 0}
    out, _ = printed(capsys, report)
    row = next(line for line in out.splitlines() if "class 0" in line)
    assert "│ 0%" in row
    assert "(0%-0%)" not in row


def test_groups_and_coverage_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    task, truth = world()
    recipe = get_recipe("ensemble", decide="backoff[threshold=0.8, calibrate=off]")
    report = make_report(subject_of(task, recipe), labels=truth)
    head = report["summary"]
    _, err = printed(capsys, report)
    assert f"expected accuracy {head['expected_accuracy']:.0%}, an estimate" in err
    assert f"{head['coverage']:.1%} of the answers are accepted" in err
    assert f"{head['accuracy_accepted']:.1%} of the accepted" in err
    assert f"{head['above']:.1%} have a group that holds their class" in err


def test_one_class(capsys: pytest.CaptureFixture[str]) -> None:
    _, err = printed(capsys, made_up(1, 1, labelled=False))
    assert "1 image, 1 class, recipe recipe 0: no accuracy can be expected" in err

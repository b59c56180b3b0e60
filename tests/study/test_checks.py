"""All checks together: each is run once, and no kind of finding has two of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from byname.diagnose import diagnose
from byname.ops import unit
from byname.stage import Batch
from byname.study import checks
from byname.study.checks import CHECKS, study
from byname.study.finding import Finding
from byname.study.subject import Subject
from byname.taskfile import Task
from byname.taxonomy import Taxonomy
from tests.report.worlds import subject_of, world

DOCS = Path(__file__).resolve().parents[2] / "docs" / "diagnosis-findings.md"


def test_what_all_checks_say_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = subject_of(world(n=2)[0])
    found, steps = diagnose(subject.texts, subject.batch, subject.pipeline), []

    def check(name: str) -> checks.Check:
        return lambda one, two: (
            [Finding(name, "note", f"{one is subject} {two is found}")],
            {name: {"x": 1.0}},
        )

    monkeypatch.setattr(checks, "CHECKS", {name: check(name) for name in ("b", "a")})
    findings, numbers = study(subject, found, lambda *step: steps.append(step))
    assert [(one.kind, one.what) for one in findings] == [("b", "True True"), ("a", "True True")]
    assert numbers == {"b": {"x": 1.0}, "a": {"x": 1.0}}
    assert steps == [("b", 0, 2), ("a", 1, 2)]


def test_each_kind_has_one_check_and_is_documented() -> None:
    task, _ = world(n=4)
    subject = subject_of(task)
    found = diagnose(subject.texts, subject.batch, subject.pipeline)
    by_kind: dict[str, set[str]] = {}
    for name, check in CHECKS.items():
        for one in check(subject, found)[0]:
            by_kind.setdefault(one.kind, set()).add(name)
            assert one.what.endswith((".", ")")), one.what
            assert f"`{one.kind}`" in DOCS.read_text(encoding="utf-8")
    assert by_kind
    assert all(len(names) == 1 for names in by_kind.values())


@pytest.mark.parametrize(("K", "n"), [(1, 1), (1, 5), (2, 1), (5, 1)])
def test_hardly_anything_to_look_at(K: int, n: int) -> None:
    rng = np.random.default_rng(0)
    W = unit(rng.standard_normal((K, 6)))
    names = [f"name{k}" for k in range(K)]
    task = Task(W[:1].repeat(n, axis=0), W[None], ("a {}",), Taxonomy.from_names(names))
    subject = Subject.of_task(task, "plain")
    assert isinstance(subject.batch, Batch)
    findings, numbers = study(subject, diagnose(subject.texts, subject.batch, subject.pipeline))
    for values in numbers.values():
        assert all(value is None or np.isfinite(value) for value in values.values())
    assert all(np.isfinite(v) for one in findings for v in one.values.values())

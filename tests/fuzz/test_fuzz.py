"""A short, repeatable run of every fuzz target; ``python -m tests.fuzz.run`` makes long ones."""

from __future__ import annotations

import time

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from byname.errors import UsageError
from tests.fuzz.harness import Target, check
from tests.fuzz.targets import TARGETS

SHORT = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_but_an_answer_or_a_byname_error(name: str) -> None:
    seen = []

    @SHORT
    @given(TARGETS[name].inputs)
    def feed(value: object) -> None:
        seen.append(check(TARGETS[name], value))

    feed()
    assert len(seen) >= 20


def test_the_check_itself_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(value: object) -> None:
        if value == "slow":
            time.sleep(0)
            while time.process_time() < stop:
                pass
        if isinstance(value, BaseException):
            raise value

    target = Target("t", st.none(), run)
    stop = time.process_time() + 0.2
    assert check(target, "good") == ""
    assert "cannot" in check(target, UsageError("a", "b"))
    for wrong in (ValueError("x"), UsageError("", "b"), UsageError("a", ""), MemoryError()):
        with pytest.raises(AssertionError):
            check(target, wrong)
    monkeypatch.setattr("tests.fuzz.harness.MAX_SECONDS", 0.1)
    with pytest.raises(AssertionError, match=r"0\.\d s"):
        check(target, "slow")

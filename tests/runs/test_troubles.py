"""What is tried after the deaths of workers, and who is blamed in the end."""

from __future__ import annotations

from pathlib import Path

import pytest

from byname.errors import RunError
from byname.runs.troubles import Case


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path, 1)


def attempt(case: Case, images: int = 0, hand: str | None = None) -> int | None:
    """A worker that gets so far, and dies with this in hand."""
    told = case.begin()
    case.advance(images)
    if hand is not None:
        Path(told["careful"]).write_text(hand)
    return case.died("signal 11")


def test_once_is_no_reason_and_progress_neither(case: Case) -> None:
    for images in range(1, 6):  # as when somebody kills workers at random
        assert attempt(case, images) is None
    assert case.begin() == {"shard": 1}
    assert attempt(case, 5) is None
    assert case.begin() == {"shard": 1}
    assert attempt(case, 5) is None
    assert "careful" in case.begin()


def test_the_file_in_hand_at_two_deaths_is_given_up(case: Case) -> None:
    attempt(case)
    attempt(case)
    assert attempt(case, hand="load 2\n") is None
    assert attempt(case, hand="load 1\n") is None  # another one: neither has died twice
    assert attempt(case, hand="load 2\n") == 2
    reason = "the process died while reading it (signal 11)"
    assert case.given_up == {2: reason}
    assert case.begin()["give_up"] == {"2": reason}
    assert case.encoding == 0


def test_a_batch_in_hand_is_encoded_one_by_one(case: Case) -> None:
    attempt(case)
    attempt(case)
    assert attempt(case, hand="encode 0 3\n") is None
    assert case.begin()["batch_size"] == 1
    assert attempt(case, hand="encode 3 3\n") is None
    assert attempt(case, hand="encode 3\n") == 3
    assert case.given_up == {3: "the process died while encoding it (signal 11)"}
    assert case.encoding == 1


@pytest.mark.parametrize("hand", [None, "", "load", "load x", "encode 1 2 3", "rm -rf 1"])
def test_deaths_without_a_hint_end_the_run(case: Case, hand: str | None) -> None:
    for _ in range(4):
        attempt(case, hand=None)
    with pytest.raises(RunError, match=r"dies each time \(signal 11\), with no file in hand"):
        attempt(case, hand=hand)


def test_what_was_told_once_is_not_told_again(case: Case) -> None:
    case.begin()
    assert [case.advance(n) for n in (2, 3)] == [2, 3]
    case.died("signal 9")
    case.begin()
    assert [case.advance(n) for n in (4, 3, 1)] == [0, 2, 1]


def test_an_old_note_says_nothing_of_a_new_death(case: Case) -> None:
    case.note.write_text("load 0\n")
    for _ in range(4):
        attempt(case)
    assert case.given_up == {}
    case.begin()
    case.note.write_text("load 0\n")
    case.close()
    assert not case.note.exists()

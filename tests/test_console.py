"""What is seen of long work: bars on a terminal, lines in a log, nothing where none is wanted."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from byname import bars, bootstrap, console, knn
from byname.bars import Display, Row
from byname.encoders import hub
from byname.pipeline import Pipeline
from byname.progress import bars_are_welcome, counted, listening, tell
from byname.recipes import get_recipe
from byname.stage import Batch, ClassTexts
from byname.taxonomy import Taxonomy
from tests.helpers import unit


class Screen(io.StringIO):
    """Standard error that says it is a terminal, or not."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


@pytest.fixture
def seen(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Screen]:
    """What is written to standard error, which is a terminal where the test says so."""
    screen = Screen(getattr(request, "param", True))
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    # "never mind the pipe, colours": as in the logs of many build servers
    drawn = Console(file=screen, force_terminal=True, width=80, highlight=False, soft_wrap=True)
    monkeypatch.setattr(console, "errors", drawn)
    monkeypatch.setattr(console, "_display", Display(drawn, console.say))
    yield screen
    console.keep(None)


terminal = pytest.mark.parametrize("seen", [True], indirect=True, ids=["terminal"])
log = pytest.mark.parametrize("seen", [False], indirect=True, ids=["log"])


def test_a_row_knows_its_pace_and_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    row = Row("images", 100)
    row.add(40, work=False)
    now += 10
    row.add(0, work=False)  # what was known before cost nothing, however long it took to find
    row.add(10, work=True)
    now += 5
    assert row.rate() == pytest.approx(2)
    assert row.left() == pytest.approx(25)
    assert row.line() == "images: 50 of 100, 2.0/s, 0:15 so far, about 0:25 left"
    row.add(40, work=False)  # copies of what was encoded: as many will be among the rest
    assert row.rate() == pytest.approx(2)
    assert row.left() == pytest.approx(1)
    row.add(10, work=True)
    assert row.left() is None


def test_the_forecast_forgets_what_was_known_in_the_middle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A few errors are tried again, many shards are there already, and then the work begins."""
    now = 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    row = Row("images", 1_000_000)
    row.add(1000, work=False)
    row.add(4, work=True)
    for _ in range(50):
        now += 0.1
        row.add(10_000, work=False)
    for _ in range(30):
        now += 1
        row.add(32, work=True)
    wanted = (1_000_000 - row.done) / 32
    assert row.left() == pytest.approx(wanted, rel=0.05)
    now += 60  # nothing comes any more
    assert row.left() > 2 * wanted  # type: ignore[operator]


def test_what_was_done_at_the_first_call_is_no_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    row = Row("queries")
    row.update(90, 100)
    now = 4.0
    assert row.rate() is None
    row.update(92, 100)
    assert row.left() == pytest.approx(16)


@terminal
def test_a_bar_shows_count_and_step_and_is_gone_at_the_end(seen: Screen) -> None:
    with console.steps(quiet=False) as advance:
        advance("recipe zlap", 1, 5)
        tell("refine: zlap", 2, 9)
        time.sleep(0.25)
    text = seen.getvalue()
    assert "recipe zlap" in text
    assert "1 of 5" in text
    assert "refine: zlap" in text
    assert "2 of 9" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l"), "the cursor is back"
    assert "of" not in text[text.rindex("\x1b[1A\x1b[2K") :], "what was drawn is wiped out"


@terminal
def test_when_the_parts_are_done_the_whole_is_shown_again(seen: Screen) -> None:
    with console.working(quiet=False):
        tell("refine: zlap")
        list(counted("neighbours", range(3)))
        seen.truncate(0)
        time.sleep(0.25)
        assert "refine: zlap" in seen.getvalue()
        assert "neighbours" not in seen.getvalue()


@terminal
def test_others_may_draw_while_nothing_is_shown(seen: Screen) -> None:
    with console.working(quiet=False):
        tell("load the encoder")
        assert seen.getvalue()
        tell("")
        before = seen.getvalue()
        time.sleep(0.25)
        assert seen.getvalue() == before
        assert bars_are_welcome()


@terminal
def test_names_in_a_step_are_inert(seen: Screen) -> None:
    with console.steps(quiet=False) as advance:
        advance("[red]\x1b]0;owned\x07", 0, 1)
        time.sleep(0.25)
    assert "[red]" in seen.getvalue()
    assert "\x1b]0;" not in seen.getvalue()


@log
def test_a_log_gets_a_line_now_and_then_and_no_bar(
    seen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bars, "EVERY", 0.05)
    with console.progress_bar(console.Counter(), 40, quiet=False) as advance:
        advance(10, False)
        tell("deep inside")
        assert not bars_are_welcome()
        deadline = time.monotonic() + 10
        while "so far" not in seen.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)
    lines = seen.getvalue().splitlines()
    assert lines[0].startswith("images: 10 of 40, 0:00 so far; deep inside: 0:00 so far")
    assert "\x1b[?25l" not in seen.getvalue()
    count = len(lines)
    time.sleep(0.2)
    assert len(seen.getvalue().splitlines()) <= count + 1, "the lines end with the work"


@log
def test_short_work_says_nothing_in_a_log(seen: Screen) -> None:
    with console.steps(quiet=False) as advance:
        advance("names", 0, 2)
        tell("names", 1, 2)
    assert not seen.getvalue()


@pytest.mark.parametrize("seen", [True, False], indirect=True)
def test_quiet_is_quiet(seen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bars, "EVERY", 0.02)
    with console.steps(quiet=True) as advance, console.working(quiet=True):
        advance("names", 0, 2)
        tell("names", 1, 2)
        assert not bars_are_welcome()
        time.sleep(0.1)
    with console.text_progress(quiet=True) as texts, console.query_progress(quiet=True) as queries:
        texts(1, 2)
        queries(1, 2)
    assert not seen.getvalue()


@terminal
def test_an_interrupt_leaves_the_terminal_as_it_was(seen: Screen) -> None:
    def work() -> None:
        with console.steps(quiet=False) as advance:
            advance("names", 0, 2)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert seen.getvalue().rindex("\x1b[?25h") > seen.getvalue().rindex("\x1b[?25l")


def test_nobody_listens_to_a_library() -> None:
    heard: list[Any] = []
    tell("before")
    with listening(lambda *told: heard.append(told), bars=False):
        assert list(counted("letters", iter("ab"))) == ["a", "b"]
        assert not bars_are_welcome()
    tell("after")
    assert heard == [("letters", 0, None), ("letters", 1, None), ("letters", 2, 2)]
    assert bars_are_welcome()


def test_the_farewell_says_what_is_kept_and_how_to_go_on() -> None:
    command = ["byname", "classify", "my photos", "--llm-url", "http://me:secret@host/v1"]
    try:
        with console.progress_bar(console.Counter(), 2, quiet=True) as advance:
            advance(1, True)
        with console.query_progress(quiet=True):
            pass
        told = console.farewell(command)
        assert told.startswith("stopped; finished images are kept and what was answered is kept;")
        assert "go on: byname classify 'my photos' --llm-url" in told
        assert "secret" not in told
        with console.progress_bar(console.Counter(), 2, quiet=True, cache=False) as advance:
            advance(2, True)
        assert "kept" not in console.farewell(command), "their vectors are gone with the run"
    finally:
        console.keep(None)


def test_the_long_steps_tell_how_far_they_are() -> None:
    heard: dict[str, list[tuple[int, int | None]]] = {}
    rng = np.random.default_rng(0)
    X = unit(rng.normal(size=(5000, 8)).astype(np.float32))
    texts = ClassTexts(X[:3], np.arange(3), Taxonomy.from_names(["cat", "dog", "hen"]))

    def listener(what: str, done: int, total: int | None) -> None:
        heard.setdefault(what, []).append((done, total))

    with listening(listener):
        pipeline = Pipeline(get_recipe("plain")).fit(texts)
        pipeline.scores(Batch(X), block=2000)
        knn.nearest(X, 3)
        bootstrap.bootstrap(lambda weights: weights.sum(axis=0), 5000, draws=1000)
    assert heard["weigh the texts: mean"] == [(0, None)]
    assert heard["images scored"] == [(0, 5000), (2000, 5000), (4000, 5000)]
    tiles = heard["nearest neighbours, blocks"]
    assert tiles == [(i, 6) for i in range(7)], "of three by three, those above the diagonal"
    draws = [done for done, _ in heard["draws for the intervals"]]
    assert draws[0] == 0
    assert draws[-1] == 1000
    assert draws == sorted(draws)


def test_a_hub_draws_no_bars_where_ours_are_not_wanted() -> None:
    tqdm = pytest.importorskip("huggingface_hub.utils.tqdm")
    before = tqdm.are_progress_bars_disabled()
    with console.working(quiet=True), hub._bars():
        assert tqdm.are_progress_bars_disabled()
    assert tqdm.are_progress_bars_disabled() == before
    with hub._bars():
        assert tqdm.are_progress_bars_disabled() == before, "a library leaves them as they are"

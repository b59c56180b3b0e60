"""The plots of a report: inline, without style, script or address, and readable in the dark."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from typing import Any
from xml.etree import ElementTree

import pytest

from byname.report.plots import INKS, draw
from tests.report.made_up import HOSTILE, made_up


@pytest.fixture(scope="module")
def plots() -> dict[str, str]:
    pytest.importorskip("matplotlib", reason="plots need pip install 'byname[report]'")
    return draw(made_up(30, 5, name=lambda kind, i: HOSTILE[i % len(HOSTILE)], groups=3))


def test_what_is_drawn(plots: dict[str, str]) -> None:
    assert list(plots) == ["classes", "shares", "truth", "heights"]


def test_what_is_drawn_of_less() -> None:
    pytest.importorskip("matplotlib", reason="plots need pip install 'byname[report]'")
    assert list(draw(made_up(30, 0, labelled=False))) == ["classes", "shares", "heights"]
    assert draw(made_up(1, 1)) == {}
    assert "truth" in draw(made_up(2, 0))


def test_nothing_but_shapes_and_own_words(plots: dict[str, str]) -> None:
    for name, svg in plots.items():
        root = ElementTree.fromstring(svg)
        tags = {node.tag for node in root.iter()}
        assert tags <= {"svg", "g", "path", "defs", "use", "clipPath", "rect", "text"}, name
        assert "style=" not in svg
        assert "http" not in svg
        assert "window" not in svg
        words = [str(node.text) for node in root.iter("text")]
        assert words, name  # text is text, not paths
        assert all(re.fullmatch(r"[\w ().%−-]+", word) for word in words), words
        assert root.get("role") == "img"
        assert root.get("aria-label")


def test_colours_are_left_to_the_page(plots: dict[str, str]) -> None:
    for name, svg in plots.items():
        assert not re.search(r'(fill|stroke)="#', svg), name
        assert not any(ink in svg for ink in INKS), name
        assert re.search(r'class="[^"]*(fill|stroke)-one', svg), name


def test_ids_clash_in_no_page(plots: dict[str, str]) -> None:
    together = "".join(plots.values())
    ids = re.findall(r'\bid="([^"]+)"', together)
    assert ids
    assert len(ids) == len(set(ids))
    used = re.findall(r'(?:href="|url\()#([^")]+)', together)
    assert used
    assert set(used) <= set(ids)


def test_same_report_same_plots(plots: dict[str, str]) -> None:
    again = draw(made_up(30, 5, name=lambda kind, i: HOSTILE[i % len(HOSTILE)], groups=3))
    assert again == plots


def test_the_users_settings_neither_matter_nor_change(plots: dict[str, str]) -> None:
    matplotlib = importlib.import_module("matplotlib")
    with matplotlib.rc_context({"font.size": 30, "svg.fonttype": "path"}):
        before = dict(matplotlib.rcParams)
        again = draw(made_up(30, 5, name=lambda kind, i: HOSTILE[i % len(HOSTILE)], groups=3))
        assert dict(matplotlib.rcParams) == before
    assert again == plots


def test_a_thousand_classes_stay_small() -> None:
    pytest.importorskip("matplotlib", reason="plots need pip install 'byname[report]'")
    assert sum(map(len, draw(made_up(1000, 0, texts=1)).values())) < 500_000
    assert sum(map(len, draw(made_up(5000, 0, texts=1)).values())) < 1_000_000


def test_without_matplotlib_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str, *rest: Any) -> Any:
        raise ImportError(name)

    monkeypatch.setattr("byname.report.plots.importlib.import_module", missing)
    assert draw(made_up(5, 1)) == {}


def test_matplotlib_waits_until_it_is_needed() -> None:
    code = "import sys, byname.report.page; print('matplotlib' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"


def test_a_thousand_heights_are_lines_and_quick() -> None:
    pytest.importorskip("matplotlib", reason="plots need pip install 'byname[report]'")
    report = made_up(5, 2)
    report["heights"] = [
        {"height": h + 1, "expected_share": 0.001, "true_share": 0.0005} for h in range(1500)
    ]
    svg = draw(report)["heights"]
    assert len(svg) < 200_000
    assert svg.count("<text") < 30
    assert "expected" in svg

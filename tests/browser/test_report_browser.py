"""The page of a report in a real browser: quiet, reachable, readable, and harmless."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from byname.report.page import page
from byname.report.schema import Report
from tests.report.made_up import HOSTILE, made_up

pytestmark = pytest.mark.slow
DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
Open = Callable[..., Any]


def hostile(kind: str, i: int) -> str:
    return HOSTILE[(i + len(kind)) % len(HOSTILE)]


def with_pictures(report: Report) -> Report:
    for i, one in enumerate(report["images"]):
        out = io.BytesIO()
        Image.new("RGB", (32, 24), (i * 7 % 255, 90, 140)).save(out, "JPEG")
        code = base64.b64encode(out.getvalue()).decode()
        one["thumbnail"] = f"data:image/jpeg;base64,{code}"
    return report


@pytest.fixture(scope="module")
def tame(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tame") / "report.html"
    path.write_text(page(with_pictures(made_up(60, 40, groups=6))), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bad") / "report.html"
    made = page(with_pictures(made_up(40, 30, name=hostile, groups=3)))
    path.write_text(made, encoding="utf-8")
    return path


@pytest.fixture
def opened(browser: Any) -> Iterator[Open]:
    """Opens a file; afterwards there were no message, no error and no request but for the file."""
    seen: list[str] = []
    contexts: list[Any] = []

    def start(path: Path, **options: Any) -> Any:
        context = browser.new_context(**({"viewport": DESK, "offline": True} | options))
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: seen.append(f"console: {message.text}"))
        tab.on("pageerror", lambda error: seen.append(f"error: {error}"))
        tab.on("dialog", lambda dialog: seen.append(f"dialog: {dialog.message}"))
        tab.on("popup", lambda popup: seen.append(f"popup: {popup.url}"))
        allowed = (path.as_uri(), "data:")
        tab.on(
            "request",
            lambda asked: None if asked.url.startswith(allowed) else seen.append(asked.url),
        )
        tab.goto(path.as_uri())
        return tab

    yield start
    for context in contexts:
        context.close()
    assert seen == []


def active(tab: Any) -> str:
    return str(tab.evaluate("document.activeElement.outerHTML.slice(0, 200)"))


def tab_to(tab: Any, test: str, most: int = 400) -> None:
    """Press Tab until the element in focus passes; fails where that never happens."""
    for _ in range(most):
        tab.keyboard.press("Tab")
        if tab.evaluate(f"(e => Boolean({test}))(document.activeElement)"):
            return
    pytest.fail(f"the keyboard does not reach {test}; it ended at {active(tab)}")


def test_every_dialog_opens_and_nothing_is_asked_or_said(opened: Open, tame: Path) -> None:
    tab = opened(tame)
    assert tab.title().endswith("byname report")
    for link in ("#gallery a", "#table tbody a", ".finding a", ".card h3 a", "#confusions td a"):
        tab.locator(link).first.click()
        assert tab.locator("#dialog").is_visible(), link
        tab.keyboard.press("Escape")
    tab.locator("#gallery a").first.click()
    text = tab.locator("#dialog").inner_text()
    for words in ("Why this label", "Why not", "Most probable classes", "True class"):
        assert words in text
    assert tab.evaluate("document.querySelector('#dialog img').naturalWidth") == 32


def test_pictures_that_come_twice_are_shown_twice(opened: Open, tame: Path) -> None:
    tab = opened(tame)
    again = "[...document.querySelectorAll('img[data-again]')]"
    widths = tab.evaluate(f"{again}.map(one => one.naturalWidth)")
    assert len(widths) > 10
    assert set(widths) == {32}


@pytest.mark.parametrize("javascript", [True, False])
def test_hostile_report_runs_nothing(opened: Open, bad: Path, javascript: bool) -> None:
    tab = opened(bad, java_script_enabled=javascript)
    if not javascript:
        assert tab.locator("#table tbody tr").count() == 40
        assert tab.locator("h2").first.is_visible()
        return
    for place in range(15):
        for link in ("#gallery a", "#table tbody th a"):
            tab.evaluate("([what, i]) => document.querySelectorAll(what)[i].click()", [link, place])
            tab.evaluate("document.querySelector('#dialog').close()")
    tab.mouse.move(300, 300)
    assert tab.evaluate("window.hacked === undefined")
    assert tab.evaluate("Object.prototype.name === undefined")
    assert tab.locator("main script, main style, main iframe").count() == 0
    assert tab.evaluate("getComputedStyle(document.querySelector('main')).display") == "block"


def test_the_policy_stops_what_got_in(opened: Open, tame: Path, browser: Any) -> None:
    context = browser.new_context(offline=True)
    tab = context.new_page()
    tab.goto(tame.as_uri())
    blocked = tab.evaluate(
        """() => {
        const made = document.createElement('div');
        try { made.innerHTML = '<img src=x onerror=window.hacked=1>'; } catch (e) { return e.name; }
        return 'allowed';
        }"""
    )
    context.close()
    assert blocked == "TypeError"


@pytest.mark.parametrize(("scheme", "size"), [("light", DESK), ("dark", PHONE)])
def test_axe_finds_nothing_serious(
    opened: Open, tame: Path, scheme: str, size: dict[str, int]
) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="needs pip install 'byname[browser]'"
    )
    # axe itself is a script that the policy of the page would not let in
    tab = opened(tame, viewport=size, color_scheme=scheme, bypass_csp=True)
    tab.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    for link in (None, "#gallery a", "#table tbody th a"):
        if link:
            tab.evaluate("what => document.querySelector(what).click()", link)
        found = axe.Axe().run(tab).response["violations"]
        serious = [
            (one["id"], one["nodes"][0]["html"][:120], one["nodes"][0]["failureSummary"][:200])
            for one in found
            if one["impact"] in ("serious", "critical")
        ]
        assert serious == []
        tab.evaluate("document.querySelector('#dialog').close()")


def test_keyboard_reaches_tree_and_dialog(opened: Open, tame: Path) -> None:
    tab = opened(tame)
    tab.keyboard.press("Tab")
    assert "Skip to the report" in active(tab)
    tab_to(tab, "e.tagName === 'SUMMARY' && e.closest('#tree') && !e.parentElement.open")
    style = tab.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert style != "none"
    tab.keyboard.press("Enter")
    assert tab.evaluate("document.activeElement.parentElement.open")
    tab_to(tab, "e.matches('.leaf a')")
    tab.keyboard.press("Enter")
    assert tab.locator("#dialog").is_visible()
    assert tab.evaluate("document.activeElement.closest('#dialog') !== null")
    tab_to(tab, "e.matches('#dialog-body a[data-image]')")
    tab.keyboard.press("Enter")
    assert "Why this label" in tab.locator("#dialog").inner_text()
    tab.keyboard.press("Shift+Tab")
    tab_to(tab, "e.id === 'dialog-back'")
    tab.keyboard.press("Enter")
    assert "Closest classes" in tab.locator("#dialog").inner_text()
    tab.keyboard.press("Escape")
    assert not tab.locator("#dialog").is_visible()
    assert tab.evaluate("document.activeElement.matches('.leaf a')")  # where one came from


@pytest.mark.parametrize("name", ["tame", "bad"])
@pytest.mark.parametrize("width", [320, 390, 768])
def test_no_sideways_scrolling(
    opened: Open, request: pytest.FixtureRequest, name: str, width: int
) -> None:
    tab = opened(request.getfixturevalue(name), viewport={"width": width, "height": 844})
    tab.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    tab.evaluate("document.querySelector('#gallery a').click()")
    inside = tab.evaluate("(d => d.scrollWidth - d.clientWidth)(document.querySelector('#dialog'))")
    assert inside <= 0


def test_table_sorts_and_filters(opened: Open, tame: Path) -> None:
    tab = opened(tame)
    tab.get_by_role("button", name="CMM").click()
    rows = "[...document.querySelectorAll('#table tbody tr')]"
    values = tab.evaluate(f"{rows}.map(row => row.cells[5].dataset.v)")
    known = [float(value) for value in values if value]
    assert known == sorted(known)
    assert values[len(known) :] == [""] * 6  # what is not known comes last
    tab.get_by_role("button", name="Class", exact=True).click()
    tab.get_by_role("button", name="Class", exact=True).click()
    assert tab.locator("#table tbody tr").first.inner_text().startswith("class 59")
    assert tab.locator("#table thead th").first.get_attribute("aria-sort") == "descending"
    tab.locator("#filter-text").fill("CLASS 1")
    assert tab.locator("#table tbody tr:visible").count() == 11
    assert tab.locator("#filter-count").inner_text() == "11 of 60 classes"
    tab.locator("#filter-flag").select_option("weak")
    assert tab.locator("#table tbody tr:visible").count() == 6


def test_gallery_filters(opened: Open, tame: Path) -> None:
    tab = opened(tame)
    tab.locator("#gallery-reason").select_option("typical")
    assert tab.locator("#gallery > li:visible").count() == 20
    tab.locator("#gallery-truth").select_option("right")
    assert tab.locator("#gallery > li:visible").count() == 0
    tab.locator("#gallery-reason").select_option("")
    assert tab.locator("#gallery > li:visible").count() == 1


def test_theme_follows_the_system_and_the_button(opened: Open, tame: Path) -> None:
    tab = opened(tame, color_scheme="dark")
    colour = "getComputedStyle(document.body).backgroundColor"
    dark = tab.evaluate(colour)
    tab.locator("#theme").click()
    assert tab.locator("#theme").inner_text() == "Theme: light"
    light = tab.evaluate(colour)
    assert light != dark
    tab.reload()
    assert tab.evaluate(colour) == light
    tab.emulate_media(media="print", color_scheme="dark")
    assert tab.evaluate(colour) == "rgb(255, 255, 255)"


def test_print_opens_what_is_closed_and_closes_it_again(opened: Open, tame: Path) -> None:
    tab = opened(tame)
    shut = tab.locator("details:not([open])").count()
    assert shut > 5
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert tab.locator("details:not([open])").count() == 0
    tab.evaluate("dispatchEvent(new Event('afterprint'))")
    assert tab.locator("details:not([open])").count() == shut
    assert len(tab.pdf(format="A4")) > 20_000


def test_commands_can_be_copied(opened: Open, tame: Path) -> None:
    tab = opened(tame, permissions=["clipboard-read", "clipboard-write"])
    button = tab.locator(".finding .copy").first
    button.click()
    tab.get_by_text("Copied").first.wait_for()
    assert tab.evaluate("navigator.clipboard.readText()") == "next 0"


def test_motion_is_left_out_where_it_is_not_wanted(opened: Open, tame: Path) -> None:
    how = "getComputedStyle(document.documentElement).scrollBehavior"
    assert opened(tame, reduced_motion="reduce").evaluate(how) == "auto"
    assert opened(tame, reduced_motion="no-preference").evaluate(how) == "smooth"


def test_without_scripts_it_can_be_read(opened: Open, tame: Path) -> None:
    tab = opened(tame, java_script_enabled=False)
    assert tab.locator("#table tbody tr:visible").count() == 60
    assert tab.locator(".js:visible").count() == 0
    assert tab.locator("#theme").is_hidden()
    tab.locator(".finding a").first.click()
    assert tab.url.endswith("#c-0")

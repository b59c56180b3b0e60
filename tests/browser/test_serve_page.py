"""What the page of ``byname serve`` says of its numbers, and how its parts are reached."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser import served
from tests.browser.served import Show, Start, files, names, upload

pytestmark = pytest.mark.slow
start, show = served.start, served.show  # fixtures


def test_an_old_number_never_stands_under_a_new_recipe(start: Start, show: Show) -> None:
    from playwright.sync_api import expect

    page = show(start("--classes", "orange,lime"))
    upload(page, files(), 4)
    page.select_option("#recipe-1", "ensemble")
    expect(page.locator("#expected-1")).to_contain_text("%")
    held: list[Any] = []
    page.route("**/api/score", lambda route: held.append(route))
    with page.expect_request("**/api/score"):
        page.select_option("#recipe-0", "cpe")
    assert page.locator("#expected-0").inner_text() == ""
    assert page.locator("body").get_attribute("data-old") == ""
    assert page.locator("#verdict-differ").is_hidden()
    held[0].continue_()
    expect(page.locator("#expected-0")).to_contain_text("%")
    assert page.locator("body").get_attribute("data-old") is None
    with page.expect_request("**/api/score"):  # a name: soon, but not for a fast answer
        page.locator("#names input").first.fill("pear")
    expect(page.locator("body")).to_have_attribute("data-old", "")
    held[1].continue_()
    expect(page.locator("body")).not_to_have_attribute("data-old", "")


def test_a_wording_without_a_place_for_the_name_is_not_sent(start: Start, show: Show) -> None:
    from playwright.sync_api import expect

    page = show(start("--classes", "orange,lime"))
    upload(page, files(), 4)
    sent: list[str] = []
    page.on("request", lambda r: sent.append(r.post_data or "") if "score" in r.url else None)
    page.click(".wording summary")
    page.fill("#template", "a photo")
    expect(page.locator("#template-help")).to_contain_text("must hold {} once")
    page.locator("#names input").first.fill("pear")
    expect(page.locator(".lines .label").filter(has_text="pear").first).to_be_visible()
    page.fill("#template", "a drawing of a {}")
    page.wait_for_timeout(600)
    assert not any('"a photo"' in body for body in sent)
    assert any('"a drawing of a {}"' in body for body in sent)
    assert page.locator("#template").get_attribute("aria-invalid") is None


def test_what_came_before_an_error_in_an_upload_is_counted(start: Start, show: Show) -> None:
    from playwright.sync_api import expect

    page = show(start("--classes", "orange,lime"))
    page.locator("#welcome").wait_for()
    error = {"asked": "take the images", "seen": "it is larger than 1 MB", "do": ""}
    answer = {
        "error": error,
        "added": [{"id": "i0", "name": "ball-orange.jpg"}],
        "refused": [{"name": "ball-green.jpg", "error": "not an image"}],
    }
    status = 400  # a browser complains of it in the console, which is no trouble here
    page.evaluate(
        """([answer, status]) => { const real = window.fetch; window.fetch = (path, how) =>
        path === "/api/images" ? Promise.resolve(new Response(JSON.stringify(answer), {status}))
        : real(path, how); }""",
        [answer, status],
    )
    page.set_input_files("#files", files())
    expect(page.locator("#refused-title")).to_have_text("3 files not taken")
    expect(page.locator("#refused-list li").first).to_contain_text("not an image")
    expect(page.locator("#said")).to_contain_text("1 photo added, 3 not taken")


def test_the_class_list_is_one_tab_stop(start: Start, show: Show) -> None:
    from playwright.sync_api import expect

    page = show(start("--classes", "orange,lime,pear,plum"))
    upload(page, files(), 4)
    own = (
        "() => [...document.querySelectorAll('#names [tabindex=\"0\"]')].map(n => n.closest('li'))"
    )
    fields = page.locator("#names input")
    assert page.evaluate(f"new Set(({own})()).size") == 1
    fields.first.focus()
    page.keyboard.press("ArrowDown")
    expect(fields.nth(1)).to_be_focused()
    assert page.evaluate(f"({own})().every(li => li === document.activeElement.closest('li'))")
    for _ in range(3):  # over the buttons of this class, and out of the list
        page.keyboard.press("Tab")
        if page.evaluate("!document.activeElement.closest('#names')"):
            break
    assert page.evaluate("!document.activeElement.closest('#names')")
    fields.nth(1).focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "gone"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Delete")
    expect(fields).to_have_count(3)
    assert names(page) == ["orange", "lime", "plum"]
    expect(fields.nth(2)).to_be_focused()
    fields.nth(2).fill("")
    page.keyboard.press("Delete")
    assert names(page) == ["orange", "lime"]


@pytest.mark.parametrize("width", [1280, 390])
def test_names_and_numbers_are_not_cut(start: Start, show: Show, width: int) -> None:
    page = show(start("--classes", "Arla Mild Vanilla Yoghurt,Royal Gala Apple Bag"), width=width)
    upload(page, files(), 4)
    page.select_option("#recipe-1", "ensemble")
    page.locator("#expected-1 .small").wait_for()
    cut = """() => [...document.querySelectorAll(".lines .label, .verdict > .big, .idea")]
    .filter(n => n.offsetParent)
    .filter(n => n.scrollWidth > n.clientWidth || n.scrollHeight > n.clientHeight + 1)
    .map(n => n.textContent)"""
    assert page.evaluate(cut) == []
    over = """() => [...document.querySelectorAll(".card .body")]
    .filter(n => n.scrollHeight > n.clientHeight).length"""
    assert page.evaluate(over) == 0

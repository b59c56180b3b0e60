"""``byname serve`` as a person uses it: a real server, a real browser, every feature once."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.browser import served
from tests.browser.served import HOSTILE, Show, Start, files, names, photo, upload

pytestmark = pytest.mark.slow
start, show = served.start, served.show  # fixtures


def test_from_upload_to_exported_corrections(start: Start, show: Show) -> None:
    from playwright.sync_api import expect

    page = show(start("--classes", "orange,lime"))
    assert "token" not in page.url
    page.locator("#welcome").wait_for()
    given = files()
    given.append({"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no photo"})
    upload(page, given, 4)
    expect(page.locator("#refused-title")).to_have_text("1 file not taken")
    expect(page.locator("#refused-list li")).to_contain_text("notes.txt")

    # A name is edited in place: scores follow, focus stays where it is.
    before = page.locator(".card").first.get_attribute("data-place")
    field = page.locator("#names input").nth(1)
    field.fill("green box")
    labels = page.locator(".lines .label")
    expect(labels.filter(has_text="green box").first).to_be_visible()
    assert field.evaluate("node => node === document.activeElement")
    assert before == "0"
    page.fill("#new-name", "traffic light")
    page.keyboard.press("Enter")
    expect(labels.filter(has_text="traffic light").first).to_be_visible()
    page.get_by_role("button", name="Remove class traffic light").click()
    expect(labels.filter(has_text="traffic light")).to_have_count(0)

    page.click("#paste-names")
    page.fill("#paste-text", "orange\ngreen box\ntennis ball")
    page.get_by_role("button", name="Replace all classes").click()
    expect(labels.filter(has_text="tennis ball").first).to_be_visible()
    assert names(page) == ["orange", "green box", "tennis ball"]

    # Two recipes side by side, then only what differs.
    page.select_option("#recipe-0", "ensemble")
    page.select_option("#recipe-1", "plain")
    expect(page.locator(".card").first.locator(".answer")).to_have_count(2)
    expect(page.locator("#expected-1")).to_contain_text("%")
    expect(page.locator("#idea-0")).to_contain_text("80 templates")
    expect(page.locator("#notes")).to_contain_text("do not compare those of different recipes")
    size = "node => parseFloat(getComputedStyle(node).fontSize)"
    assert page.locator("#differ").evaluate(size) > page.locator("#expected-0").evaluate(size)
    lacking = page.locator("#recipe-1 option[value='cupl']")
    assert lacking.is_disabled()
    assert "LLM" in lacking.inner_text()
    differ = page.locator("[data-differ]").count()
    page.check("#only-differ")
    expect(page.locator("#shown")).to_contain_text(f"{differ} of 4 photos")
    expect(page.locator(".card")).to_have_count(differ)
    page.uncheck("#only-differ")
    page.select_option("#recipe-1", "")

    # Corrections with the keyboard alone.
    page.get_by_label("By file name").check()
    first = page.locator(".card[data-place='0']")
    expect(first.locator(".file")).to_have_text("ball-green.jpg")
    second_choice = first.locator(".answer .label").nth(1).inner_text()
    predicted = first.locator(".answer .label").nth(0).inner_text()
    first.locator(".body").focus()
    page.keyboard.press("2")
    expect(first.locator(".tag")).to_contain_text(second_choice)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("1")
    page.keyboard.press("0")
    expect(page.locator("#corrections")).to_have_text("1")
    page.keyboard.press("Enter")
    expect(page.locator("#viewer-title")).to_have_text("ball-orange.jpg")
    expect(page.locator("#why .piece").first).to_be_visible()
    expect(page.locator("#why .ahead")).to_have_text(
        re.compile(r"is ahead of .+ by \d+\.\d\d: score")
    )
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#viewer-title")).to_have_text("ball-green.jpg")
    page.keyboard.press("Escape")
    expect(first.locator(".body")).to_be_focused()

    with page.expect_download() as download:
        page.click("#export")
    assert download.value.suggested_filename == "corrections.csv"
    rows = list(csv.DictReader(io.StringIO(Path(download.value.path()).read_text("utf-8-sig"))))
    assert [(r["file_name"], r["label"]) for r in rows] == [("ball-green.jpg", second_choice)]
    assert rows[0]["class_id"] == second_choice.replace(" ", "-") != rows[0]["predicted_class_id"]
    assert rows[0]["predicted_class_id"] == predicted.replace(" ", "-")
    with page.expect_download(timeout=60_000) as download:
        page.click("#save-report")
    assert "byname report" in Path(download.value.path()).read_text("utf-8")

    # A reload keeps everything: it lives in the server.
    page.reload()
    expect(page.locator("#corrections")).to_have_text("1")
    assert names(page) == ["orange", "green box", "tennis ball"]


def test_hostile_names_stay_text(start: Start, show: Show) -> None:
    from playwright.sync_api import expect

    page = show(start("--classes", "orange,lime"))
    bad = {"name": f"{HOSTILE}.jpg", "mimeType": "image/jpeg", "buffer": photo("red", "box")}
    page.set_input_files("#files", [*files(), bad])
    page.locator(".card[aria-setsize='5']").nth(4).wait_for(state="attached")
    page.locator("#names input").first.fill(HOSTILE)
    expect(page.locator(".lines .label").filter(has_text=HOSTILE).first).to_be_visible()
    expect(page.locator(".file").filter(has_text="onerror=window.hit").first).to_be_visible()
    page.locator(".photo").first.click()
    expect(page.locator("#why").get_by_text(HOSTILE).first).to_be_visible()
    assert page.locator("#right-class option").filter(has_text=HOSTILE).count() == 1
    assert page.evaluate("window.hit") is None
    assert page.locator("img[src='x'], [onerror]").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing_serious(start: Start, show: Show, scheme: str, width: int) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe")
    page = show(start("--classes", "orange,lime,tennis ball"), width=width, scheme=scheme)

    def serious(where: str) -> list[str]:
        found = axe.Axe().run(page).response["violations"]
        return [
            f"{where}: {v['id']}: {v['nodes'][0]['html'][:200]}"
            for v in found
            if v["impact"] in ("serious", "critical")
        ]

    page.locator("#welcome").wait_for()
    issues = serious("empty")
    given = files()
    given.append({"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no photo"})
    upload(page, given, 4)
    page.select_option("#recipe-1", index=1)
    page.locator("#expected-1 .small").wait_for()
    page.locator(".card .body").first.focus()
    page.keyboard.press("2")
    page.locator(".tag:visible").first.wait_for()
    page.wait_for_timeout(400)  # the message fades in: half-seen text has less contrast
    issues += serious("photos")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.keyboard.press("Enter")
    page.locator("#why .piece").first.wait_for()
    page.wait_for_timeout(4000)  # and fades out
    issues += serious("viewer")
    page.keyboard.press("Escape")
    if width < 700:
        page.click("[data-go=names]")
        issues += serious("classes")
    assert issues == []


def test_ten_thousand_photos_are_a_few_cards(start: Start, show: Show) -> None:
    from playwright.sync_api import expect

    page = show(start("--classes", "orange,lime"))
    page.locator("#welcome").wait_for()
    upload(page, files()[:1], 1)
    many = 10_000

    def answer(route: Any) -> None:
        asked = json.loads(route.request.post_data)
        places = range(asked["offset"], min(many, asked["offset"] + asked["limit"]))
        one = {"class_id": "lime", "label": "lime", "probability": 0.6, "margin": 0.2}
        made = [
            {
                "image": f"i{place}",
                "name": f"{place:05}.jpg",
                "answers": [{**one, "decision": "accept"}],
                "top": [["lime", 0.6], ["orange", 0.4]],
                "corrected": None,
            }
            for place in places
        ]
        classes = [{"id": n, "name": n, "n": 1, "expected_accuracy": 0.5, "flag": ""}
                   for n in ("orange", "lime")]  # fmt: skip
        run = {"recipe": "plain", "expected_accuracy": 0.5, "interval": None, "classes": classes}
        route.fulfill(json={"seconds": 0.1, "runs": [run], "total": many, "rows": made})

    page.route("**/api/score", answer)
    page.route("**/api/thumb/*", lambda route: route.fulfill(body=photo("red", "box")))
    page.get_by_label("By file name").check()
    expect(page.locator(".card[aria-setsize='10000']").first).to_be_visible()
    page.locator(".card .body").first.focus()
    page.keyboard.press("End")
    last = page.locator(".card[aria-posinset='10000']")
    expect(last.locator(".file")).to_have_text("09999.jpg")
    expect(last.locator(".body")).to_be_focused()
    assert page.locator(".card").count() < 100
    page.keyboard.press("ArrowUp")
    expect(page.locator(".card .body:focus")).to_have_attribute("aria-label", re.compile("^0999"))


def test_an_old_answer_never_overwrites_a_new_one(start: Start, show: Show) -> None:
    from playwright.sync_api import expect

    page = show(start("--classes", "orange,lime"))
    upload(page, files(), 4)
    held: list[Any] = []

    def hold(route: Any) -> None:
        if "old name" in route.request.post_data:
            held.append(route)
        else:
            route.continue_()

    page.route("**/api/score", hold)
    field = page.locator("#names input").first
    with page.expect_request("**/api/score"):
        field.fill("old name")
    field.fill("new name")
    expect(page.locator(".lines .label").filter(has_text="new name").first).to_be_visible()
    held[0].abort()  # the page gave it up long ago
    page.wait_for_timeout(300)
    assert page.locator(".lines .label").filter(has_text="old name").count() == 0
    assert page.locator("#trouble").is_hidden()


def test_without_the_token_the_page_says_what_to_do(start: Start, chromium: Any) -> None:
    address = start("--classes", "orange,lime")
    context = chromium.new_context()
    page = context.new_page()
    page.goto(address.split("?")[0])
    page.locator("#trouble-text").wait_for()
    assert "Open the address that byname serve printed" in page.locator("#trouble").inner_text()
    context.close()

"""The page of a report: inert, whole, small, and the same for everybody."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections import Counter
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from byname.report.data import make_report
from byname.report.page import page
from byname.report.view import bar, rows_of, view
from byname.study.subject import Subject
from byname.taskfile import Task
from byname.taxonomy import Taxonomy
from tests.report.made_up import HOSTILE, made_up

EMPTY = {"meta", "img", "input", "br", "link"}
LINK = re.compile(r"#[A-Za-z][\w-]*|data:image/(jpeg|gif);base64,[\w+/=]*")


class Parsed(HTMLParser):
    """All elements with their attributes, all texts, and what was left open."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.inside: dict[str, list[str]] = {"style": [], "script": [], "title": []}
        self.texts: list[str] = []
        self.comments: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in self.inside:
            self.inside[tag].append("")
        # parts of an SVG may end themselves; here they never do
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in self.inside:
            self.inside[self.open[-1]][-1] += data
        else:
            self.texts.append(data)

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.elements if name == tag]


def hostile(kind: str, i: int) -> str:
    return HOSTILE[(i + len(kind)) % len(HOSTILE)]


def shape(parsed: Parsed) -> list[tuple[str, tuple[str, ...]]]:
    """Elements and names of attributes, without what the names of files decide."""
    return [(tag, tuple(attrs)) for tag, attrs in parsed.elements]


@pytest.fixture(scope="module")
def bad() -> str:
    return page(made_up(40, 30, name=hostile, thumbnail=40, groups=3))


def test_hostile_texts_add_no_element_and_no_attribute(bad: str) -> None:
    tame = page(made_up(40, 30, name=lambda kind, i: f"{kind}{i % 20}", thumbnail=40, groups=3))
    allowed = {name for _, attrs in Parsed(tame).elements for name in attrs}
    tags = {tag for tag, _ in Parsed(tame).elements}
    parsed = Parsed(bad)
    assert parsed.open == []
    assert parsed.comments == []
    assert {tag for tag, _ in parsed.elements} == tags
    assert {name for _, attrs in parsed.elements for name in attrs} == allowed
    assert not {name for name in allowed if name.startswith("on") or name in ("style", "srcdoc")}
    counted, expected = Counter(shape(parsed)), Counter(shape(Parsed(tame)))
    for tag in ("script", "style", "title", "svg", "b", "iframe", "object", "base", "form"):
        assert sum(n for (name, _), n in counted.items() if name == tag) == sum(
            n for (name, _), n in expected.items() if name == tag
        ), tag


@pytest.mark.parametrize("text", HOSTILE)
def test_each_hostile_name_is_shown_as_it_is(text: str) -> None:
    made = page(made_up(2, 2, name=lambda kind, i: text))
    shown = " ".join(Parsed(made).texts)
    written = text.replace("\ud800", "?")
    assert written in shown
    data = next(t for t in Parsed(made).inside["script"] if t.startswith('{"classes"'))
    assert json.loads(data)["classes"][0]["name"] == written


def test_template_syntax_is_not_run(bad: str) -> None:
    assert "{{7*7}}" in bad
    made = page(made_up(1, 1, name=lambda kind, i: "{{7*7}}"))
    assert "49" not in "".join(Parsed(made).inside["title"])


def test_the_page_points_nowhere_else(bad: str) -> None:
    parsed = Parsed(bad)
    for tag, attrs in parsed.elements:
        for name in ("src", "href", "action", "poster", "xlink:href", "data", "srcset"):
            if attrs.get(name) is not None and name in attrs:
                assert LINK.fullmatch(str(attrs[name])), (tag, name, attrs[name])
        for name, value in attrs.items():
            if "url(" in (value or "") and name not in ("alt", "data-v"):
                assert re.fullmatch(r"url\(#[\w-]+\)", str(value)), (tag, name, value)
    style = parsed.inside["style"][0]
    assert "url(" not in style
    assert "@import" not in style
    assert not re.search(r"https?:", style)
    own = [text for text in parsed.inside["script"] if not text.startswith('{"classes"')]
    assert len(own) == 2
    for text in own:
        never = r"https?:|innerHTML|insertAdjacent|document\.write|eval\(|fetch\("
        assert not re.search(never, text)


def test_the_policy_allows_exactly_what_is_there(bad: str) -> None:
    parsed = Parsed(bad)
    metas = {m.get("http-equiv"): str(m["content"]) for m in parsed.of("meta") if "content" in m}
    policy = metas["Content-Security-Policy"]
    rules = {rule.split()[0]: rule.split()[1:] for rule in policy.split("; ")}
    assert rules["default-src"] == ["'none'"]
    assert rules["img-src"] == ["data:"]
    scripts = [t for t in parsed.inside["script"] if not t.startswith('{"classes"')]
    assert rules["script-src"] == [_hash(text) for text in scripts]
    assert rules["style-src"] == [_hash(text) for text in parsed.inside["style"]]
    assert "unsafe" not in policy
    kinds = [attrs.get("type") for attrs in parsed.of("script")]
    assert Counter(kinds) == {None: 2, "application/json": 1}


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_policy_comes_before_anything_that_it_rules(bad: str) -> None:
    assert bad.index("Content-Security-Policy") < bad.index("<style") < bad.index("<script")


def test_ids_are_unique_and_links_arrive(bad: str) -> None:
    parsed = Parsed(bad)
    ids = Counter(str(attrs["id"]) for _, attrs in parsed.elements if "id" in attrs)
    assert max(ids.values()) == 1
    for _, attrs in parsed.elements:
        for name in ("href", "aria-labelledby", "for"):
            target = str(attrs.get(name) or "")
            if target and not target.startswith("data:"):
                assert target.removeprefix("#") in ids, target


def test_every_picture_has_words_and_is_in_the_file_once(bad: str) -> None:
    pictures = Parsed(bad).of("img")
    assert len(pictures) > 30
    assert all(one.get("alt") for one in pictures)
    given = [one["src"] for one in pictures if "data-first" in one]
    assert len(given) == len(set(given)) == 30
    again = {one["data-again"] for one in pictures if "data-again" in one}
    assert again <= {one["data-first"] for one in pictures if "data-first" in one}


def test_headings_descend_by_one_and_tables_have_scopes(bad: str) -> None:
    parsed = Parsed(bad)
    levels = [int(tag[1]) for tag, _ in parsed.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))
    assert all(attrs.get("scope") in ("col", "row") for attrs in parsed.of("th"))
    assert parsed.of("html")[0]["lang"] == "en"


def test_data_breaks_out_of_no_script(bad: str) -> None:
    start = bad.index('id="data">') + len('id="data">')
    text = bad[start : bad.index("</script>", start)]
    assert not set(text) & set("<>&\u2028\u2029")
    made = json.loads(text)
    assert len(made["classes"]) == 40
    assert len(made["images"]) == 30


def test_size_of_a_report_of_648_photos() -> None:
    made = page(made_up(81, 400, n_images=648, thumbnail=3600, groups=3))
    assert len(made.encode()) < 3e6


def test_size_of_a_report_of_ten_thousand_images_and_a_thousand_classes() -> None:
    def long(kind: str, i: int) -> str:
        return f"{kind} {i} " + "lorem ipsum dolor " * (8 if kind in ("text", "next") else 1)

    made = page(made_up(1000, 400, n_images=10_000, name=long, thumbnail=4500, groups=40))
    assert 2e6 < len(made.encode()) < 15e6
    assert len(Parsed(made).of("tr")) > 1000


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize(("K", "shown"), [(1, 1), (1, 0), (2, 1), (2, 0), (1000, 5)])
def test_small_and_flat_reports(K: int, shown: int, labelled: bool) -> None:
    made = page(made_up(K, shown, labelled=labelled))
    parsed = Parsed(made)
    assert parsed.open == []
    text = " ".join(parsed.texts)
    assert ("True accuracy" in text) is labelled
    assert ("Why this label" in text) is False
    assert bool(parsed.of("img")) is False
    assert ("images" in {attrs.get("id") for attrs in parsed.of("section")}) is bool(shown)


def test_a_task_of_one_class_and_one_image() -> None:
    task = Task(np.eye(1, 2), np.eye(1, 2)[None], ("a {}",), Taxonomy.from_names(["cat"]))
    made = page(make_report(Subject.of_task(task, "plain")))
    assert "no accuracy can be expected" in made
    assert Parsed(made).open == []


def test_an_answer_that_is_no_class_is_named_and_not_linked() -> None:
    report = made_up(4, 3, groups=2)
    report["images"][0] |= {"class_id": "group0", "label": "a group"}
    made = page(report)
    data = next(t for t in Parsed(made).inside["script"] if t.startswith('{"classes"'))
    assert json.loads(data)["images"][0]["k"] is None
    assert "a group" in made


def test_labels_change_nothing_but_what_is_said_of_them() -> None:
    without, given = (view(made_up(12, 6, labelled=x)) for x in (False, True))
    assert without["order"] == given["order"]
    assert without["cards"] == given["cards"]


def test_the_same_report_is_the_same_page() -> None:
    report = made_up(12, 6, thumbnail=30)
    assert page(report) == page(json.loads(json.dumps(report)))


def test_classes_with_images_come_as_cards_and_the_others_by_name() -> None:
    seen = view(made_up(30, 10))
    assert seen["silent"] == ["id 9", "id 19", "id 29"]
    assert not set(seen["silent"]) & set(seen["cards"])
    assert seen["cards"][0] == "id 1"  # flagged, and the first of the worst


def test_bar_stays_inside() -> None:
    assert bar(1.7, [-0.2, 1.2], 2.0) == {
        "width": 100,
        "low": 0,
        "high": 100,
        "truth": 100,
        "tone": "ok",
    }


def test_rows_end() -> None:
    rows = rows_of({str(i): "x" * 5000 for i in range(500)})
    assert len(rows) == 201
    assert max(len(value) for _, value in rows) < 2100
    deep: Any = 1
    for _ in range(50):
        deep = {"a": deep}
    assert len(rows_of(deep)) == 1


def test_no_plots_says_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("byname.report.page.draw", lambda report: {})
    made = html.unescape(page(made_up(5, 2)))
    assert "pip install 'byname[report]'" in made
    assert "<svg" not in made


def test_a_chain_of_a_hundred_levels() -> None:
    report = made_up(1, 1)
    node = report["tree"]
    for level in range(100):
        node = {**node, "id": f"n{level}", "name": f"level {level}", "children": [node]}
    report["tree"] = node
    parsed = Parsed(page(report))
    assert parsed.open == []
    assert 50 < len(parsed.of("summary")) < 70

"""What the page of a report shows where: orders, links and shortened data, from the dictionary."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from byname.report.schema import ClassReport, NodeReport, Piece, Report

__all__ = ["Bar", "bar", "data", "rows_of", "view"]

CARDS, FIRST = 24, 6  # classes shown with their images; those of them shown at once
PAIRS = 20
TEXTS = 20
SILENT = 200  # classes without an answer that are named; the table has all
FEW, FEW_TEXTS = 8, 5  # thumbnails and texts of a finding that are shown at once
ROWS, LONG = 200, 2000  # of a table of plain values
DEEP = 6
WAY = 8  # groups above a class that are named
WEAK, FAIR = 0.5, 0.75  # below them a bar is red, or amber
Bar = dict[str, Any]


def view(report: Report) -> dict[str, Any]:
    """Everything that the templates need beside the dictionary itself.

    Examples
    --------
    >>> import numpy as np
    >>> from byname.report.data import make_report
    >>> from byname.study.subject import Subject
    >>> from byname.taskfile import Task
    >>> from byname.taxonomy import Taxonomy
    >>> task = Task(np.eye(2), np.eye(2)[None], ("a {}",), Taxonomy.from_names(["cat", "dog"]))
    >>> view(make_report(Subject.of_task(task, "plain")))["place"]
    {'cat': 0, 'dog': 1}
    """
    classes, images = report["classes"], report["images"]
    order = report["worst"] or list(classes)
    shown = [i for i in order if classes[i]["n"]]
    weak = [i for i in shown if classes[i]["flag"]]
    silent = [i for i in order if not classes[i]["n"]] if report["worst"] else []
    image_at = {one["file_name"]: i for i, one in enumerate(images)}
    cards = (weak if len(weak) >= FIRST else shown[: max(len(weak), FIRST)])[:CARDS]
    return {
        "order": order,
        "place": {class_id: k for k, class_id in enumerate(classes)},
        "found_images": [
            [image_at[key] for key in one["images"] if key in image_at]
            for one in report["findings"]
        ],
        "where": _where(report),
        "cards": cards,
        "first": FIRST,
        "weak": len(weak),
        "silent": silent,
        "few": FEW,
        "few_texts": FEW_TEXTS,
        "silent_shown": SILENT,
        "pairs": _pairs(report),
        "hurting": _texts(report, "effect"),
        "deciding": _texts(report, "changes"),
        "labelled": report["summary"]["n_labelled"] is not None,
        "groups": any(one["outcome"] == "above" for one in images),
        "reasons": sorted({reason for one in images for reason in one["about"]}),
        "flags": sorted({one["flag"] for one in classes.values() if one["flag"]}),
        "pictures": any(one["thumbnail"] for one in images),
        "members": {name: rows_of(value) for name, value in report["members"].items()},
        "run": _run(report),
    }


def bar(value: float | None, interval: Any = None, truth: float | None = None) -> Bar:
    """Whole percents of a bar, and its tone.

    Examples
    --------
    >>> bar(0.444, [0.25, 0.7])
    {'width': 44, 'low': 25, 'high': 70, 'truth': None, 'tone': 'bad'}
    """
    tone = "none" if value is None else "bad" if value < WEAK else "mid" if value < FAIR else "ok"
    low, high = (None, None) if interval is None else (_whole(interval[0]), _whole(interval[1]))
    return {
        "width": _whole(value),
        "low": low,
        "high": high,
        "truth": None if truth is None else _whole(truth),
        "tone": tone,
    }


def _whole(share: float | None) -> int:
    return 0 if share is None else min(100, max(0, round(100 * share)))


def _where(report: Report) -> dict[str, str]:
    """Names of what a class lies under, from the root down, without root and class."""
    names: dict[str, str] = {}
    waiting: list[NodeReport] = [report["tree"]]
    while waiting:
        node = waiting.pop()
        names[node["id"]] = node["name"] or node["id"]
        waiting += node["children"]
    root = report["tree"]["id"]
    return {
        class_id: " › ".join(
            names.get(i, i) for i in _ends([i for i in one["path"] if i not in (class_id, root)])
        )
        for class_id, one in report["classes"].items()
    }


def _ends(path: list[str]) -> list[str]:
    """The first and the last of a long way down."""
    return path if len(path) <= WAY else [*path[: WAY // 2], "…", *path[-WAY // 2 :]]


def _pairs(report: Report) -> list[dict[str, Any]]:
    """Confusions that touch most images; of those alike, in the order of the classes."""
    found: list[dict[str, Any]] = []
    for class_id, one in report["classes"].items():
        for pair in one["confusions"]:
            if pair["id"] in report["classes"]:
                true = pair.get("true_share")
                item = {"from": class_id, "share": pair["share"], "true_share": true}
                found.append(item | {"to": pair["id"], "contrast": pair["contrast"], "n": one["n"]})
    found.sort(key=lambda pair: (-pair["share"] * pair["n"], -pair["share"]))
    return found[:PAIRS]


def _texts(report: Report, by: Literal["changes", "effect"]) -> list[dict[str, Any]]:
    """At most twenty texts of all classes: those that change most answers, or those that hurt."""
    found: list[dict[str, Any]] = [
        {"class": class_id, **text, "by": float(value)}
        for class_id, one in report["classes"].items()
        for text in one["texts"]
        if (value := text["changes"] if by == "changes" else text["effect"]) is not None
        and value > 0
        and (by == "changes" or text["hurts"])
    ]
    found.sort(key=lambda text: -text["by"])
    return found[:TEXTS]


def _run(report: Report) -> dict[str, Any]:
    given = dict(report["provenance"])
    command = given.pop("command", None)
    if isinstance(command, list | tuple):
        command = shlex.join(str(word) for word in command)
    date = str(given.get("date") or "")[:16].replace("T", " ")  # to the minute
    return {"command": str(command or ""), "rows": rows_of(given), "date": date}


def rows_of(value: Any) -> list[tuple[str, str]]:
    """Nested values as rows of a name and a text, at most 200.

    Examples
    --------
    >>> rows_of({"a": {"b": 1.5, "c": [1, 2]}, "d": None})
    [('a › b', '1.5'), ('a › c', '1, 2'), ('d', '–')]
    """
    rows: list[tuple[str, str]] = []
    for place, row in enumerate(_walk("", value, 0)):
        if place == ROWS:
            return [*rows, ("…", "more is in the JSON of this report")]
        rows.append(row)
    return rows


def _walk(name: str, value: Any, depth: int) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value and depth < DEEP:
        for key, inner in value.items():
            yield from _walk(f"{name} › {key}" if name else str(key), inner, depth + 1)
    else:
        yield name, _plain(value)


def _plain(value: Any) -> str:
    if value is None or value in ("", [], (), {}):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, list | tuple):
        text = ", ".join(_plain(one) for one in value[:ROWS])
    else:
        text = str(value)
    return text if len(text) <= LONG else text[:LONG] + " …"


def data(report: Report) -> dict[str, Any]:
    """What the dialogs show: classes and images in lists, each known by its place.

    Pictures are left out: the page has each of them once.
    """
    place = {class_id: k for k, class_id in enumerate(report["classes"])}
    where = _where(report)
    return {
        "classes": [
            _class(class_id, where[class_id], one, place)
            for class_id, one in report["classes"].items()
        ],
        "images": [
            {
                "file": one["file_name"],
                "k": place.get(one["class_id"]),
                "label": one["label"],
                "p": _short(one["probability"]),
                "margin": _short(one["margin"]),
                "decision": one["decision"],
                "outcome": one["outcome"],
                "top": [[place[i], _short(p)] for i, p in one["top"] if i in place],
                "why": _pieces(one["why"]),
                "against": place.get(one["against"] or ""),
                "whyNot": _pieces(one["why_not"]),
                "true": None if one["true_id"] is None else place.get(one["true_id"]),
                "about": one["about"],
            }
            for one in report["images"]
        ],
    }


def _class(class_id: str, where: str, one: ClassReport, place: Mapping[str, int]) -> dict[str, Any]:
    truth = one["truth"]
    return {
        "id": class_id,
        "name": one["name"],
        "where": where,
        "n": one["n"],
        "share": _short(one["predicted_share"]),
        "cmm": _short(one["cmm"]),
        "expected": _short(one["expected_accuracy"]),
        "interval": None if one["interval"] is None else [_short(v) for v in one["interval"]],
        "flag": one["flag"],
        "next": one["next"],
        "confusions": [
            [place[c["id"]], _short(c["share"]), _short(c.get("true_share")), c["contrast"]]
            for c in one["confusions"]
            if c["id"] in place
        ],
        "texts": [
            [t["text"], t["kind"], *(_short(v) for v in (t["weight"], t["changes"], t["effect"]))]
            for t in one["texts"]
        ],
        "images": [*one["typical"], *one["doubtful"]],
        "truth": truth and [truth["n"], _short(truth["accuracy"]), _short(truth["precision"])],
    }


def _pieces(pieces: list[Piece]) -> list[list[Any]]:
    return [
        [p["text"], _short(p["weight"]), _short(p["cosine"]), _short(p["part"])] for p in pieces
    ]


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")

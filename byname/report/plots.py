"""The plots of a report as inline SVG, drawn by matplotlib; none where it is not installed."""

from __future__ import annotations

import importlib
import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree as Tree

import numpy as np

from byname.report.schema import Report

__all__ = ["draw"]

# matplotlib draws with these, and the page gives the true colours, for light and for dark.
INKS = {
    "#010101": "ink",
    "#020202": "grid",
    "#030303": "one",
    "#040404": "two",
    "#050505": "band",
}
INK, GRID, ONE, TWO, BAND = INKS
STYLE: Mapping[str, Any] = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "byname",  # the same ids in every run
    "font.size": 9.5,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "text.usetex": False,
}
MOST = 2000  # points of a plot
BARS = 20  # heights that are drawn as bars
WIDE, HIGH = 4.8, 2.7  # inches
Draw = Callable[[Any, Report], None]


def draw(report: Report) -> dict[str, str]:
    """SVG elements by name: ``classes``, ``shares``, ``truth`` and ``heights``, as they apply.

    They hold no text from outside, no style, no script and no address; every id begins with
    the name of its plot. Empty where matplotlib is missing.

    Parameters
    ----------
    report : Report

    Examples
    --------
    >>> from byname.report.data import make_report
    >>> from byname.study.subject import Subject
    >>> from byname.taskfile import Task
    >>> from byname.taxonomy import Taxonomy
    >>> task = Task(np.eye(2), np.eye(2)[None], ("a {}",), Taxonomy.from_names(["cat", "dog"]))
    >>> made = draw(make_report(Subject.of_task(task, "plain")))
    >>> all(svg.startswith("<svg") and "style=" not in svg for svg in made.values())
    True
    """
    try:
        matplotlib = importlib.import_module("matplotlib")
    except ImportError:
        return {}
    wanted = _wanted(report)
    # whatever the user's own settings are; the backend stays, since leaving would not bring it back
    plain = {k: v for k, v in matplotlib.rcParamsDefault.items() if not k.startswith("backend")}
    with matplotlib.rc_context(plain | dict(STYLE)):
        return {name: _svg(name, label, how, report) for name, (label, how) in wanted.items()}


def _wanted(report: Report) -> dict[str, tuple[str, Draw]]:
    """What can be drawn of this report, with a text for those who cannot see it."""
    made: dict[str, tuple[str, Draw]] = {}
    known = [c for c in report["classes"].values() if c["expected_accuracy"] is not None]
    if len(known) > 1:
        made["classes"] = ("Expected accuracy of every class, lowest first", _draw_classes)
        made["shares"] = ("Share of the answers that each class gets, largest first", _draw_shares)
    if any(_accuracy(one) is not None for one in known):
        made["truth"] = ("Expected against true accuracy, one dot a class", _draw_truth)
    if any(one["expected_share"] or one["true_share"] for one in report["heights"]):
        made["heights"] = ("Share of mistakes by height of the lowest common ancestor", _draw_bars)
    return made


def _accuracy(one: Mapping[str, Any]) -> float | None:
    return one["truth"]["accuracy"] if one["truth"] else None


def _thin(values: Sequence[Any]) -> list[tuple[int, Any]]:
    """At most ``MOST`` of them, evenly, with their places."""
    n = len(values)
    at = np.unique(np.linspace(0, n - 1, min(n, MOST)).round().astype(int))
    return [(i, values[i]) for i in at.tolist()]


def _draw_classes(axes: Any, report: Report) -> None:
    known = [c for c in report["classes"].values() if c["expected_accuracy"] is not None]
    known.sort(key=lambda one: (one["expected_accuracy"], _accuracy(one) or 0.0))
    shown = _thin(known)
    x = np.array([i + 0.5 for i, _ in shown])
    y = np.array([c["expected_accuracy"] for _, c in shown], float)
    limits = [(i + 0.5, c["interval"]) for i, c in shown if c["interval"] is not None]
    if limits:
        low, high = [v[0] for _, v in limits], [v[1] for _, v in limits]
        axes.fill_between(
            [at for at, _ in limits], low, high, color=BAND, linewidth=0, label="interval"
        )
    axes.plot(x, y, color=ONE, linewidth=1.8, drawstyle="steps-mid", label="expected")
    true = [(i + 0.5, _accuracy(c)) for i, c in shown if _accuracy(c) is not None]
    if true:
        axes.scatter(*zip(*true, strict=True), s=14, color=TWO, linewidths=0, label="true")
    if true or limits:
        axes.legend(loc="best")
    axes.set(xlim=(0, len(known)), ylim=(0, 1), xlabel="classes", ylabel="accuracy")
    axes.yaxis.set_major_formatter(_percent)
    axes.xaxis.get_major_locator().set_params(integer=True)


def _draw_shares(axes: Any, report: Report) -> None:
    shares = sorted((c["predicted_share"] for c in report["classes"].values()), reverse=True)
    shown = _thin(shares)
    x, y = [i + 0.5 for i, _ in shown], [v for _, v in shown]
    axes.fill_between(x, y, color=BAND, linewidth=0, step="mid")
    axes.plot(x, y, color=ONE, linewidth=1.8, drawstyle="steps-mid", label="answered")
    even = 1 / len(shares)
    axes.plot([0, len(shares)], [even, even], color=INK, linewidth=1, linestyle=":", label="even")
    axes.legend(loc="upper right")
    axes.set(xlim=(0, len(shares)), xlabel="classes", ylabel="share of the answers")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(_percent)
    axes.xaxis.get_major_locator().set_params(integer=True)


def _draw_truth(axes: Any, report: Report) -> None:
    pairs = [(c["expected_accuracy"], _accuracy(c)) for c in report["classes"].values()]
    shown = [v for _, v in _thin([p for p in pairs if None not in p])]
    axes.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle=":")
    axes.scatter(*zip(*shown, strict=True), s=22, color=ONE, alpha=0.7, linewidths=0)
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xlabel="expected", ylabel="true")
    axes.xaxis.set_major_formatter(_percent)
    axes.yaxis.set_major_formatter(_percent)


def _draw_bars(axes: Any, report: Report) -> None:
    heights = report["heights"]
    if len(heights) > BARS:
        return _draw_steps(axes, heights)
    x = np.arange(len(heights), dtype=float)
    labelled = any(one["true_share"] is not None for one in heights)
    width = 0.36 if labelled else 0.6
    shift = width / 2 + 0.02 if labelled else 0.0
    expected = [one["expected_share"] for one in heights]
    axes.bar(x - shift, expected, width, color=ONE, label="expected")
    if labelled:
        true = [one["true_share"] or 0.0 for one in heights]
        axes.bar(x + shift, true, width, color=TWO, label="true")
        axes.legend(loc="upper left")
    axes.set_xticks(x, [str(one["height"]) for one in heights])
    axes.set(xlabel="height of the lowest common ancestor", ylabel="share of all images")
    axes.set_xlim(-0.8, len(heights) - 0.2)
    axes.grid(visible=False, axis="x")
    axes.yaxis.set_major_formatter(_percent)


def _draw_steps(axes: Any, heights: Sequence[Mapping[str, Any]]) -> None:
    """The same as two lines: a thousand bars take a minute, and nobody can read them."""
    x = [one["height"] for one in heights]
    for key, ink, name in (("expected_share", ONE, "expected"), ("true_share", TWO, "true")):
        if any(one[key] is not None for one in heights):
            y = [one[key] or 0.0 for one in heights]
            axes.plot(x, y, color=ink, linewidth=1.4, drawstyle="steps-mid", label=name)
    axes.legend(loc="upper left")
    axes.set(xlabel="height of the lowest common ancestor", ylabel="share of all images")
    axes.yaxis.set_major_formatter(_percent)


def _percent(value: float, place: int | None = None) -> str:
    return f"{100 * value:.3g}%"


def _svg(name: str, label: str, how: Draw, report: Report) -> str:
    figure_module = importlib.import_module("matplotlib.figure")
    figure = figure_module.Figure(figsize=(WIDE, HIGH), layout="constrained")
    axes = figure.add_subplot()
    how(axes, report)
    out = io.StringIO()
    metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(out, format="svg", transparent=True, metadata=metadata)
    return _inline(out.getvalue(), name, label)


def _inline(svg: str, name: str, label: str) -> str:
    """The SVG as part of a page: own ids, classes for colours, no style and no namespace."""
    root = Tree.fromstring(svg)
    used = set(re.findall(r"#([\w.-]+)", svg))
    for parent in list(root.iter()):
        for child in list(parent):
            if _local(child.tag) in ("metadata", "style"):
                parent.remove(child)
    for node in root.iter():
        node.tag = _local(node.tag)
        node.tail, node.text = None, node.text if node.tag == "text" else None
        attributes = {_local(key): value for key, value in node.attrib.items()}
        node.attrib.clear()
        for key, value in attributes.items():
            if key == "style":
                _restyle(node, value)
            elif key != "id":
                node.set(key, re.sub(r"#(?=[\w.-]+\)?$)", f"#{name}-", value))
            elif value in used:
                node.set(key, f"{name}-{value}")
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.attrib |= {"class": "plot", "role": "img", "aria-label": label}
    return Tree.tostring(root, encoding="unicode", short_empty_elements=False)


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


def _restyle(node: Tree.Element, style: str) -> None:
    """A style as attributes and, for colours, as classes: a page without inline styles shows it."""
    classes = []
    for rule in style.split(";"):
        key, _, value = (part.strip() for part in rule.partition(":"))
        if not key or key in ("font", "font-family"):
            continue
        if key in ("fill", "stroke") and value in INKS:
            classes.append(f"{key}-{INKS[value]}")
        else:
            node.set(key, value)
    if classes:
        node.set("class", " ".join(classes))

"""A report on the terminal: the classes as a table, then what was found."""

from __future__ import annotations

from byname.console import say, table
from byname.report.schema import ClassReport, Report

__all__ = ["show"]

SHOWN = 20
COLUMNS = (
    "class",
    "cmm",
    "predicted share",
    "expected accuracy",
    "nearest confusions",
    "flag",
)


def show(report: Report, *, every: bool = False) -> None:
    """Print the classes, worst first, on standard output; all else on standard error.

    Parameters
    ----------
    report : Report
    every : bool
        All classes, not the worst 20.
    """
    classes = report["classes"]
    order = report["worst"] or list(classes)
    shown = order if every else order[:SHOWN]
    labelled = report["summary"]["n_labelled"] is not None
    columns = (*COLUMNS[:4], "accuracy", *COLUMNS[4:]) if labelled else COLUMNS
    table("", columns, [_row(classes[i], report, labelled) for i in shown])
    if len(shown) < len(order):
        say(f"... and {len(order) - len(shown)} more classes; see them with --all or --json")
    for one in report["findings"]:
        say(f"{one['level']}: {one['what']}")
        if one["next"]:
            say(f"  next: {one['next']}")
    for note in report["notes"]:
        say(f"note: {note}")
    say(_end(report))


def _row(one: ClassReport, report: Report, labelled: bool) -> list[str]:
    classes = report["classes"]
    near = ", ".join(f"{classes[c['id']]['name']} {c['share']:.0%}" for c in one["confusions"])
    cells = [
        one["name"],
        "-" if one["cmm"] is None else f"{one['cmm']:.4f}",
        f"{one['predicted_share']:.1%}",
        _with_interval(one["expected_accuracy"], one["interval"]),
    ]
    if labelled:
        truth = one["truth"]
        cells.append(_percent(truth["accuracy"] if truth else None))
    return [*cells, near, one["flag"]]


def _end(report: Report) -> str:
    n, K, head = report["n_images"], len(report["classes"]), report["summary"]
    images, kinds = ("1 image" if n == 1 else f"{n} images"), f"{K} class{'es' * (K != 1)}"
    expected = head["expected_accuracy"]
    said = "no accuracy can be expected"
    if expected is not None:
        span = None if head["n_otherwise"] else report["interval"]
        said = f"expected accuracy {_with_interval(expected, span)}, an estimate without labels"
    if head["coverage"] < 1:
        said += f"; {head['coverage']:.1%} of the answers are accepted"
    if head["expected_above"]:
        said += f"; {head['expected_above']:.0%} are expected to be a group that holds the class"
    if head["accuracy"] is not None:
        said += f"; {head['accuracy']:.1%} of {head['n_labelled']} labelled images are right"
        if head["coverage"] < 1 and head["accuracy_accepted"] is not None:
            said += f", {head['accuracy_accepted']:.1%} of the accepted"
        if head["above"]:
            said += f", {head['above']:.1%} have a group that holds their class"
    return f"{images}, {kinds}, recipe {report['recipe']}: {said}"


def _with_interval(share: float | None, interval: list[float] | None) -> str:
    if share is None or interval is None:
        return _percent(share)
    return f"{share:.0%} ({interval[0]:.0%}-{interval[1]:.0%})"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"

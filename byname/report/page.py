"""A report as one self-contained HTML page."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from byname.report.plots import draw
from byname.report.schema import Report
from byname.report.view import bar, data, view

__all__ = ["page"]

FOLDER = "templates"
# In JSON inside of a script element these could end the element, or a line of it.
UNSAFE = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


def page(report: Report) -> str:
    """The page: loads nothing, runs no script but its own, and escapes everything from outside.

    Plots are in it where matplotlib is installed (``pip install 'byname[report]'``).

    Parameters
    ----------
    report : Report
        As :func:`byname.report.data.make_report` makes it.

    Returns
    -------
    str
        One HTML file.

    Examples
    --------
    >>> import numpy as np
    >>> from byname.report.data import make_report
    >>> from byname.study.subject import Subject
    >>> from byname.taskfile import Task
    >>> from byname.taxonomy import Taxonomy
    >>> task = Task(np.eye(2), np.eye(2)[None], ("a {}",), Taxonomy.from_names(["<b>", "dog"]))
    >>> made = page(make_report(Subject.of_task(task, "plain")))
    >>> "&lt;b&gt;" in made, "<b>" in made
    (True, False)
    """
    parts = {name: _file(name) for name in ("page.css", "theme.js", "page.js")}
    style = parts["page.css"] + _widths()
    made = (
        _environment()
        .get_template("page.html")
        .render(
            report=report,
            view=view(report),
            plots={name: Markup(svg) for name, svg in draw(report).items()},
            csp=_policy(style, parts["theme.js"], parts["page.js"]),
            style=Markup(style),
            theme=Markup(parts["theme.js"]),
            script=Markup(parts["page.js"]),
            data=Markup(_json(data(report))),
        )
    )
    # names of files may hold what is no character at all, and cannot be written
    return made.encode("utf-8", "replace").decode("utf-8")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("byname.report", FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": _percent, "share": _share, "number": _number}
    environment.globals["bar"] = bar
    return environment


@cache
def _file(name: str) -> str:
    loader = _environment().loader
    assert loader is not None
    return loader.get_source(_environment(), name)[0].replace("\r\n", "\n").strip()


def _widths() -> str:
    """Classes for lengths in whole percents: the policy allows no style attribute."""
    sides = {"w": "--w", "l": "--l", "h": "--h", "t": "--t"}
    return "".join(f".{side}{i}{{{name}:{i}%}}" for side, name in sides.items() for i in range(101))


def _policy(style: str, *scripts: str) -> str:
    allowed = " ".join(_digest(text) for text in scripts)
    return (
        f"default-src 'none'; img-src data:; style-src {_digest(style)}; script-src {allowed}; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
    )


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _json(value: Mapping[str, Any]) -> str:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.translate(UNSAFE)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.0%}"


def _share(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"

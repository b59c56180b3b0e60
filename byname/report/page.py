"""A report as one self-contained HTML page."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined

from byname.report.schema import Report

__all__ = ["page"]


def page(report: Report) -> str:
    """The page; everything from outside is escaped.

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
    environment = Environment(
        loader=PackageLoader("byname.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(report=report)

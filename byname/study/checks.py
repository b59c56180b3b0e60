"""All checks of a subject, one after the other; each is a file in this room."""

from __future__ import annotations

from collections.abc import Callable

from byname.diagnose import Diagnosis
from byname.study.classes import check_classes
from byname.study.finding import Finding
from byname.study.images import check_images
from byname.study.names import check_names
from byname.study.pixels import check_pixels
from byname.study.prompts import check_prompts
from byname.study.subject import Subject
from byname.study.vectors import check_vectors

__all__ = ["Check", "Numbers", "study"]

Numbers = dict[str, dict[str, float | None]]
Check = Callable[[Subject, Diagnosis], tuple[list[Finding], Numbers]]
# What is looked at, in the order in which it is told.
CHECKS: dict[str, Check] = {
    "classes": check_classes,
    "names": check_names,
    "prompts": check_prompts,
    "images": check_images,
    "pixels": check_pixels,
    "vectors": check_vectors,
}


def study(
    subject: Subject,
    found: Diagnosis,
    advance: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> tuple[list[Finding], Numbers]:
    """Findings of all checks, and their numbers by the name of the report.

    Parameters
    ----------
    subject : Subject
    found : Diagnosis
    advance : callable, optional
        Called with the name of a check, and how many of how many are done.
    """
    findings: list[Finding] = []
    numbers: Numbers = {}
    for done, (name, check) in enumerate(CHECKS.items()):
        advance(name, done, len(CHECKS))
        told, measured = check(subject, found)
        findings += told
        numbers |= measured
    return findings, numbers

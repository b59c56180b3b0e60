"""One sentence on top of a report: what to think of the answers, and where to begin."""

from __future__ import annotations

from byname.diagnose import Diagnosis
from byname.study.wording import listed, quoted

__all__ = ["verdict"]

LEAST = 0.005  # share of groups that is told
FEW = 3  # images a class, below which hardly anything is known


def verdict(found: Diagnosis, share: float | None = None, above: float = 0.0) -> str:
    """What to think of the answers, and which classes to begin with.

    Parameters
    ----------
    found : Diagnosis
    share : float, optional
        Share of the answers that are expected to be right, where these are not the classes of the
        highest scores.
    above : float
        Share of the answers that are expected to be a group that holds the class.

    Examples
    --------
    >>> verdict(Diagnosis("plain", 40, 0.7, (0.5, 0.85), (), {}))
    'About 70% (50%-85%) of the answers are expected to be right; no class stands out as failing.'
    """
    if found.expected_accuracy is None:
        return "With one class there is nothing to tell apart: no accuracy can be expected."
    if share is not None:
        said = f"About {share:.0%}"
    else:
        low, high = found.interval or (0.0, 1.0)
        said = f"About {found.expected_accuracy:.0%} ({low:.0%}-{high:.0%})"
    said += " of the answers are expected to be right"
    if above >= LEAST:
        said += f" and {above:.0%} to be a group that holds the class"
    n, K = found.n_images, len(found.classes)
    if n < FEW * K:
        images = "1 image" if n == 1 else f"{n:,} images"
        said += f" - hardly more than a guess, from {images} for {K:,} classes"
    bad = [found.classes[i] for i in found.worst if found.classes[i].flag]
    if not bad:
        return f"{said}; no class stands out as failing."
    parts = [
        _part(sum(one.flag == flag for one in bad), each, many)
        for flag, each, many in (
            ("weak", "is weak", "are weak"),
            ("never predicted", "wins no image", "win no image"),
            ("ambiguous name", "shares its name", "share their names"),
        )
    ]
    kinds = [part for part in parts if part]
    kinds[0] = f"of {K:,} classes {kinds[0]}"
    names = listed([quoted(one.name) for one in bad])
    return f"{said}; {' and '.join(kinds)}: begin with {names}."


def _part(n: int, each: str, many: str) -> str:
    return f"{n:,} {each if n == 1 else many}" if n else ""

"""WaffleCLIP's sizes and its sentence, in float64 and plain loops, written from the description.

From the class names: the number of random words is the rounded mean of words a name, 1 at least;
they are cut to the rounded mean, over names, of the mean length of a name's words. Characters come
in as many groups as a name has spaces in the mean, rounded, and one more; there are as many as the
longest word of a name has in the mean, rounded up, raised to the next larger multiple of that.
"""

from __future__ import annotations

import math

import numpy as np

__all__ = ["sentence", "sizes"]


def sizes(names: list[str]) -> tuple[int, int, int, int]:
    """m, l, g, L."""
    counts, means, spaces, longest = [], [], [], []
    for name in names:
        words = name.split(" ")
        counts.append(float(len(words)))
        means.append(sum(len(word) for word in words) / len(words))
        spaces.append(float(name.count(" ")))
        longest.append(float(max(len(word) for word in words)))
    m = max(1, int(np.round(np.mean(counts))))
    length = int(np.round(np.mean(means)))
    g = int(np.round(np.mean(spaces))) + 1
    L = math.ceil(float(np.mean(longest)))
    L += 1
    while L % g:
        L += 1
    return m, length, g, L


def sentence(name: str, d: str, concept: str = "") -> str:
    """The descriptor in its sentence."""
    if d[:1] == "a" or d[:4] == "used":
        link = "which is"
    elif any(d[: len(verb)] == verb for verb in ("has", "often", "typically", "may", "can")):
        link = "which"
    else:
        link = "which has"
    start = "A photo of a " + (concept + ": a " if concept else "")
    return start + name + ", " + link + " " + d + "."

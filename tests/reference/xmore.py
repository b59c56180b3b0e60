"""X-MoRe in plain float64, written from the formulas alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


def _softmax(u: Any) -> NDArray[np.float64]:
    e = np.exp(u - np.max(u))
    out: NDArray[np.float64] = e / e.sum()
    return out


def _certainty(p: Any) -> float:
    if len(p) == 1:
        return 1.0
    return 1 + sum(v * math.log(v) for v in p if v > 0) / math.log(len(p))


def xmore(
    X: Any,
    captions: Any,
    W: Any,
    *,
    top: int = 16,
    parity: bool = False,
    scale: float = 100.0,
    fitted: tuple[float, float] | None = None,
) -> tuple[NDArray[np.float64], tuple[float, float]]:
    """Probabilities (N, K), and the means of alpha and beta over the images with captions."""
    X, captions, W = (np.asarray(a, np.float64) for a in (X, captions, W))
    made = []
    for x, own in zip(X, captions, strict=True):
        told = sorted((c for c in own if c.any()), key=lambda c, x=x: -float(c @ x))[:top]
        image = _softmax(scale * W @ x)
        text = np.mean([_softmax(scale * W @ c) for c in told], axis=0) if told else None
        made.append((image, text, _certainty(image), 0.0 if text is None else _certainty(text)))
    with_text = [m for m in made if m[1] is not None]
    means = fitted or (
        (float(np.mean([m[2] for m in with_text])), float(np.mean([m[3] for m in with_text])))
        if with_text
        else (0.0, 0.0)
    )
    out, a, b = [], 0.0, 0.0
    for image, text, alpha, beta in made:
        if text is None:
            out.append(image)
            continue
        a, b = a + alpha, b + beta
        over = (a, b) if parity else means
        p = alpha / over[0] * image + beta / over[1] * text
        out.append(p / p.sum())
    return np.array(out), means

"""The two heads of the projector: what lies between frozen vectors and the common space."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byname.adapters.training import (
    Params,
    gelu,
    layer_norm,
    layer_norm_back,
    linear_init,
    normalize,
    normalize_back,
)

__all__ = ["Head", "ImageHead", "TextHead"]

Array = NDArray[Any]


class Head(ABC):
    """Rows (n, a) to unit rows (n, width), with the gradient of every parameter.

    Inputs are centred and divided by one number, so that encoders of any scale start alike.
    """

    def __init__(self, params: Params, mean: Array, spread: float) -> None:
        self.params, self.mean, self.spread = params, mean, spread

    @classmethod
    def start(cls, rng: np.random.Generator, X: Array, width: int) -> Head:
        """Random parameters for rows like X."""
        mean = X.mean(axis=0, dtype=np.float64)
        spread = float(np.sqrt(((X - mean) ** 2).mean())) or 1.0
        return cls(cls.initial(rng, X.shape[1], width), mean.astype(np.float32), spread)

    @staticmethod
    @abstractmethod
    def shapes(a: int, width: int) -> dict[str, tuple[int, ...]]:
        """Shapes of the parameters by name."""

    @staticmethod
    @abstractmethod
    def initial(rng: np.random.Generator, a: int, width: int) -> Params:
        """Parameters by name."""

    def prepared(self, X: Array) -> Array:
        """What the first layer sees."""
        made: Array = (X - self.mean) * X.dtype.type(1 / self.spread)
        return made

    @abstractmethod
    def forward(self, Z: Array, mask: Array | None = None) -> tuple[Array, Any]:
        """Unit rows of prepared rows, and what :meth:`backward` needs."""

    @abstractmethod
    def backward(self, kept: Any, grad: Array) -> Params:
        """Gradients of the parameters from that of the unit rows."""

    def __call__(self, X: Array) -> Array:
        """Unit rows of rows as the encoder gives them."""
        return self.forward(self.prepared(X))[0]


class ImageHead(Head):
    """``A z + (C gelu(B z + b) + c)``, for pooled vectors: a linear map and a correction to it."""

    @staticmethod
    def shapes(a: int, width: int) -> dict[str, tuple[int, ...]]:
        """Shapes of the parameters by name."""
        w = (width,)
        return {"A": (a, width), "a": w, "B": (a, width), "b": w, "C": (width, width), "c": w}

    @staticmethod
    def initial(rng: np.random.Generator, a: int, width: int) -> Params:
        """Parameters by name."""
        sizes = {"A": (a, width), "B": (a, width), "C": (width, width)}
        made: Params = {}
        for name, size in sizes.items():
            made[name], made[name.lower()] = linear_init(rng, *size)
        return made

    def forward(self, Z: Array, mask: Array | None = None) -> tuple[Array, Any]:
        """Unit rows, and what :meth:`backward` needs."""
        p = self.params
        h, slope = gelu(Z @ p["B"] + p["b"])
        u, length = normalize(Z @ p["A"] + p["a"] + h @ p["C"] + p["c"])
        return u, (Z, h, slope, u, length)

    def backward(self, kept: Any, grad: Array) -> Params:
        """Gradients of the parameters."""
        Z, h, slope, u, length = kept
        g = normalize_back(u, length, grad)
        gh = (g @ self.params["C"].T) * slope
        g0 = g.sum(axis=0)
        return {
            "A": Z.T @ g,
            "a": g0,
            "B": Z.T @ gh,
            "b": gh.sum(axis=0),
            "C": h.T @ g,
            "c": g0.copy(),
        }


class TextHead(Head):
    """``h = A z + a``, then ``LayerNorm(h + dropout(B gelu(h) + b))`` with gain G and shift s."""

    @staticmethod
    def shapes(a: int, width: int) -> dict[str, tuple[int, ...]]:
        """Shapes of the parameters by name."""
        w = (width,)
        return {"A": (a, width), "a": w, "B": (width, width), "b": w, "gain": w, "shift": w}

    @staticmethod
    def initial(rng: np.random.Generator, a: int, width: int) -> Params:
        """Parameters by name."""
        made: Params = {}
        made["A"], made["a"] = linear_init(rng, a, width)
        made["B"], made["b"] = linear_init(rng, width, width)
        return made | {"gain": np.ones(width, np.float32), "shift": np.zeros(width, np.float32)}

    def forward(self, Z: Array, mask: Array | None = None) -> tuple[Array, Any]:
        """Unit rows; ``mask`` (n, width) is what dropout multiplies with."""
        p = self.params
        h = Z @ p["A"] + p["a"]
        active, slope = gelu(h)
        side = active @ p["B"] + p["b"]
        normed, scale = layer_norm(h + (side if mask is None else side * mask))
        u, length = normalize(normed * p["gain"] + p["shift"])
        return u, (Z, active, slope, mask, normed, scale, u, length)

    def backward(self, kept: Any, grad: Array) -> Params:
        """Gradients of the parameters."""
        Z, active, slope, mask, normed, scale, u, length = kept
        p, g = self.params, normalize_back(u, length, grad)
        gr = layer_norm_back(normed, scale, g * p["gain"])
        gs = gr if mask is None else gr * mask
        gh = gr + (gs @ p["B"].T) * slope
        return {
            "A": Z.T @ gh,
            "a": gh.sum(axis=0),
            "B": active.T @ gs,
            "b": gs.sum(axis=0),
            "gain": (g * normed).sum(axis=0),
            "shift": g.sum(axis=0),
        }

"""Small networks in NumPy: layers with gradients written out, losses, AdamW. All in float32."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

from byname.errors import UsageError

__all__ = [
    "AdamW",
    "check_loss",
    "contrastive",
    "cosine_loss",
    "gelu",
    "layer_norm",
    "layer_norm_back",
    "linear_init",
    "normalize",
    "normalize_back",
]

Array = NDArray[Any]
Params = dict[str, Array]
_TINY = 1e-12
_EPS = 1e-5  # of the layer norm, as torch has it


class AdamW:
    """Adam with decoupled weight decay on the matrices; vectors and scalars do not decay.

    Parameters
    ----------
    params : dict of arrays
        Changed in place.
    rate, decay : float
    betas : tuple of float
    """

    def __init__(
        self,
        params: Params,
        rate: float,
        decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        self.params, self.rate, self.decay, self.betas = params, rate, decay, betas
        self.t = 0
        self._m = {name: np.zeros_like(p) for name, p in params.items()}
        self._v = {name: np.zeros_like(p) for name, p in params.items()}
        self._work = {name: np.empty_like(p) for name, p in params.items()}

    def step(self, grads: Params) -> None:
        """One step against the gradients."""
        self.t += 1
        b1, b2 = self.betas
        rate = self.rate * float(np.sqrt(1 - b2**self.t)) / (1 - b1**self.t)
        eps = 1e-8 * float(np.sqrt(1 - b2**self.t))
        for name, p in self.params.items():
            g, m, v, work = grads[name], self._m[name], self._v[name], self._work[name]
            m *= b1
            m += np.multiply(g, 1 - b1, out=work)
            v *= b2
            v += np.multiply(np.multiply(g, g, out=work), 1 - b2, out=work)
            np.sqrt(v, out=work)
            work += eps
            np.divide(m, work, out=work)
            if self.decay and p.ndim == 2:
                p *= 1 - self.rate * self.decay
            p -= np.multiply(work, rate, out=work)


def check_loss(asked: str, epoch: int, rate: float, loss: float, params: Params) -> None:
    """Raise UsageError where training has left the numbers."""
    if not np.isfinite(loss) or not all(np.isfinite(p).all() for p in params.values()):
        seen = (
            f"training diverges with rate {rate!r}: epoch {epoch} ends in NaN or infinite numbers"
        )
        raise UsageError(asked, seen, "Use a smaller rate.")


def linear_init(rng: np.random.Generator, inputs: int, outputs: int) -> tuple[Array, Array]:
    """Weight (inputs, outputs) and bias (outputs,), uniform within 1/sqrt(inputs)."""
    bound = 1 / np.sqrt(inputs)
    weight = rng.uniform(-bound, bound, (inputs, outputs)).astype(np.float32)
    return weight, rng.uniform(-bound, bound, outputs).astype(np.float32)


def gelu(x: Array) -> tuple[Array, Array]:
    """x * Phi(x), and its derivative.

    Examples
    --------
    >>> [a.tolist() for a in gelu(np.array([0.0]))]
    [[0.0], [0.5]]
    """
    cdf = 0.5 * (1 + erf(x * np.float32(np.sqrt(0.5))))
    density = np.exp(-0.5 * x * x) * np.float32(1 / np.sqrt(2 * np.pi))
    return x * cdf, cdf + x * density


def normalize(x: Array) -> tuple[Array, Array]:
    """Unit rows, and their lengths (n, 1); what is all zero stays so."""
    length = np.maximum(np.sqrt(np.einsum("ij,ij->i", x, x))[:, None], _TINY)
    return x / length, length


def normalize_back(unit: Array, length: Array, grad: Array) -> Array:
    """Gradient of the rows from that of their unit rows."""
    made: Array = (grad - unit * np.einsum("ij,ij->i", unit, grad)[:, None]) / length
    return made


def layer_norm(x: Array) -> tuple[Array, Array]:
    """Rows of mean 0 and variance 1, and 1 / deviation (n, 1)."""
    centred = x - x.mean(axis=1, keepdims=True)
    scale = 1 / np.sqrt((centred * centred).mean(axis=1, keepdims=True) + x.dtype.type(_EPS))
    return centred * scale, scale


def layer_norm_back(normed: Array, scale: Array, grad: Array) -> Array:
    """Gradient of the rows from that of what :func:`layer_norm` made of them."""
    mean = grad.mean(axis=1, keepdims=True)
    made: Array = scale * (grad - mean - normed * (grad * normed).mean(axis=1, keepdims=True))
    return made


def cosine_loss(made: Array, wanted: Array) -> tuple[float, Array]:
    """Mean of 1 - cos over rows, and the gradient of ``made``; ``wanted`` holds unit rows."""
    u, length = normalize(made)
    loss = 1 - float(np.einsum("ij,ij->", u, wanted)) / len(u)
    return loss, normalize_back(u, length, wanted * (-1 / len(u)))


def contrastive(
    U: Array, V: Array, log_scale: float, same: Array | None = None
) -> tuple[float, Array, Array, float]:
    """Symmetric InfoNCE over pairs of unit rows.

        L = exp(log_scale) U V';  loss = mean over i of (CE(L[i, :], i) + CE(L[:, i], i)) / 2

    Parameters
    ----------
    U, V : arrays, shape (n, e)
        Unit rows; row i of both is a pair.
    log_scale : float
        Minus the logarithm of the temperature.
    same : array of bool, shape (n, n), optional
        Entries that are no negatives, because their text or image is that of the row itself; the
        diagonal always counts.

    Returns
    -------
    loss, gradient of U, gradient of V, gradient of log_scale
    """
    n, scale = len(U), U.dtype.type(np.exp(log_scale))
    L = (U @ V.T) * scale
    at = np.arange(n)
    own = L[at, at].copy()
    S = L
    if same is not None:
        S = np.where(same, U.dtype.type(-np.inf), L)
        S[at, at] = own
    top = S.max(axis=1, keepdims=True)
    E = np.exp(S - top)
    rows = E.sum(axis=1, keepdims=True)
    loss = float((np.log(rows) + top).mean())
    G = E / rows
    top = S.max(axis=0, keepdims=True)
    E = np.exp(S - top)
    columns = E.sum(axis=0, keepdims=True)
    loss = (loss + float((np.log(columns) + top).mean())) / 2 - float(own.mean())
    G += E / columns
    G *= U.dtype.type(0.5 / n)
    G[at, at] -= U.dtype.type(1 / n)
    return loss, (G @ V) * scale, (G.T @ U) * scale, float(np.einsum("ij,ij->", G, L))

"""Array operations for NumPy and torch alike: with stream.py the only file to tell them apart.

torch is never imported here: an array can only be a tensor when somebody else has imported torch.
Every function answers with the kind and on the device of its first array. float16, bfloat16,
integers and booleans are computed in float32; float64 stays float64.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

__all__ = ["argmax", "as_float", "blocks", "cast", "concat", "full", "is_stored", "is_torch"]
__all__ += ["like", "log_probability", "log_softmax", "logsumexp", "matmul_t", "scaled"]
__all__ += ["segment_mean", "segment_sum", "softmax", "take_rows", "to_numpy", "topk", "unit"]

Array = Any
_COLUMNS = 64  # columns summed at a time in float64, so that the wide copy stays small


def is_torch(x: Any) -> bool:
    """Whether ``x`` is a torch tensor; False without a look at torch where nobody imported it."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def is_stored(x: Any) -> bool:
    """Whether these are vectors on disk, which stay there: :mod:`byname.stored`."""
    return getattr(x, "stored", False) is True


def to_numpy(x: Array) -> NDArray[Any]:
    """The same values as a NumPy array on the CPU, without gradients; bfloat16 as float32.

    Examples
    --------
    >>> to_numpy([1, 2]).tolist()
    [1, 2]
    """
    if is_torch(x):
        x = x.detach()
        x = x.float() if x.dtype == sys.modules["torch"].bfloat16 else x
        return np.asarray(x.cpu().numpy())
    return np.asarray(x)


def like(x: Array, reference: Array) -> Array:
    """``x`` as the kind of array, and on the device, that ``reference`` is; its dtype stays."""
    if x is reference:
        return x
    if is_torch(reference):
        if isinstance(x, np.ndarray) and not x.flags.writeable:
            x = x.copy()  # a tensor over read-only memory would be a trap, and torch says so
        return sys.modules["torch"].as_tensor(x, device=reference.device)
    return to_numpy(x)


def cast(x: Array, reference: Array) -> Array:
    """``x`` as the kind, on the device and of the type that ``reference`` has.

    Examples
    --------
    >>> cast(np.ones(2), np.zeros(1, np.float32)).dtype
    dtype('float32')
    """
    x = like(x, reference)
    return x.to(reference.dtype) if is_torch(x) else x.astype(reference.dtype, copy=False)


def full(reference: Array, shape: tuple[int, ...], value: float) -> Array:
    """A constant array of the kind, on the device and of the type that ``reference`` has."""
    if is_torch(reference):
        return reference.new_full(shape, value)
    kind = reference.dtype
    return np.full(shape, value, kind) if value else np.zeros(shape, kind)  # zeros cost nothing


def as_float(x: Array) -> Array:
    """float32, or float64 where it is float64 already; never a copy without need.

    Examples
    --------
    >>> as_float(np.ones(2, np.float16)).dtype, as_float(np.ones(2)).dtype
    (dtype('float32'), dtype('float64'))
    """
    if is_torch(x):
        return x if x.dtype == sys.modules["torch"].float64 else x.float()
    if is_stored(x):
        return x
    x = np.asarray(x)
    return x if x.dtype == np.float64 else x.astype(np.float32, copy=False)


def unit(x: Array, axis: int = -1) -> Array:
    """Divide by the Euclidean length along ``axis``; what is all zero stays zero, NaN stays NaN.

    The length is summed in float64, so that very short and very long vectors come out right too.

    Examples
    --------
    >>> unit(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6, 0.8], [0.0, 0.0]]
    """
    x = as_float(x)
    if is_torch(x):
        torch = sys.modules["torch"]
        norm = torch.linalg.vector_norm(x, dim=axis, keepdim=True, dtype=_wide(x)).to(x.dtype)
        return x / torch.where(norm == 0, torch.ones_like(norm), norm)
    moved = np.moveaxis(x, axis, -1)
    squares = np.einsum("...i,...i->...", moved, moved, dtype=np.float64)
    norm = np.expand_dims(np.sqrt(squares), axis)
    norm[norm == 0] = 1
    return np.divide(x, norm, out=np.empty_like(x), casting="same_kind")


def matmul_t(x: Array, w: Array) -> Array:
    """``x @ w.T`` in float32, or in float64 where both are float64.

    Parameters
    ----------
    x : array, shape (N, D)
    w : array, shape (K, D)
        Brought to the kind and device of ``x``.

    Returns
    -------
    array, shape (N, K)

    Examples
    --------
    >>> matmul_t(np.eye(2, dtype=np.float16), np.array([[2, 3]])).tolist()
    [[2.0], [3.0]]
    """
    x, w = as_float(x), as_float(like(w, x))
    if x.dtype != w.dtype:
        narrow = min(x.dtype, w.dtype, key=lambda d: d.itemsize)
        x, w = (a.to(narrow) if is_torch(a) else a.astype(narrow, copy=False) for a in (x, w))
    return x @ w.T


def scaled(x: Array, w: Array, scale: float = 1.0, bias: float = 0.0) -> Array:
    """``scale * (x @ w.T) + bias``, without passes over the result that can be spared.

    Examples
    --------
    >>> scaled(np.eye(2), np.array([[2.0, 3.0]]), 10.0, 1.0).tolist()
    [[21.0], [31.0]]
    """
    S = matmul_t(x, as_float(w) * scale)
    if bias:
        S += bias
    return S


def logsumexp(S: Array, axis: int = -1) -> Array:
    """log of the sum of exponentials along ``axis``, which is dropped; -inf where all are -inf.

    Examples
    --------
    >>> float(logsumexp(np.array([-np.inf, 1000.0])))
    1000.0
    """
    shifted, top = _shifted(as_float(S), axis)
    xp = _namespace(shifted)
    with np.errstate(divide="ignore"):
        return (xp.log(xp.exp(shifted).sum(axis=axis, keepdims=True)) + top).squeeze(axis)


def softmax(S: Array, axis: int = -1) -> Array:
    """Exponentials that sum to 1 along ``axis``; where every logit is -inf, zeros.

    Examples
    --------
    >>> softmax(np.array([0.0, 0.0, -np.inf])).tolist()
    [0.5, 0.5, 0.0]
    """
    shifted, _ = _shifted(as_float(S), axis)
    xp = _namespace(shifted)
    weights = xp.exp(shifted)
    total = weights.sum(axis=axis, keepdims=True)
    return weights / xp.where(total == 0, xp.ones_like(total), total)


def log_softmax(S: Array, axis: int = -1) -> Array:
    """Logarithm of :func:`softmax`, exact for small probabilities; -inf where all are -inf.

    Examples
    --------
    >>> log_softmax(np.array([0.0, -1000.0])).tolist()
    [0.0, -1000.0]
    """
    shifted, _ = _shifted(as_float(S), axis)
    xp = _namespace(shifted)
    total = xp.exp(shifted).sum(axis=axis, keepdims=True)
    return shifted - xp.log(xp.where(total == 0, xp.ones_like(total), total))


def log_probability(p: Array) -> Array:
    """log(max(p, 1e-30)): probabilities to logits whose softmax gives them back.

    Examples
    --------
    >>> log_probability(np.array([1.0, 0.0])).round(3).tolist()
    [0.0, -69.078]
    """
    p = as_float(p)
    return p.clamp(min=1e-30).log() if is_torch(p) else np.log(np.maximum(p, p.dtype.type(1e-30)))


def segment_sum(values: Array, index: Array, K: int, weights: Array | None = None) -> Array:
    """Sum the rows of each segment; summed in float64, so that the order of rows hardly matters.

    Parameters
    ----------
    values : array, shape (M, D)
    index : array of int, shape (M,)
        Segment of each row, below K; -1 for rows that count nowhere.
    K : int
        Number of segments; one without rows is zero.
    weights : array, shape (M,), optional
        Factor of each row.

    Returns
    -------
    array, shape (K, D)

    Examples
    --------
    >>> segment_sum(np.array([[1.0], [2.0], [4.0]]), np.array([0, -1, 0]), 2).tolist()
    [[5.0], [0.0]]
    """
    values = as_float(values)
    if is_torch(values):
        index = like(index, values).long()
        used = index >= 0
        rows = values[used].to(_wide(values))
        if weights is not None:
            rows = rows * like(weights, values).to(rows.dtype)[used, None]
        out = rows.new_zeros((K, values.shape[1]))
        return out.index_add_(0, index[used], rows).to(values.dtype)
    index = to_numpy(index)
    if is_stored(values):
        return values.segment_sum(index, K, weights)
    used = np.flatnonzero(index >= 0)
    factor = np.ones(len(used)) if weights is None else to_numpy(weights)[used].astype(np.float64)
    chooser = sparse.csr_matrix((factor, (index[used], used)), shape=(K, len(index)))
    out = np.empty((K, values.shape[1]), values.dtype)
    for columns in blocks(values.shape[1], _COLUMNS):
        out[:, columns] = chooser @ values[:, columns].astype(np.float64)
    return out


def segment_mean(values: Array, index: Array, K: int, weights: Array | None = None) -> Array:
    """Weighted mean of the rows of each segment; zero where the weights sum to zero.

    Parameters and shapes are those of :func:`segment_sum`.

    Examples
    --------
    >>> segment_mean(np.array([[1.0], [3.0]]), np.array([0, 0]), 2, np.array([3, 1])).tolist()
    [[1.5], [0.0]]
    """
    values = as_float(values)
    ones = np.ones((len(index), 1)) if weights is None else to_numpy(weights)[:, None]
    total = segment_sum(ones.astype(np.float64), to_numpy(index), K)
    factor = like(np.divide(1, total, out=np.zeros_like(total), where=total != 0), values)
    sums = segment_sum(values, index, K, weights)
    return sums * (factor.to(sums.dtype) if is_torch(sums) else factor.astype(sums.dtype))


def topk(S: Array, k: int) -> tuple[Array, Array]:
    """The k largest of each row, largest first; among equals the lower index comes first.

    Parameters
    ----------
    S : array, shape (N, K)
        NaN counts as the smallest of all.
    k : int
        Cut to K where it is larger.

    Returns
    -------
    values, indices : arrays, shape (N, min(k, K))

    Examples
    --------
    >>> values, indices = topk(np.array([[1.0, 3.0, 3.0]]), 2)
    >>> values.tolist(), indices.tolist()
    ([[3.0, 3.0]], [[1, 2]])
    """
    S = as_float(S)
    k = min(k, S.shape[1])
    key = _nan_last(S)
    if is_torch(S):
        indices = key.sort(dim=1, descending=True, stable=True).indices[:, :k]
        return S.gather(1, indices), indices
    if k == 1:
        indices = key.argmax(axis=1)[:, None]
    elif k < S.shape[1]:
        chosen = _chosen(key, k)
        order = np.argsort(-np.take_along_axis(key, chosen, axis=1), axis=1, kind="stable")
        indices = np.take_along_axis(chosen, order, axis=1)
    else:
        indices = np.argsort(-key, axis=1, kind="stable")
    return np.take_along_axis(S, indices, axis=1), indices


def argmax(S: Array) -> Array:
    """Column of the largest value of each row, the lowest on ties; shape (N,).

    Examples
    --------
    >>> argmax(np.array([[1.0, 3.0, 3.0]])).tolist()
    [1]
    """
    return _nan_last(as_float(S)).argmax(axis=1)


def take_rows(x: Array, index: Array) -> Array:
    """Rows of ``x`` by number; ``index`` may be of either kind.

    Examples
    --------
    >>> take_rows(np.array([[1], [2]]), [1, 0]).tolist()
    [[2], [1]]
    """
    return x[like(np.asarray(index, dtype=np.intp) if not is_torch(index) else index, x)]


def concat(parts: Sequence[Array]) -> Array:
    """Arrays of one kind, one below the other.

    Examples
    --------
    >>> concat([np.zeros((1, 2)), np.ones((1, 2))]).shape
    (2, 2)
    """
    return parts[0] if len(parts) == 1 else _namespace(parts[0]).concatenate(list(parts))


def blocks(n: int, size: int) -> Iterator[slice]:
    """Slices that cover ``range(n)`` in order, at most ``size`` long; none where n is 0.

    Examples
    --------
    >>> list(blocks(5, 2))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    if size < 1:
        raise ValueError(f"a block must hold at least one row, not {size}")
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


def _namespace(x: Array) -> Any:
    return sys.modules["torch"] if is_torch(x) else np


def _wide(x: Array) -> Any:
    """The widest float of a tensor's device: Apple's GPUs have no float64."""
    torch = sys.modules["torch"]
    return torch.float32 if x.device.type == "mps" else torch.float64


def _shifted(S: Array, axis: int) -> tuple[Array, Array]:
    """Logits minus their largest along ``axis``, and that; 0 in its place where it is -inf."""
    xp = _namespace(S)
    top = xp.amax(S, axis=axis, keepdims=True)
    top = xp.where(top == -np.inf, xp.zeros_like(top), top)
    return S - top, top


def _nan_last(S: Array) -> Array:
    xp = _namespace(S)
    return xp.where(xp.isnan(S), xp.full_like(S, -np.inf), S)


def _chosen(key: NDArray[Any], k: int) -> NDArray[np.intp]:
    """Columns of the k largest of each row, ascending; at the boundary the lower ones are kept."""
    least = np.partition(key, key.shape[1] - k, axis=1)[:, [-k]]
    mask = key >= least
    tied = np.flatnonzero(mask.sum(axis=1) > k)
    above = key[tied] > least[tied]
    equal = key[tied] == least[tied]
    room = k - above.sum(axis=1, keepdims=True)
    mask[tied] = above | (equal & (equal.cumsum(axis=1) <= room))
    return np.nonzero(mask)[1].reshape(len(key), k)

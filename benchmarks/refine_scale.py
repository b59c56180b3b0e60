"""Time and memory of refine members for many images, and against plain versions of the same method.

Vectors are made up: images of a class scatter around its centre, and so does its text, farther off.

    python benchmarks/refine_scale.py transclip zlap anchor auto
    python benchmarks/refine_scale.py transclip zlap --against

The first prints, for each member and size, in a process of its own: seconds, split into those for
the neighbour graph and the rest, the processor's seconds, and the peak memory with all vectors and
scores; then the exponents that fit seconds to N. The second runs, in turns in one process, a member
and plain float32 versions of it: ``dense`` holds an (N, N) array (of neighbours for transclip; for
zlap the matrix itself, solved as a whole), ``loop`` goes class by class (distances and variances
for transclip; SciPy's conjugate gradients for zlap). Printed are medians, their ratio, and in how
many answers both agree. Everything is timed from vectors and scores to new scores. Other work on
the machine changes seconds, and ratios less; the load is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import cg

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from byname.ops import blocks, scaled, unit
from byname.refine import whole
from byname.stage import Batch, ClassTexts, State, create
from byname.taxonomy import Taxonomy

Floats = NDArray[Any]
SIZES = (10_000, 30_000, 100_000)
IMAGES, TEXTS = 1.5, 3.3  # scatter of images and of texts around the centre of their class


def made(N: int, K: int, D: int) -> tuple[Floats, Floats, Floats]:
    """X (N, D) and W (K, D), unit float32, and plain logits S (N, K)."""
    rng = np.random.default_rng(0)
    centre = rng.standard_normal((K, D), dtype=np.float32)
    y, X = rng.integers(0, K, N), np.empty((N, D), np.float32)
    for rows in blocks(N, 4096):
        noise = rng.standard_normal((rows.stop - rows.start, D), dtype=np.float32)
        X[rows] = unit(centre[y[rows]] + IMAGES * noise)
    W = unit(centre + TEXTS * rng.standard_normal((K, D), dtype=np.float32))
    return X, W, scaled(X, W, 100.0)


def texts_of(W: Floats) -> ClassTexts:
    """One text a class."""
    names = Taxonomy.from_names([f"c{k}" for k in range(len(W))])
    return ClassTexts(W, np.arange(len(W)), names)


def run(member: str, X: Floats, texts: ClassTexts, S: Floats) -> Floats:
    """New scores; the member must not step back."""
    fitted: Any = create(member).fit(Batch(X), texts, State(W=texts.vectors, S=S))
    if fitted.report()["stepped_back"]:
        raise SystemExit(f"{member} stepped back: {fitted.report()['reason']}")
    return np.asarray(fitted.scores_)


def child(member: str, N: int, K: int, D: int) -> None:
    """One run in this process, told as a line of JSON."""
    X, W, S = made(N, K, D)
    texts = texts_of(W)
    create(member)  # imports all members, once
    spent, plain = [0.0], whole.neighbours

    def timed(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        found = plain(*args, **kwargs)
        spent[0] += time.perf_counter() - start
        return found

    whole.neighbours = timed
    start, used = time.perf_counter(), time.process_time()
    run(member, X, texts, S)
    total, used = time.perf_counter() - start, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )
    print(json.dumps({"total": total, "graph": spent[0], "used": used, "peak": peak}))


def scale(member: str, sizes: list[int], K: int, D: int) -> None:
    """Print a line for each size, then the exponents."""
    print(f"\n{member}: K = {K:,}, D = {D}, {os.cpu_count()} cores")
    print("       N   seconds   graph    rest   processor   peak GB   load")
    rows = []
    for N in sizes:
        command = [sys.executable, __file__, member, "--child", "--sizes", str(N)]
        command += ["--classes", str(K), "--dim", str(D)]
        told = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        rest = told["total"] - told["graph"]
        rows.append((told["total"], told["graph"], rest, told["used"]))
        print(
            f"{N:8,d} {told['total']:9.1f} {told['graph']:7.1f} {rest:7.1f} {told['used']:11.1f} "
            f"{told['peak'] / 1e9:9.2f} {os.getloadavg()[0]:6.1f}",
            flush=True,
        )
    if len(rows) > 1:
        slope = np.polyfit(np.log(sizes), np.log(rows), 1)[0]
        print("exponent {:9.2f} {:7.2f} {:7.2f} {:11.2f}".format(*slope))


def graph(X: Floats, k: int) -> tuple[NDArray[np.intp], Floats]:
    """The k nearest others from all cosines at once."""
    S = X @ X.T
    np.fill_diagonal(S, -np.inf)
    index = np.argpartition(S, -k, axis=1)[:, -k:]
    return index, np.maximum(np.take_along_axis(S, index, axis=1), 0)


def edges(index: NDArray[np.intp], value: Floats, columns: int) -> sparse.csr_matrix:
    N, k = index.shape
    return sparse.csr_matrix(
        (value.ravel(), index.ravel(), np.arange(0, N * k + 1, k)), shape=(N, columns)
    )


def softmax(S: Floats) -> Floats:
    z = np.exp(S - S.max(axis=1, keepdims=True))
    return np.asarray(z / z.sum(axis=1, keepdims=True))


def transclip(X: Floats, W: Floats, S: Floats, dense: bool) -> Floats:
    """The formula of ``transclip`` with an (N, N) array, or class by class."""
    N, D = X.shape
    K = len(W)
    one = edges(*graph(X, 3), N).astype(np.float32)
    A = (one + one.T).multiply(np.float32(1 / 6)).tocsr()
    A = A.toarray() if dense else A
    y = z = softmax(S)
    mu = np.empty((K, D), np.float32)
    for c in range(K):
        top = np.argpartition(z[:, c], -8)[-8:]
        mu[c] = unit(z[top, c] @ X[top])
    v, distance = np.full(D, 1 / D, np.float32), np.empty_like(S)
    for turn in range(11):
        if turn:
            mu = unit(z.T @ X)
            if dense:
                mass, squares = z.sum(axis=0), z.sum(axis=1) @ X**2
                v = (squares - 2 * np.einsum("kd,kd->d", mu, z.T @ X) + mass @ mu**2) / z.sum()
            else:
                v = np.sum([z[:, c] @ (X - mu[c]) ** 2 for c in range(K)], axis=0) / z.sum()
        if dense:
            distance = (X**2) @ (1 / v)[:, None] - 2 * X @ (mu / v).T + (mu**2 / v).sum(axis=1)
        else:
            for c in range(K):
                distance[:, c] = (X - mu[c]) ** 2 @ (1 / v)
        for _ in range(5):
            z = softmax(np.log(y + 1e-30) - distance / 100 + A @ z)
    return z


def zlap(X: Floats, W: Floats, S: Floats, dense: bool) -> Floats:
    """The formula of ``zlap``, solved as a dense system, or class by class."""
    N, K = S.shape
    one = edges(*graph(X, 4), N)
    cosine = X @ W.T
    index = np.argpartition(cosine, -5, axis=1)[:, -5:]
    text = edges(index, np.maximum(np.take_along_axis(cosine, index, axis=1), 0) ** 5, K)
    V = sparse.bmat([[None, text.T], [text, one + one.T]], format="csr", dtype=np.float32)
    degree = np.asarray(V.sum(axis=1)).ravel()
    half = sparse.diags(1 / np.sqrt(np.where(degree == 0, 1, degree)), dtype=np.float32)
    V = half @ V @ half
    M = (sparse.identity(N + K, dtype=np.float32) - V.multiply(np.float32(0.3))).tocsr()
    first = np.eye(N + K, K, dtype=np.float32)
    if dense:
        Z = np.linalg.solve(M.toarray(), first)
    else:
        Z = np.stack([cg(M, first[:, c], rtol=1e-6, maxiter=50)[0] for c in range(K)], axis=1)
    Z = np.maximum(Z[K:], 0)
    return np.asarray(Z / np.maximum(Z.sum(axis=1, keepdims=True), 1e-30))


PLAIN: dict[str, Callable[..., Floats]] = {"transclip": transclip, "zlap": zlap}


def against(member: str, N: int, K: int, D: int, repeats: int) -> None:
    """Print medians of the member and of its plain versions, run in turns."""
    X, W, S = made(N, K, D)
    texts = texts_of(W)
    create(member)  # imports all members, once
    ways: dict[str, Callable[[], Floats]] = {
        "byname": lambda: run(member, X, texts, S),
        "dense": lambda: PLAIN[member](X, W, S, True),
        "loop": lambda: PLAIN[member](X, W, S, False),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    answers = {}
    for _ in range(repeats):
        for way, call in ways.items():
            start = time.perf_counter()
            answers[way] = call().argmax(axis=1)
            seconds[way].append(time.perf_counter() - start)
    print(
        f"\n{member}: N = {N:,}, K = {K:,}, D = {D}, {os.cpu_count()} cores, medians of {repeats}"
    )
    print("version   seconds   ratio   same answers   load")
    middle = {way: float(np.median(took)) for way, took in seconds.items()}
    for way in ways:
        same = float((answers[way] == answers["byname"]).mean())
        ratio = middle[way] / middle["byname"]
        load = os.getloadavg()[0]
        print(f"{way:7s} {middle[way]:9.1f} {ratio:7.1f} {same:14.4f} {load:6.1f}", flush=True)
        if same < 0.999:
            raise SystemExit(f"{member} and its version '{way}' answer differently")


def main() -> None:
    """Run what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("members", nargs="+")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--against", action="store_true")
    parser.add_argument("--images", type=int, default=10_000, help="with --against")
    parser.add_argument("--repeats", type=int, default=3, help="with --against")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    for member in given.members:
        if given.child:
            child(member, given.sizes[0], given.classes, given.dim)
        elif given.against:
            against(member, given.images, given.classes, given.dim, given.repeats)
        else:
            scale(member, given.sizes, given.classes, given.dim)


if __name__ == "__main__":
    main()

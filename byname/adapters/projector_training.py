"""How the projector's heads are trained: batches, held-out recall, the epoch that is kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.adapters.heads import ImageHead, TextHead
from byname.adapters.training import AdamW, Params, check_loss, contrastive

__all__ = ["MOST", "Training", "held_out"]

Array = NDArray[Any]
MOST = 4096  # pairs of a batch, and of the held-out part
_COLDEST = float(np.log(100))  # the logit scale never grows beyond 100, as in CLIP


class Settings(Protocol):
    """What training needs to know of a ProjectorAligner."""

    variant: Any
    width: int
    batch: int
    epochs: int
    patience: int
    rate: float
    weight_decay: float
    dropout: float
    temperature: float


class Training:
    """The state of one ``fit``."""

    def __init__(
        self,
        owner: Settings,
        asked: str,
        X: Array,
        Y: Array,
        same: tuple[Array, Array],
        held: Array,
        rng: np.random.Generator,
    ) -> None:
        self.owner, self.asked, self.rng = owner, asked, rng
        train = ~held
        self.image: Any = None
        if owner.variant != "ape":
            self.image = ImageHead.start(rng, X[train], owner.width)
        self.dim = X.shape[1] if owner.variant == "ape" else owner.width
        self.text: Any = TextHead.start(rng, Y[train], self.dim)
        X = ops.unit(X) if self.image is None else self.image.prepared(X)
        Y = self.text.prepared(Y)
        self.X, self.Y, self.same = X[train], Y[train], [s[train] for s in same]
        self.held = X[held][:MOST], Y[held][:MOST]
        self.held_same = _same([s[held][:MOST] for s in same])
        self.log_scale = np.array([-np.log(owner.temperature)], np.float32)
        self.params: Params = {f"text.{n}": p for n, p in self.text.params.items()}
        if self.image is not None:
            self.params |= {f"image.{n}": p for n, p in self.image.params.items()}
        self.params["log_scale"] = self.log_scale
        self.adam = AdamW(self.params, owner.rate, owner.weight_decay)
        self.best: tuple[float, float] = (-1.0, 0.0)
        self.epoch = 0

    def run(self) -> tuple[list[float], list[float]]:
        """Train; the best parameters stay. Held-out recalls and training losses by epoch."""
        recalls: list[float] = []
        losses: list[float] = []
        kept: Params = {}
        since = 0
        for _ in range(self.owner.epochs):
            losses.append(self._epoch())
            found = self._look()
            loss = losses[-1] - found[1]  # NaN or infinite where one of the two is
            check_loss(self.asked, len(losses), self.owner.rate, loss, self.params)
            recalls.append(found[0])
            since = 0 if found[0] > self.best[0] else since + 1
            if found > self.best:
                self.best, self.epoch = found, len(recalls)
                kept = {n: p.copy() for n, p in self.params.items()}
            if since >= self.owner.patience:
                break
        for name, value in kept.items():
            self.params[name][...] = value
        return recalls, losses

    def _epoch(self) -> float:
        n, total = len(self.X), 0.0
        for rows in np.array_split(self.rng.permutation(n), -(-n // self.owner.batch)):
            total += self._step(rows) * len(rows)
        return total / n

    def _step(self, rows: Array) -> float:
        mask = None
        if p := self.owner.dropout:
            keep = self.rng.random((len(rows), self.dim), dtype=np.float32) >= p
            mask = keep * np.float32(1 / (1 - p))
        v, text_kept = self.text.forward(self.Y[rows], mask)
        u, image_kept = (
            (self.X[rows], None) if self.image is None else self.image.forward(self.X[rows])
        )
        same = _same([s[rows] for s in self.same])
        loss, gu, gv, gs = contrastive(u, v, float(self.log_scale[0]), same)
        grads = {f"text.{n}": g for n, g in self.text.backward(text_kept, gv).items()}
        if self.image is not None:
            grads |= {f"image.{n}": g for n, g in self.image.backward(image_kept, gu).items()}
        grads["log_scale"] = np.array([gs], np.float32)
        self.adam.step(grads)
        np.minimum(self.log_scale, _COLDEST, out=self.log_scale)
        return loss

    def _look(self) -> tuple[float, float]:
        """Held-out recall, and minus the held-out loss."""
        X, Y = self.held
        u = X if self.image is None else self.image.forward(X)[0]
        v = self.text.forward(Y)[0]
        S, at = u @ v.T, np.arange(len(u))
        hit = [self.held_same[at, S.argmax(axis=1)], self.held_same[S.argmax(axis=0), at]]
        loss = contrastive(u, v, float(self.log_scale[0]), self.held_same)[0]
        return float(np.mean(hit)), -loss


def _same(numbers: Sequence[Array]) -> Array:
    """(n, n): whether two pairs share their image or their text."""
    a, b = numbers
    made: Array = (a[:, None] == a) | (b[:, None] == b)
    return made


def held_out(images: Array, share: float, rng: np.random.Generator) -> Array:
    """Mask of the held-out pairs: whole images with all their texts."""
    count = int(images.max()) + 1
    held = rng.permutation(count)[: min(max(2, round(share * count)), count - 2)]
    return np.isin(images, held)

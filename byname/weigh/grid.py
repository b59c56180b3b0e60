"""Texts that classes share, as templates over classes; for members that weigh templates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byname import ops
from byname.errors import NeedsError
from byname.stage import ClassTexts
from byname.weigh.mean import class_weights

__all__ = ["TemplateGrid"]

Floats = NDArray[np.float64]
COLUMNS = 4096  # texts of whole templates that are compared with the images at a time


class TemplateGrid:
    """The shared texts as P templates of K classes.

    A text takes part where it has a class and a ``prompt_index``. Texts of one class only
    (``prompt_index`` -1) are in no template and keep their share of the class. Several texts of one
    class in one template count as their weighted mean, of length one. A class that lacks a template
    is represented there by the mean of all its texts, of length one, so that no template wins or
    loses by leaving out a class.

    Parameters
    ----------
    texts : ClassTexts
    member : str
        Who asks, for the error.

    Attributes
    ----------
    prompts : array of int, shape (P,)
    base : array, shape (M,)
        Given weight of each text within its class.

    Raises
    ------
    NeedsError
        Where no text is shared by the classes.
    """

    def __init__(self, texts: ClassTexts, member: str) -> None:
        index = ops.to_numpy(texts.class_index)
        prompt = (
            np.full(len(index), -1)
            if texts.prompt_index is None
            else ops.to_numpy(texts.prompt_index)
        )
        rows = np.flatnonzero((prompt >= 0) & (index >= 0))
        if not len(rows):
            raise NeedsError(
                f"run the weigh member '{member}'",
                "no text is a template that classes share (all have prompt_index -1)",
                "Use prompts with templates, or choose another member, such as 'mean'.",
            )
        self.K, self.base = texts.n_classes, class_weights(texts)
        self.rows = rows[np.argsort(prompt[rows], kind="stable")]
        self.prompts, self.column = np.unique(prompt[self.rows], return_inverse=True)
        self.P, self.index = len(self.prompts), index[self.rows]
        self._share = np.bincount(self.index, self.base[self.rows], self.K)
        self._vectors = texts.vectors
        self._zbar = ops.unit(ops.segment_sum(texts.vectors, index, self.K, self.base))

    def tiles(self) -> Iterator[tuple[slice, Any]]:
        """Which templates, and their class vectors (templates * K, D), template by template."""
        for part in ops.blocks(self.P, max(1, COLUMNS // self.K)):
            held = slice(*np.searchsorted(self.column, [part.start, part.stop]))
            rows, n = self.rows[held], (part.stop - part.start) * self.K
            cell, weight = (self.column[held] - part.start) * self.K + self.index[held], self.base
            found = ops.take_rows(self._vectors, rows)
            Z = ops.unit(ops.segment_sum(found, cell, n, weight[rows]))
            absent = np.flatnonzero(np.bincount(cell, weight[rows], n) == 0)
            if len(absent):
                Z[ops.like(absent, Z)] = ops.take_rows(self._zbar, absent % self.K)
            yield part, Z

    def weights(self, w: Floats) -> Floats:
        """Weight (M,) of each text, given the weight of each template for each class (P, K).

        Summing to 1 over each class; a class that has none of the templates that count keeps those
        that it has.
        """
        weight, own = self.base.copy(), self.base[self.rows]
        # Divided by the largest first: equal weights then change nothing at all.
        new = own * (w / w.max(axis=0))[self.column, self.index]
        total = np.bincount(self.index, new, self.K)
        lost = total == 0
        new = np.where(lost[self.index], own, new)
        total = np.where(lost, self._share, total)
        factor = np.divide(self._share, total, out=np.ones(self.K), where=total > 0)
        weight[self.rows] = new * factor[self.index]
        return weight

"""Answers against labels: every metric as a function of resampled images, in one table."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from byname import calibration as cal
from byname import metrics as met
from byname import ops
from byname.bootstrap import Interval, Metric, SumMetric, difference, draw_values, interval
from byname.errors import UsageError, quoted
from byname.stage import Answer
from byname.taxonomy import Taxonomy

__all__ = [
    "METRICS",
    "Predicted",
    "Table",
    "baseline_of",
    "check_baseline",
    "check_metrics",
    "ranks_for",
    "score",
    "split_list",
]

Floats = NDArray[np.float64]
Get = Callable[[str], Floats]
Table = dict[str, dict[str, Any]]
METRICS: tuple[str, ...] = (
    *("top1", "top5", "balanced", "worst1", "worst3", "worst3_fixed", "severity", "hd1"),
    *("hm", "gm", "ece", "nll", "brier"),
)
_MORE = (
    *("hm_exact", "gm_exact", "worst_two", "hprecision", "hrecall", "hf1"),
    *("coverage", "risk", "depth", "aurc"),
)
_NUMBERED = re.compile(r"(top|worst|hd)([1-9]\d*)(_fixed)?")


@dataclass(frozen=True, eq=False)
class Predicted:
    """What one recipe answers about N images; it knows no label.

    Parameters
    ----------
    answer : Answer
        With the ranks that the metrics ask for.
    S : array, shape (N, K)
        Logits over ``taxonomy.classes``.
    taxonomy : Taxonomy
        Cut where a level was asked for.
    """

    answer: Answer
    S: NDArray[Any]
    taxonomy: Taxonomy


def split_list(text: str, at: str = ",") -> list[str]:
    """Split at the commas, or another character, outside brackets.

    Examples
    --------
    >>> split_list("plain, cpe[per_class=true,rounds=2]")
    ['plain', 'cpe[per_class=true,rounds=2]']
    """
    return [part for p in re.split(rf"{re.escape(at)}(?![^\[]*\])", text) if (part := p.strip())]


def check_metrics(metrics: str | Iterable[str]) -> tuple[str, ...]:
    """The names of metrics, each once.

    Raises
    ------
    UsageError
        For an unknown name, or none.

    Examples
    --------
    >>> check_metrics("top1, worst10_fixed")
    ('top1', 'worst10_fixed')
    """
    names = split_list(metrics) if isinstance(metrics, str) else list(metrics)
    for name in names:
        numbered = _NUMBERED.fullmatch(name)
        fits = numbered and (numbered[1] == "worst" or not numbered[3])
        if not fits and name not in (*METRICS, *_MORE):
            known = ", ".join((*METRICS, *_MORE))
            raise UsageError(
                f"compute '{name}'",
                "there is no such metric",
                f"Known: {known}; and topK, worstM, worstM_fixed, hdK with any number.",
            )
    if not names:
        raise UsageError("evaluate", "no metric was named", f"Known: {', '.join(METRICS)}.")
    return tuple(dict.fromkeys(names))


def ranks_for(metrics: Iterable[str]) -> int:
    """How many ranks must be answered."""
    found = (_NUMBERED.fullmatch(name) for name in metrics)
    return max([1, *(int(m[2]) for m in found if m and m[1] != "worst")])


def _columns(
    predicted: Predicted, labels: NDArray[np.intp], names: Iterable[str]
) -> tuple[Any, dict[str, slice]]:
    """What each image adds to the sums that the metrics are made of, and where they stand."""
    answer, taxonomy = predicted.answer, predicted.taxonomy
    true, first = taxonomy.leaf_index[labels], answer.node[:, 0]
    confidence = np.asarray(answer.probability[:, 0], np.float64)
    rows, bins = np.arange(len(labels)), cal.ece_bins(confidence)

    def spread(values: Any, columns: NDArray[np.intp], width: int) -> Any:
        place = (rows, columns)
        return sparse.csc_array((np.asarray(values, np.float64), place), (len(rows), width))

    blocks: dict[str, Any] = {
        name: sparse.csc_array(np.asarray(values, np.float64)[:, None])
        for name, values in _single(predicted, labels, names).items()
    }
    blocks["class_n"] = spread(np.ones(len(rows)), labels, len(taxonomy))
    blocks["class_correct"] = spread(first == true, labels, len(taxonomy))
    said = first > 0  # the root is always right, and says nothing
    blocks["bin_confidence"] = spread(said * confidence, bins, cal.BINS)
    blocks["bin_right"] = spread(said & _contains(predicted, labels), bins, cal.BINS)
    layout, start = {}, 0
    for name, block in blocks.items():
        layout[name] = slice(start, start + block.shape[1])
        start += block.shape[1]
    return sparse.hstack(list(blocks.values()), format="csc"), layout


def _contains(predicted: Predicted, labels: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Whether the answer is the true class or an ancestor of it."""
    taxonomy, first = predicted.taxonomy, predicted.answer.node[:, 0]
    return np.equal(met.lca_nodes(taxonomy, taxonomy.leaf_index[labels], first), first)


def _single(
    predicted: Predicted, labels: NDArray[np.intp], names: Iterable[str]
) -> dict[str, NDArray[Any]]:
    """One number for each image, by what it is."""
    answer, taxonomy = predicted.answer, predicted.taxonomy
    true, first = taxonomy.leaf_index[labels], answer.node[:, 0]
    distance = met.tree_distance(taxonomy, labels, answer.node)
    both, said, all_true = met.hierarchical_parts(taxonomy, labels, first)
    covered = (answer.decision != "reject") & (first > 0)
    found = {
        "n": np.ones(len(labels)),
        "answered": first > 0,
        "distance": distance[:, 0],
        "mistakes": distance[:, 0] > 0,
        "nll": cal.nll_each(predicted.S, labels),
        "brier": cal.brier_each(ops.softmax(np.asarray(predicted.S, np.float64)), labels),
        "covered": covered,
        "wrong": covered & ~_contains(predicted, labels),
        "depth": covered * taxonomy.depths[first],
        "both": both,
        "said": said,
        "true": all_true,
    }
    for name in names:
        numbered = _NUMBERED.fullmatch(name)
        if numbered and numbered[1] == "top":
            found[name] = met.topk_each(answer.node, true, int(numbered[2]))
        elif numbered and numbered[1] == "hd":
            found[name] = met.hd_each(distance, int(numbered[2]))
    return found


_MEANS = {"nll": "nll", "brier": "brier", "coverage": "covered"}
_RATIOS = {
    "severity": ("distance", "mistakes"),
    "risk": ("wrong", "covered"),
    "depth": ("depth", "covered"),
}
_HIERARCHICAL = {"hprecision": "precision", "hrecall": "recall", "hf1": "f1"}


def _finish(name: str, fixed: NDArray[np.intp], layout: dict[str, slice], sums: Floats) -> Floats:
    """One metric from the sums (B, m)."""
    get: Get = lambda key: sums[:, layout[key]]  # noqa: E731
    if name in layout and _NUMBERED.fullmatch(name):
        above, below = get(name), get("n")
    elif name in _MEANS:
        above, below = get(_MEANS[name]), get("n")
    elif name in _RATIOS:
        above, below = map(get, _RATIOS[name])
    elif name in _HIERARCHICAL:
        parts = met.hierarchical_from_sums(get("both"), get("said"), get("true"))
        return parts[_HIERARCHICAL[name]][:, 0]
    elif name == "ece":
        return np.asarray(
            cal.ece_from_sums(get("bin_confidence"), get("bin_right"), get("answered")[:, 0])
        )
    else:
        n = get("class_n")
        return np.asarray(_of_classes(name, met.divide(get("class_correct"), n), n, fixed))
    return met.divide(above, below)[:, 0]


def _of_classes(name: str, a: Floats, n: Floats, fixed: NDArray[np.intp]) -> Any:
    if name == "balanced":
        return met.balanced_accuracy(a)
    if name.startswith("worst"):
        m = int(_NUMBERED.fullmatch(name)[2])  # type: ignore[index]
        return met.worst_fixed(a, fixed[:m]) if "_fixed" in name else met.worst_m(a, m)
    mean = met.harmonic_mean if name.startswith("hm") else met.geometric_mean
    return mean(a if name.endswith("_exact") else met.with_floor(a, n)[0])


def _aurc(predicted: Predicted, labels: NDArray[np.intp], weights: Floats) -> float:
    confidence = np.asarray(predicted.answer.probability[:, 0], np.float64)
    said = predicted.answer.node[:, 0] > 0
    curve = cal.coverage_risk(confidence, _contains(predicted, labels), weights=weights * said)
    return cal.aurc(curve)


def _by_draw(function: Callable[[Floats], float]) -> Metric:
    return lambda weights: np.array([function(w) for w in weights.T])


def _metrics(
    predicted: Predicted, labels: NDArray[np.intp], names: Sequence[str], fixed: NDArray[np.intp]
) -> dict[str, Metric]:
    columns, layout = _columns(predicted, labels, names)
    found: dict[str, Metric] = {}
    for name in names:
        if name == "worst_two":
            found[name] = _by_draw(partial(met.worst_two_class, predicted.S, labels))
        elif name == "aurc":
            found[name] = _by_draw(partial(_aurc, predicted, labels))
        else:
            found[name] = SumMetric(columns, partial(_finish, name, fixed, layout))
    return found


def _class_accuracy(
    predicted: Predicted, labels: NDArray[np.intp]
) -> tuple[Floats, NDArray[np.intp]]:
    correct = predicted.answer.node[:, 0] == predicted.taxonomy.leaf_index[labels]
    return met.class_accuracy(correct, labels, len(predicted.taxonomy))


def baseline_of(names: Iterable[str], wanted: str | None = None) -> str | None:
    """The recipe that is wanted, else ``plain`` where it is among them, else the first.

    None where there is none, or not the wanted one.

    Examples
    --------
    >>> baseline_of(["ensemble", "plain"]), baseline_of(["ensemble", "plain"], "ensemble")
    ('plain', 'ensemble')
    """
    names = list(names)
    if wanted is not None:
        return wanted if wanted in names else None
    return "plain" if "plain" in names else next(iter(names), None)


def check_baseline(wanted: str | None, names: Iterable[str]) -> None:
    """Raise UsageError for a baseline that is none of the recipes."""
    names = list(names)
    if wanted is not None and wanted not in names:
        raise UsageError(
            f"use the baseline '{wanted}'",
            f"it is none of the recipes {quoted(names)}",
            "Name it as it is named among the recipes, or add it to them.",
        )


def _baseline(predictions: Mapping[str, Predicted | str], wanted: str | None) -> str | None:
    check_baseline(wanted, predictions)
    reason = None if wanted is None else predictions[wanted]
    if isinstance(reason, str):
        asked = f"compare with the baseline '{wanted}'"
        raise UsageError(asked, f"it was skipped: {reason}", "Choose another --baseline.")
    ran = [name for name, p in predictions.items() if isinstance(p, Predicted)]
    return baseline_of(ran, wanted)


def score(
    predictions: Mapping[str, Predicted | str],
    labels: NDArray[np.intp],
    metrics: str | Iterable[str] = METRICS,
    *,
    draws: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
    differences: bool = False,
    baseline: str | None = None,
) -> Table:
    """Metrics with percentile intervals, all recipes over the same draws of images.

    Parameters
    ----------
    predictions : mapping of str to Predicted or str
        A text is the reason why a recipe was skipped.
    labels : array of int, shape (N,)
        Classes of the taxonomy that was answered with.
    metrics : str or iterable of str
    draws, seed, confidence
        Number of draws, their seed, level of the intervals.
    differences : bool
        Add each metric's paired difference from the baseline.
    baseline : str, optional
        What is compared with: see :func:`baseline_of`, over the recipes that ran.

    Returns
    -------
    dict
        ``{recipe: {metric: {"value", "low", "high"}}}``, or ``{recipe: {"skipped": reason}}``;
        None for what is not defined. ``hm`` and ``gm`` have ``floor`` and ``floored`` beside
        them where classes were raised to the floor.

    Raises
    ------
    UsageError
        For an unknown metric, and a baseline that is no recipe or was skipped.
    """
    names, base = check_metrics(metrics), _baseline(predictions, baseline)
    done = {name: p for name, p in predictions.items() if isinstance(p, Predicted)}
    fixed = np.zeros(0, np.intp)
    if base is not None:
        accuracy, _ = _class_accuracy(done[base], labels)
        fixed = met.worst_classes(accuracy, len(accuracy))
    functions = {
        f"{metric}@{recipe}": function
        for recipe, predicted in done.items()
        for metric, function in _metrics(predicted, labels, names, fixed).items()
    }
    drawn = draw_values(functions, len(labels), draws=draws, seed=seed)
    table: Table = {
        recipe: {"skipped": predicted}
        if isinstance(predicted, str)
        else _row(recipe, base if differences else None, names, drawn, confidence)
        for recipe, predicted in predictions.items()
    }
    for recipe, predicted in done.items():
        _name_floor(table[recipe], predicted, labels)
    return table


def _name_floor(row: dict[str, Any], predicted: Predicted, labels: NDArray[np.intp]) -> None:
    raised = int(met.with_floor(*_class_accuracy(predicted, labels))[1].sum())
    for name in {"hm", "gm"} & row.keys() if raised else ():
        row[name] |= {"floor": met.FLOOR, "floored": raised}


def _row(
    recipe: str,
    base: str | None,
    names: Sequence[str],
    drawn: Mapping[str, tuple[float, Floats]],
    confidence: float,
) -> dict[str, Any]:
    """The metrics of one recipe, with differences from ``base`` where it is another recipe."""
    row: dict[str, Any] = {}
    for name in names:
        own = drawn[f"{name}@{recipe}"]
        row[name] = _entry(interval(*own, confidence))
        if base not in (None, recipe):
            row[name]["difference"] = _entry(difference(own, drawn[f"{name}@{base}"], confidence))
    return row


def _entry(found: Interval) -> dict[str, Any]:
    return {key: float(x) if np.isfinite(x) else None for key, x in found._asdict().items()}

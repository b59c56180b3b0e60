"""The table of metrics: each number against a plain loop, intervals, differences, names."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byname import metrics as met
from byname.errors import UsageError
from byname.scoring import METRICS, Predicted, baseline_of, check_metrics, ranks_for, score
from tests.reference import metrics as reference
from tests.trees import Case, random_case

MORE = ("worst2", "worst2_fixed", "top2", "hd3", "hm_exact", "gm_exact", "worst_two", "aurc")
MORE += ("hprecision", "hrecall", "hf1", "coverage", "risk", "depth")


def predicted(case: Case) -> Predicted:
    return Predicted(case.answer, case.S, case.taxonomy)


def expected(case: Case) -> dict[str, float]:
    """Every metric in plain loops."""
    t, labels, K = case.taxonomy, case.labels.tolist(), len(case.taxonomy)
    true = t.leaf_index[case.labels].tolist()
    ranked = case.answer.node.tolist()
    first = [row[0] for row in ranked]
    correct = [n == y for n, y in zip(first, true, strict=True)]
    a = reference.class_accuracy(correct, labels, K)
    floored = [max(x, 0.5 / labels.count(k)) for k, x in a.items()]
    d = [reference.distance(t, y, n) for y, n in zip(true, first, strict=True)]
    right = [n in reference.ancestors(t, y) for y, n in zip(true, first, strict=True)]
    p = case.answer.probability[:, 0].tolist()
    covered = [i for i, n in enumerate(first) if n != 0 and case.answer.decision[i] != "reject"]
    said = [i for i, n in enumerate(first) if n != 0]
    p, right_said = [p[i] for i in said], [right[i] for i in said]
    h = reference.hierarchical(t, true, first)
    fixed = sorted(a, key=lambda k: (a[k], k))
    nan = float("nan")
    found = {
        "balanced": sum(a.values()) / len(a),
        "severity": reference.severity(d),
        "hm": reference.harmonic_mean(floored),
        "gm": reference.geometric_mean(floored),
        "hm_exact": reference.harmonic_mean(list(a.values())),
        "gm_exact": reference.geometric_mean(list(a.values())),
        "ece": reference.ece(p, right_said) if said else nan,
        "nll": reference.nll(case.S.tolist(), labels),
        "brier": reference.brier(case.S.tolist(), labels),
        "worst_two": reference.worst_two_class(case.S.tolist(), labels, K),
        "aurc": reference.aurc(p, right_said) if said else nan,
        "hprecision": h[0],
        "hrecall": h[1],
        "hf1": h[2],
        "coverage": len(covered) / len(true),
        "risk": sum(not right[i] for i in covered) / len(covered) if covered else nan,
        "depth": sum(int(t.depths[first[i]]) for i in covered) / len(covered) if covered else nan,
    }
    for k in (1, 2, 5):
        hits = [y in row[:k] for y, row in zip(true, ranked, strict=True)]
        found[f"top{k}"] = sum(hits) / len(hits)
    for k in (1, 3):
        found[f"hd{k}"] = reference.hd_at_k(t, true, ranked, k)
    for m in (1, 2, 3):
        found[f"worst{m}"] = reference.worst_m(a, m)
        found[f"worst{m}_fixed"] = sum(a[k] for k in fixed[:m]) / len(fixed[:m])
    return found


@settings(max_examples=30)
@given(seed=st.integers(0, 10_000), K=st.integers(1, 8), N=st.integers(1, 40), inner=st.booleans())
def test_every_metric_agrees_with_loops(seed: int, K: int, N: int, inner: bool) -> None:
    case = random_case(seed, N, K, inner=inner)
    row = score({"r": predicted(case)}, case.labels, (*METRICS, *MORE), draws=0)["r"]
    wanted = expected(case)
    assert list(row) == [*METRICS, *MORE]
    for name, entry in row.items():
        if np.isnan(wanted[name]):
            assert entry["value"] is None, name
        else:
            assert entry["value"] == pytest.approx(wanted[name], abs=1e-6), name
    if row["severity"]["value"] is not None:
        product = (1 - row["top1"]["value"]) * row["severity"]["value"]
        assert abs(row["hd1"]["value"] - product) < 1e-9


def test_draws_are_the_metric_of_the_images_drawn() -> None:
    """Each interval against one by hand: take images again, and compute the loops."""
    from byname.bootstrap import resamples

    case = random_case(3, 30, 5, inner=True)
    names = (*METRICS, *MORE)
    found = score({"r": predicted(case)}, case.labels, names, draws=9, seed=4, confidence=0.5)["r"]
    weights = np.concatenate(list(resamples(30, 9, 4)), axis=1).astype(int)
    values = []
    for w in weights.T:
        again = np.repeat(np.arange(30), w)
        answer = type(case.answer)(
            *(getattr(case.answer, f)[again] for f in ("node", "probability", "margin", "decision"))
        )
        values.append(expected(Case(case.taxonomy, case.labels[again], case.S[again], answer)))
    for name in names:
        if "_fixed" in name:
            continue  # its classes are those of the whole set; see below
        low, high = np.quantile([v[name] for v in values], [0.25, 0.75])
        assert found[name]["low"] == pytest.approx(low, abs=1e-6), name
        assert found[name]["high"] == pytest.approx(high, abs=1e-6), name


def test_the_fixed_set_is_the_baselines() -> None:
    case, other = random_case(0, 60), random_case(0, 60)
    shifted = np.roll(other.answer.node, 1, axis=1)
    worse = Predicted(
        type(case.answer)(
            shifted, case.answer.probability, case.answer.margin, case.answer.decision
        ),
        case.S,
        case.taxonomy,
    )
    table = score(
        {"ensemble": worse, "plain": predicted(case)}, case.labels, ("worst2_fixed", "worst2")
    )
    assert table["plain"]["worst2_fixed"]["value"] == table["plain"]["worst2"]["value"]
    assert table["ensemble"]["worst2_fixed"]["value"] >= table["ensemble"]["worst2"]["value"]
    assert baseline_of(["a", "plain"]) == "plain"
    assert baseline_of(["a", "b"]) == "a"
    assert baseline_of([]) is None


def test_the_baseline_can_be_chosen() -> None:
    case = random_case(0, 60)
    shuffled = case.answer.node[np.random.default_rng(0).permutation(60)]
    a = case.answer
    other = type(a)(shuffled, a.probability, a.margin, a.decision)
    rivals = {
        "plain": predicted(case),
        "b": Predicted(other, case.S, case.taxonomy),
        "c": "why",
    }
    names = ("top1", "worst2", "worst2_fixed")
    table = score(rivals, case.labels, names, differences=True, baseline="b", draws=20)
    assert "difference" not in table["b"]["top1"]
    gain = table["plain"]["top1"]["value"] - table["b"]["top1"]["value"]
    assert table["plain"]["top1"]["difference"]["value"] == pytest.approx(gain)
    assert table["b"]["worst2_fixed"]["value"] == table["b"]["worst2"]["value"]
    assert baseline_of(["plain", "b"], "b") == "b"
    assert baseline_of(["plain"], "b") is None
    with pytest.raises(UsageError, match=r"'d': it is none of the recipes 'plain', 'b', 'c'\."):
        score(rivals, case.labels, names, baseline="d")
    with pytest.raises(UsageError, match="compare with the baseline 'c': it was skipped: why"):
        score(rivals, case.labels, names, baseline="c")


@pytest.mark.parametrize(
    "function, names",
    [
        ("topk_each", "top2"),
        ("hd_each", "hd2"),
        ("hierarchical_parts", "hf1"),
        ("hierarchical_from_sums", "hprecision"),
        ("worst_two_class", "worst_two"),
    ],
)
def test_each_metric_has_one_definition(
    function: str, names: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = random_case(0, 20)
    asked = []
    real = getattr(met, function)
    monkeypatch.setattr(met, function, lambda *a, **k: asked.append(1) or real(*a, **k))
    score({"r": predicted(case)}, case.labels, names, draws=0)
    assert asked


def test_differences_are_paired() -> None:
    case = random_case(1, 200)
    table = score(
        {"a": predicted(case), "b": predicted(case), "c": "no texts"},
        case.labels,
        ("top1", "severity"),
        differences=True,
        draws=50,
    )
    assert "difference" not in table["a"]["top1"]
    assert table["b"]["top1"]["difference"] == {"value": 0, "low": 0, "high": 0}
    assert table["c"] == {"skipped": "no texts"}
    low, value, high = (table["a"]["top1"][key] for key in ("low", "value", "high"))
    assert low < value < high


def test_a_floor_is_named_where_it_was_used() -> None:
    case = random_case(0, 40, 3)
    never = np.where(case.labels == 0, case.taxonomy.leaf_index[1], case.answer.node[:, 0])
    answer = type(case.answer)(
        never[:, None], case.answer.probability, case.answer.margin, case.answer.decision
    )
    row = score(
        {"r": Predicted(answer, case.S, case.taxonomy)}, case.labels, "hm,gm,hm_exact", draws=0
    )["r"]
    assert row["hm"]["floor"] == row["gm"]["floor"] == "a_k >= 1/(2 n_k)"
    assert row["hm"]["floored"] == 1
    assert row["hm"]["value"] > 0
    assert row["hm_exact"] == {"value": 0.0, "low": None, "high": None}


def test_all_recipes_skipped() -> None:
    assert score({"r": "why"}, np.zeros(3, np.intp)) == {"r": {"skipped": "why"}}


def test_all_images_of_one_class_and_no_mistake() -> None:
    case = random_case(0, 10, 4)
    labels = np.full(10, 2)
    node = np.tile(case.taxonomy.leaf_index[[2, 0]], (10, 1))
    answer = type(case.answer)(
        node, case.answer.probability, case.answer.margin, case.answer.decision
    )
    row = score({"r": Predicted(answer, case.S, case.taxonomy)}, labels, draws=20)["r"]
    assert row["severity"] == {"value": None, "low": None, "high": None}
    for name in ("top1", "balanced", "worst1", "worst3", "worst3_fixed", "hm", "gm"):
        assert row[name] == {"value": 1, "low": 1, "high": 1}


def test_same_seed_same_table() -> None:
    case = random_case(0)
    one, two, three = (
        score({"r": predicted(case)}, case.labels, draws=30, seed=s) for s in (0, 0, 1)
    )
    assert one == two != three


@pytest.mark.parametrize("name", ["top0", "top", "worst", "accuracy", "top1_fixed", "hd-1", ""])
def test_unknown_metrics(name: str) -> None:
    with pytest.raises(UsageError, match=r"there is no such metric|no metric was named"):
        check_metrics(name)


def test_names_and_ranks() -> None:
    assert check_metrics(METRICS) == METRICS
    assert check_metrics("top1,top1, hd20") == ("top1", "hd20")
    assert ranks_for(("top5", "hd20", "worst50")) == 20
    assert ranks_for(("nll",)) == 1

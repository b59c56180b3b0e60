from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byname.errors import UsageError
from byname.ops import softmax
from byname.programs.conformal_filter import ConformalFilter
from tests.reference import conformal as ref

IDS = ["a", "b", "c", "d"]


def scores(seed: int, n: int) -> tuple[Any, Any]:
    """Probabilities of a fast scorer, and the answers of a slow one that mostly agrees."""
    rng = np.random.default_rng(seed)
    S = rng.normal(0, 2, (n, 4))
    return softmax(S), (S + rng.gumbel(0, 1, S.shape)).argmax(axis=1)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 999),
    st.integers(1, 50),
    st.sampled_from(["split", "adaptive"]),
    st.booleans(),
    st.sampled_from([0.05, 0.3]),
)
def test_it_is_the_plain_formula(
    seed: int, n: int, variant: Any, per_class: bool, eps: float
) -> None:
    P, y = scores(seed, n)
    new, theirs = scores(seed + 1, 20)
    model = ConformalFilter(IDS, eps, variant, per_class).fit(P, [IDS[k] for k in y])
    expected = ref.sets(new, P, y, eps, variant, per_class)
    assert [np.flatnonzero(row).tolist() for row in model.sets(new)] == expected
    asked: list[int] = []

    def slow(i: int, candidates: Any) -> str:
        asked.append(i)
        assert candidates == [IDS[k] for k in expected[i]]
        wanted = IDS[theirs[i]]
        return wanted if wanted in candidates else str(candidates[0])

    found = model.predict(new, slow)
    several = [i for i, row in enumerate(expected) if len(row) > 1]
    assert asked == several
    assert found.calls == len(several)
    assert found.share == pytest.approx(sum(len(expected[i]) for i in several) / 80)
    for i, row in enumerate(expected):
        assert found.ids[i] in [IDS[k] for k in row]
        if theirs[i] in row:
            assert found.ids[i] == IDS[theirs[i]] or len(row) == 1


def test_the_slow_answer_is_kept_as_often_as_promised() -> None:
    kept = []
    for seed in range(300):
        P, y = scores(seed, 41)
        model = ConformalFilter(IDS, 0.1).fit(P[:40], [IDS[k] for k in y[:40]])
        kept.append(model.sets(P[40:])[0, y[40]])
    error = 3 * np.sqrt(0.09 / 300)
    assert 0.9 - error <= np.mean(kept) <= 0.9 + 1 / 41 + error


def test_few_items_keep_everything() -> None:
    P, y = scores(0, 98)
    model = ConformalFilter(IDS).fit(P, [IDS[k] for k in y])
    assert model.sets(P).all()
    assert model.n_ == 98
    found = model.predict(P[:0], lambda i, ids: ids[0])
    assert (found.calls, found.share, found.ids.shape) == (0, 0, (0,))


def test_bad_arguments() -> None:
    P, y = scores(0, 5)
    ids = [IDS[k] for k in y]
    with pytest.raises(UsageError, match="nothing was calibrated"):
        ConformalFilter(IDS).sets(P)
    for params in ({"eps": 0}, {"eps": 1}, {"variant": "x"}):
        with pytest.raises(UsageError, match="above 0 and below 1; known: split"):
            ConformalFilter(IDS, **params).fit(P, ids)
    with pytest.raises(UsageError, match="'z' is no class"):
        ConformalFilter(IDS).fit(P, ["z", *ids[1:]])
    with pytest.raises(UsageError, match="there are 4 for 5 items"):
        ConformalFilter(IDS).fit(P, ids[1:])
    for wrong in (P[:, :3], 3 * P, P * np.nan, P[0]):
        with pytest.raises(UsageError, match="for 4 classes"):
            ConformalFilter(IDS).fit(wrong, ids)
    model = ConformalFilter(IDS).fit(P, ids)
    with pytest.raises(UsageError, match="answer about item 0: it said 'z'"):
        model.predict(P, lambda i, candidates: "z")


def test_ids_and_answers_that_cannot_be_told_apart() -> None:
    P, y = scores(0, 5)
    ids = [IDS[k] for k in y]
    with pytest.raises(UsageError, match="classes twice: 'a'"):
        ConformalFilter(["a", "a", "b", "c"], 0.5).fit(P, ids)
    for classes in ([1, 2, 3, 4], "abcd"):
        with pytest.raises(UsageError, match="not a list of ids"):
            ConformalFilter(classes, 0.5).fit(P, ids)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"eps is '0\.1'"):
        ConformalFilter(IDS, "0.1").fit(P, ids)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="the answers are one text"):
        ConformalFilter(IDS, 0.5).fit(P, "aabbc")
    with pytest.raises(UsageError, match=r"'\[1\]' is no class"):
        ConformalFilter(IDS, 0.5).fit(P, [[1], *ids[1:]])  # type: ignore[list-item]


def test_what_was_calibrated_with_other_settings_is_forgotten() -> None:
    P, y = scores(0, 40)
    ids, classes = [IDS[k] for k in y], list(IDS)
    model = ConformalFilter(classes, 0.5).fit(P, ids)
    assert model.get_params()["eps"] == 0.5
    model.eps = 0.1
    with pytest.raises(UsageError, match="nothing was calibrated with these settings"):
        model.sets(P)
    model.fit(P, ids)
    classes.reverse()
    with pytest.raises(UsageError, match="nothing was calibrated"):
        model.predict(P, lambda i, kept: kept[0])
    clone = pytest.importorskip("sklearn.base").clone
    assert clone(model).fit(P, ids).threshold_.shape == (4,)

"""ICIS and its baseline: the four losses, their gradients, recovery, and the head around them."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from byname.adapters.icis import Icis, LinearHead, RidgeInjector, _initial, _losses, inject
from byname.errors import UsageError
from byname.ops import unit
from tests.reference.adapters import icis


def relation(seed: int = 0, S: int = 160, U: int = 30, a: int = 12, d: int = 20) -> Any:
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((S + U, a))
    W = A @ rng.standard_normal((a, d))
    return A[:S], W[:S], A[S:], W[S:]


def cosines(made: Any, truth: Any) -> Any:
    return (unit(made.astype(float)) * unit(truth)).sum(axis=1)


@pytest.mark.parametrize("seed", range(3))
def test_losses_and_gradients(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p = {n: v.astype(float) for n, v in _initial(rng, 4, 5, 7).items()}
    x, y, z = rng.standard_normal((6, 4)), rng.standard_normal((6, 5)), rng.standard_normal((3, 4))
    wanted = (unit(x), unit(y), unit(z))
    loss, grads = _losses(p, (x, y, z), wanted)
    assert loss == pytest.approx(icis(p, x, y, z), abs=1e-10)
    for name, value in p.items():
        at = tuple(rng.integers(0, n) for n in value.shape)
        moved = {n: v.copy() for n, v in p.items()}
        moved[name][at] += 1e-6
        more = icis(moved, x, y, z)
        moved[name][at] -= 2e-6
        assert grads[name][at] == pytest.approx((more - icis(moved, x, y, z)) / 2e-6, abs=1e-6)


def test_ridge_recovers_a_linear_relation() -> None:
    A, W, A_new, W_new = relation()
    assert cosines(inject(W, None, A, A_new, "ridge"), W_new).min() > 1 - 1e-6


def test_autoencoders_recover_a_linear_relation() -> None:
    A, W, A_new, W_new = relation()
    model = Icis(hidden=256)
    made = inject(W, None, A, A_new, model)
    assert cosines(made, W_new).mean() > 0.95
    assert len(model.losses_) < 200


def test_rows_have_the_length_of_the_heads() -> None:
    A, W, A_new, _ = relation()
    bias = np.arange(len(W), dtype=float)
    for method in ("ridge", Icis(hidden=16, epochs=2)):
        made = inject(W, bias, A, A_new, method)
        assert made.shape == (30, 21)
        length = np.linalg.norm(np.column_stack([W, bias]), axis=1).mean()
        np.testing.assert_allclose(np.linalg.norm(made, axis=1), length, rtol=1e-5)


def test_training_stops_by_the_slope_and_keeps_the_last_step() -> None:
    A, W, A_new, _ = relation()
    model = Icis(hidden=32, slope=8.0).fit(A, W)  # no loss falls by 8 in an epoch
    assert len(model.losses_) == 6
    same = Icis(hidden=32, slope=0.0, epochs=6).fit(A, W)
    np.testing.assert_array_equal(model.transform(A_new), same.transform(A_new))
    losses = Icis(hidden=64).fit(A, W).losses_
    drops = -np.diff(losses)
    assert (drops[-5:] < 2e-3).all()
    assert drops[-6] >= 2e-3


def test_unseen_descriptions_take_part() -> None:
    A, W, A_new, _ = relation()
    alone, helped = (Icis(hidden=32, epochs=3).fit(A, W, more) for more in (None, A_new))
    assert not np.array_equal(alone.transform(A_new), helped.transform(A_new))
    again = Icis(hidden=32, epochs=3).fit(A, W, A_new)
    np.testing.assert_array_equal(again.transform(A_new), helped.transform(A_new))


def test_few_seen_classes_warn() -> None:
    A, W, A_new, _ = relation()
    for method in ("ridge", Icis(hidden=8, epochs=1)):
        with pytest.warns(UserWarning, match="29 classes"):
            inject(W[:29], None, A[:29], A_new, method)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            inject(W[:30], None, A[:30], A_new, method)


def test_head_over_seen_and_unseen() -> None:
    A, W, A_new, W_new = relation()
    seen, new = [f"s{i}" for i in range(160)], [f"u{i}" for i in range(30)]
    rows = inject(W, None, A, A_new, "ridge")
    head = LinearHead(W, None, tuple(seen)).add(rows, new)
    assert (len(head.class_ids), head.n_seen, head.weights.shape) == (190, 160, (190, 20))
    X = np.concatenate([W, W_new])
    S = head.decision_function(X)
    np.testing.assert_allclose(S[:, :160], X @ W.T, rtol=1e-5, atol=1e-4)
    offset = LinearHead(W, None, tuple(seen), offset=1e6).add(rows, new)
    assert set(offset.predict(X)) <= set(new)
    np.testing.assert_allclose(offset.decision_function(X)[:, 160:], S[:, 160:], rtol=1e-6)
    assert head.predict(X.astype(np.float16)).shape == (190,)


def test_the_bias_column_is_the_bias() -> None:
    head = LinearHead(np.eye(2), [0.0, 1.0], ("a", "b")).add([[0.0, 0.0, 5.0]], ["c"])
    np.testing.assert_allclose(head.decision_function(np.zeros((1, 2))), [[0, 1, 5]])
    assert head.add(np.ones((1, 2)), ["d"]).bias.tolist() == [0, 1, 5, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": 0}, "hidden is 0"),
        ({"rate": 0.0}, "rate is 0.0"),
        ({"beta1": 1.0}, "beta1 is 1.0"),
        ({"batch": 0}, "batch is 0"),
        ({"epochs": 0}, "epochs is 0"),
        ({"slope": -1.0}, "slope is -1.0"),
        ({"patience": 0}, "patience is 0"),
    ],
)
def test_settings(change: dict[str, Any], message: str) -> None:
    A, W, *_ = relation()
    with pytest.raises(UsageError, match=message):
        Icis(**change).fit(A, W)


def test_bad_input() -> None:
    A, W, A_new, _ = relation()
    for arguments, message in (
        ((W, None, A, A_new, "magic"), "method is 'magic'"),
        ((W, np.ones(3), A, A_new, "ridge"), "biases of shape"),
        ((W[:9], None, A, A_new, "ridge"), "160 descriptions of seen classes, but 9 rows"),
        ((W, None, A, A_new[:, :3], "ridge"), "Give"),
        ((W, None, A, A_new, RidgeInjector(ridge=-1)), "ridge is -1"),
    ):
        with pytest.raises(UsageError, match=message):
            inject(*arguments)
    for arguments, message in (
        ((np.eye(2), None, ("a",)), "1 classes"),
        ((np.eye(2), None, ("a", "a")), "stand twice"),
        ((np.eye(2), [1.0], ("a", "b")), "biases of shape"),
    ):
        with pytest.raises(UsageError, match=message):
            LinearHead(*arguments)
    with pytest.raises(UsageError, match="width 5"):
        LinearHead(np.eye(2), None, ("a", "b")).add(np.ones((1, 5)), ["c"])
    with pytest.raises(UsageError, match="not fitted"):
        Icis().transform(A)

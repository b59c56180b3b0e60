"""Adapters against broken files, broken rows, refits that end early, and rates that diverge."""

from __future__ import annotations

import json
import struct
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from byname.adapters.align import LinearAligner, aligned_encoder, concept_logic, drift
from byname.adapters.icis import Icis, LinearHead, RidgeInjector, inject
from byname.adapters.projector import ProjectorAligner, linear_cka, projected_encoder
from byname.adapters.projector_training import Training
from byname.adapters.ridge import RIDGES, fit_ridge
from byname.adapters.store import load_arrays, save_arrays
from byname.adapters.towers import TwoTowers
from byname.encoders.precomputed import PrecomputedEncoder
from byname.errors import EncoderError, UsageError
from byname.ops import unit
from byname.runs.encoding import Batcher
from tests.helpers import FakeEncoder


def world(n: int = 60, a: int = 6, d: int = 4, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    F = rng.standard_normal((n, a)).astype(np.float32)
    return F, (F @ rng.standard_normal((a, d)) + rng.standard_normal((n, d))).astype(np.float32)


def projector(**change: Any) -> ProjectorAligner:
    return ProjectorAligner(**{"width": 8, "batch": 32, "epochs": 2, **change})


KINDS: dict[str, Any] = {"LinearAligner": LinearAligner, "ProjectorAligner": ProjectorAligner}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: Any) -> Any:
    """Arrays and header of a good file of each kind."""
    F, G = world()
    found = {}
    for model in (LinearAligner(), projector()):
        kind = type(model).__name__
        path = tmp_path_factory.mktemp("adapters") / kind
        model.fit(F, G).save(path)
        names = {"weight", "bias"} if kind == "LinearAligner" else set(model._arrays())
        found[kind] = load_arrays(path, kind, frozenset(names))
    return found


@pytest.mark.parametrize(
    ("kind", "change"),
    [("LinearAligner", c) for c in ({"ridge_": [1]}, {"ridge_": "x"}, {"r2_": None}, {"seed": [3]})]
    + [("LinearAligner", c) for c in ({"ridge_": 10**400}, {"ridge_": -1}, {"holdout": "zz"})]
    + [("LinearAligner", c) for c in ({"ridge": {"a": 1}}, {"r2_": float("nan")})]
    + [("ProjectorAligner", {"spread": s}) for s in ({"image": 0, "text": 1}, [1], 5, {"text": 1})]
    + [("ProjectorAligner", {"spread": {"image": s, "text": 1}}) for s in (np.nan, 1e-300, 1e300)]
    + [("ProjectorAligner", {"dim_": v}) for v in (10**13, 4, [8], "8", 10**400)]
    + [("ProjectorAligner", {"n_features_in_": v}) for v in (10**13, -1, 1, None)]
    + [("ProjectorAligner", {"scale_": v}) for v in ("abc", float("nan"), -5, 0, None, 10**400)]
    + [("ProjectorAligner", {"variant": v}) for v in ("zzz", "ape", [1])]
    + [("ProjectorAligner", c) for c in ({"cka_": [1]}, {"width": "8"}, {"batch": 1e9})],
)
def test_headers(saved: Any, tmp_path: Path, kind: str, change: dict[str, Any]) -> None:
    arrays, about = saved[kind]
    save_arrays(tmp_path / "x", kind, arrays, {**about, **change})
    with pytest.raises(EncoderError, match="do not fit together"):
        KINDS[kind].load(tmp_path / "x")


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("LinearAligner", {"weight": np.ones((0, 4), np.float32)}),
        ("LinearAligner", {"weight": np.ones((6, 0)), "bias": np.ones(0)}),
        ("LinearAligner", {"weight": np.full((6, 4), 1e300)}),
        ("LinearAligner", {"weight": np.float32(1)}),
        ("LinearAligner", {"weight": np.ones((6, 4, 1), np.float32)}),
        ("LinearAligner", {"bias": np.ones((1, 4), np.float32)}),
        ("ProjectorAligner", {"image.A": np.ones((6, 1), np.float32)}),
        ("ProjectorAligner", {"image.A": np.full((6, 8), 1e300)}),
        ("ProjectorAligner", {"image.A": np.full((6, 8), 3e38, np.float32)}),
        ("ProjectorAligner", {"text.gain": np.ones(1, np.float32)}),
        ("ProjectorAligner", {"text.mean": np.zeros((), np.float32)}),
        ("ProjectorAligner", {"image.c": np.ones((1, 8), np.float32)}),
    ],
)
def test_arrays(saved: Any, tmp_path: Path, kind: str, change: dict[str, Any]) -> None:
    arrays, about = saved[kind]
    save_arrays(tmp_path / "x", kind, {**arrays, **change}, about)
    with pytest.raises(EncoderError, match=r"do not fit together|not usable"):
        KINDS[kind].load(tmp_path / "x")


@pytest.mark.parametrize(("dtype", "size"), [("F8_E4M3", 1), ("F8_E5M2", 1), ("BF16", 2)])
def test_types_that_numpy_lacks(tmp_path: Path, dtype: str, size: int) -> None:
    header: dict[str, Any] = {
        "__metadata__": {"format": "byname-adapter/1", "kind": "LinearAligner", "about": "{}"},
        "weight": {"dtype": dtype, "shape": [2, 2], "data_offsets": [0, 4 * size]},
        "bias": {"dtype": dtype, "shape": [2], "data_offsets": [4 * size, 6 * size]},
    }
    text = json.dumps(header).encode()
    (tmp_path / "x").write_bytes(struct.pack("<Q", len(text)) + text + bytes(6 * size))
    with pytest.raises(EncoderError, match="numbers of type"):
        LinearAligner.load(tmp_path / "x")


def test_a_refit_that_fails_changes_nothing() -> None:
    A, W = world()
    model = Icis(hidden=8, epochs=2)
    with pytest.raises(UsageError, match=r"Give \(n, 6\)"):
        model.fit(A, W, A[:, :2])
    with pytest.raises(UsageError, match="not fitted"):
        model.transform(A)
    before = model.fit(A, W).transform(A)
    with pytest.raises(UsageError):
        model.fit(A[:, :5], 100 * W, A[:, :2])
    np.testing.assert_array_equal(model.transform(A), before)


@pytest.mark.parametrize("model", [projector(), Icis(hidden=8, epochs=2)])
def test_a_refit_that_is_interrupted_changes_nothing(model: Any, monkeypatch: Any) -> None:
    A, W = world()
    transform = getattr(model, "transform_images", None) or model.transform
    before = model.fit(A, W) and transform(A)

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Training, "run", stop)
    monkeypatch.setattr(Icis, "_train", stop)
    with pytest.raises(KeyboardInterrupt):
        model.fit(np.hstack([A, A]), 100 * W)
    np.testing.assert_array_equal(transform(A), before)


@pytest.mark.parametrize(("model", "calls"), [(LinearAligner(), 2), (RidgeInjector(), 1)])
def test_an_interrupted_closed_form_changes_nothing(
    model: Any, calls: int, monkeypatch: Any
) -> None:
    A, W = world()
    before = model.fit(A, W).transform(A)
    learned = dict(vars(model))
    left = [calls]

    def stop(*arguments: Any) -> Any:
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        return fit_ridge(*arguments)

    monkeypatch.setattr("byname.adapters.align.fit_ridge", stop)
    monkeypatch.setattr("byname.adapters.icis.fit_ridge", stop)
    with pytest.raises(KeyboardInterrupt):
        model.fit(np.hstack([A, A]), 100 * W)
    assert all(vars(model)[name] is value for name, value in learned.items())
    np.testing.assert_array_equal(model.transform(A), before)


def test_encoders_keep_what_their_fingerprint_says() -> None:
    F, G = world()
    eye = PrecomputedEncoder((["-"], np.ones((1, 6))), (["a.jpg"], unit(F[:1])))
    clip = PrecomputedEncoder.from_arrays(["cat"], np.ones((1, 4)))
    for model, make in (
        (LinearAligner(), lambda m: aligned_encoder(eye, m, clip)),
        (projector(), lambda m: projected_encoder(eye, clip, m)),
    ):
        both = make(model.fit(F, G))
        then = both.info.weights_sha256
        images, texts = both.lookup(["a.jpg"]), both.encode_texts(["cat"])
        model.fit(F[::-1] ** 2, G)
        found = both.lookup(["a.jpg"])
        assert images is not None
        assert found is not None
        np.testing.assert_array_equal(found[0], images[0])
        np.testing.assert_array_equal(both.encode_texts(["cat"]), texts)
        assert make(model).info.weights_sha256 != then


def test_one_image_without_a_vector_is_one_row() -> None:
    class Eye(FakeEncoder):
        def encode_images(self, pixels: Any) -> Any:
            found = super().encode_images(pixels).copy()
            found[pixels[:, 0, 0, 0] == 7] = np.nan
            return found

    eye = Eye(name="eye", weights="w1")
    pixels = np.random.default_rng(0).integers(8, 256, (30, 32, 32, 3), dtype=np.uint8)
    F = eye.encode_images(pixels)
    aligner = LinearAligner().fit(F, F[:, :3])
    clip = PrecomputedEncoder.from_arrays(["cat"], np.ones((1, 3)))
    both = aligned_encoder(eye, aligner, clip)
    assert isinstance(both, TwoTowers)
    pixels[1, 0, 0, 0] = 7
    found = Batcher(both).vectors(dict(enumerate(pixels[:3])))
    assert isinstance(found[1], str)
    assert "NaN" in found[1]
    assert "pair" not in found[1]
    np.testing.assert_allclose(
        np.stack([found[0], found[2]]), aligner.transform(F[[0, 2]]), atol=1e-5
    )


def test_repeated_images_do_not_leak_into_r2() -> None:
    rng = np.random.default_rng(0)
    F, G = rng.standard_normal((20, 30)), rng.standard_normal((20, 5))
    assert LinearAligner(ridge=1e-6).fit(np.tile(F, (10, 1)), np.tile(G, (10, 1))).r2_ < 0.3
    assert LinearAligner().fit(np.repeat(F[:2], 5, axis=0), np.repeat(G[:2], 5, axis=0)).r2_ <= 0
    assert LinearAligner().fit(np.ones((5, 3)), G[:5]).r2_ == pytest.approx(0, abs=1e-12)


def test_the_order_of_pairs_does_not_matter() -> None:
    F, G = world()
    mixed = np.random.default_rng(1).permutation(len(F))
    one, other = LinearAligner().fit(F, G), LinearAligner().fit(F[mixed], G[mixed])
    assert (one.r2_, one.ridge_) == (other.r2_, other.ridge_)
    np.testing.assert_array_equal(one.weight_, other.weight_)
    assert LinearAligner(seed=1).fit(F, G).r2_ != one.r2_


@pytest.mark.parametrize("seed", range(8))
def test_of_ridges_that_do_as_well_the_strongest(seed: int) -> None:
    F, G = world(3, 6, 4, seed)
    assert LinearAligner().fit(F, G).ridge_ == RIDGES[-1]
    assert fit_ridge(F[:2], G[:2], "auto").ridge == RIDGES[-1]


@pytest.mark.parametrize(
    "fit",
    [
        lambda F, G: projector(rate=1e6, epochs=4).fit(F, G),
        lambda F, G: projector(rate=1e30).fit(F, G),
        lambda F, G: Icis(hidden=8, rate=1e30).fit(F, G),
        lambda F, G: Icis(hidden=8, rate=1e37, epochs=1, batch=60).fit(F, G),
    ],
)
def test_divergence_names_the_rate(fit: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UsageError, match="training diverges with rate 1"):
            fit(*world())


def test_enormous_features() -> None:
    F, G = world()
    huge = F.astype(float) * 1e200
    for fit in (
        lambda: LinearAligner().fit(huge, G),
        lambda: projector().fit(huge, G),
        lambda: Icis(hidden=8).fit(huge, G),
        lambda: inject(huge, None, G, G, "ridge"),
        lambda: linear_cka(huge, G),
        lambda: LinearAligner().fit(F, G).transform(huge),
    ):
        with pytest.raises(UsageError, match="1e30 or more"):
            fit()
    big = LinearAligner().fit(F * np.float32(1e25), G)
    assert big.r2_ == pytest.approx(LinearAligner(ridge=big.ridge_).fit(F, G).r2_, abs=0.5)
    np.testing.assert_allclose(
        big.transform(F * np.float32(1e25)),
        LinearAligner(big.ridge_).fit(F, G).transform(F),
        atol=1e-4,
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LinearHead(np.eye(2), [np.nan, 0], ("a", "b")), "biases hold NaN"),
        (lambda: LinearHead(np.eye(2), ["x", "y"], ("a", "b")), "biases: could not"),
        (lambda: LinearHead(np.eye(2), None, ("a", "b"), offset=np.nan), "offset is nan"),
        (lambda: LinearHead(np.eye(2), None, ("a", "b"), n_seen=3), "n_seen is 3"),
        (lambda: LinearHead(np.eye(2), None, ("a", "b"), n_seen=-2), "n_seen is -2"),
        (lambda: LinearHead(np.eye(2), None, "ab"), "class ids are 'ab'"),
        (lambda: LinearHead(np.eye(2), None, ("a", "b")).add(np.eye(2), "cd"), "are 'cd'"),
        (lambda: LinearHead(np.eye(2), None, ("a", "b")).add(np.eye(2)[:1], ["a"]), "stand twice"),
        (lambda: LinearHead(np.eye(2), None, ("a", "b")).predict([[1.0, np.nan]]), "images hold"),
        (lambda: LinearHead(np.eye(2), None, ("a", "b")).predict([[1.0, 2, 3]]), "Give .n, 2"),
        (lambda: LinearHead(np.eye(2), None, ("a", "b")).predict([1.0, 2]), "Give .n, 2"),
    ],
)
def test_heads_refuse(make: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()


def test_a_head_of_many_classes_is_made_at_once() -> None:
    ids = tuple(str(i) for i in range(30_000))
    start = time.process_time()
    assert LinearHead(np.ones((30_000, 1), np.float32), None, ids).n_seen == 30_000
    assert time.process_time() - start < 2  # tens of milliseconds, and many seconds by tuple.count
    assert LinearHead(np.eye(2), None, ("a", "b")).predict(np.array([[1, 2]])).tolist() == ["b"]


@pytest.mark.parametrize("where", range(3))
def test_drift_refuses_nan(where: int) -> None:
    given = [np.random.default_rng(i).standard_normal((5, 3)) for i in range(3)]
    given[where][1, 2] = np.nan
    with pytest.raises(UsageError, match="first is row 1"):
        drift(*given, list("abcde"))


def test_concept_logic_is_all_rules_at_once() -> None:
    rng = np.random.default_rng(0)
    X, T = rng.standard_normal((200, 5)), rng.standard_normal((4, 5))
    S = unit(X) @ unit(T).T
    high, low = S.mean(axis=0) + 0.5 * S.std(axis=0), S.mean(axis=0) - 0.25 * S.std(axis=0)
    found = concept_logic(
        X, T, list("abcd"), {"a": (">", 0.5), "c": ("<", -0.25), "d": (">", -0.25)}
    )
    wanted = np.flatnonzero((S[:, 0] > high[0]) & (S[:, 2] < low[2]) & (S[:, 3] > low[3]))
    assert 0 < len(found) < 200
    np.testing.assert_array_equal(np.sort(found), wanted)
    one = concept_logic(X, T, list("abcd"), {"b": (">", 1)})
    assert (np.diff(S[one, 1]) <= 0).all()
    mixed = rng.permutation(200)
    np.testing.assert_array_equal(
        mixed[concept_logic(X[mixed], T, list("abcd"), {"b": (">", 1)})], one
    )


def test_concept_logic_edges() -> None:
    X, T = np.tile([3.0, 1.0], (4, 1)), np.eye(2)
    for sign in (">", "<"):
        assert not len(concept_logic(X, T, ["a", "b"], {"a": (sign, 0)}))
    assert not len(concept_logic(X[:0], T, ["a", "b"], {"a": (">", 0)}))
    for names, rules in (
        (["a", "b"], {}),
        (["a", "b"], {"c": (">", 1)}),
        (["a", "b"], {"a": (">=", 1)}),
        (["a", "b"], {"a": (">", np.nan)}),
        (["a", "a"], {"a": (">", 1)}),
        (["a"], {"a": (">", 1)}),
    ):
        with pytest.raises(UsageError, match="the rules are"):
            concept_logic(X, T, names, rules)
    with pytest.raises(UsageError, match="hold NaN"):
        concept_logic(X * np.nan, T, ["a", "b"], {"a": (">", 0)})

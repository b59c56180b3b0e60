"""The linear aligner: against a plain solution, its identities, files, encoders, drift."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from byname.adapters.align import LinearAligner, aligned_encoder, concept_similarity, drift
from byname.adapters.ridge import RIDGES, fit_ridge
from byname.encoders.precomputed import PrecomputedEncoder
from byname.errors import EncoderError, OutputError, UsageError
from byname.ops import unit
from byname.taskfile import Task
from tests.helpers import FakeEncoder
from tests.reference.adapters import leave_one_out, ridge

seeds = st.integers(0, 10_000)


def world(seed: int = 0, n: int = 120, a: int = 10, d: int = 7, noise: float = 0.3) -> Any:
    rng = np.random.default_rng(seed)
    F = rng.standard_normal((n, a)) * rng.uniform(0.2, 3, a) + rng.standard_normal(a)
    G = F @ rng.standard_normal((a, d)) + 2 + noise * rng.standard_normal((n, d))
    return F, G


@settings(max_examples=25, deadline=None)
@given(seeds, st.sampled_from([1e-4, 0.1, 10.0]), st.sampled_from([(40, 6, 5), (9, 20, 4)]))
def test_plain_solution(seed: int, strength: float, shape: tuple[int, int, int]) -> None:
    F, G = world(seed, *shape)
    weight, bias = ridge(F, G, strength)
    found = fit_ridge(F, G, strength)
    np.testing.assert_allclose(found.weight, weight, atol=1e-6)
    np.testing.assert_allclose(found.bias, bias, atol=1e-6)


@pytest.mark.parametrize("shape", [(30, 5, 3), (10, 14, 3)])
def test_auto_is_the_least_leave_one_out_error(shape: tuple[int, int, int]) -> None:
    F, G = world(1, *shape, noise=4.0)
    errors = [leave_one_out(F, G, r) for r in RIDGES]
    assert fit_ridge(F, G, "auto").ridge == RIDGES[int(np.argmin(errors))]


def test_real_vectors(shared: Path) -> None:
    F, G = (
        Task.load(shared / "rs19" / f"{name}.npz").images[:700].astype(float)
        for name in ("clip-rn50", "clip-vit-b-32")
    )
    aligner = LinearAligner(ridge=0.1).fit(F.astype(np.float32), G.astype(np.float32))
    weight, bias = ridge(F, G, 0.1)
    made = aligner.transform(F[:50].astype(np.float32))
    np.testing.assert_allclose(made, unit(F[:50] @ weight + bias), atol=1e-5)


def test_a_space_aligned_to_itself(shared: Path) -> None:
    task = Task.load(shared / "rs19" / "clip-vit-b-32.npz")
    X, W = task.images, unit(task.texts.mean(axis=0))
    aligner = LinearAligner().fit(X, X)
    assert aligner.r2_ > 0.9999
    np.testing.assert_array_equal(
        (aligner.transform(X) @ W.T).argmax(axis=1), (X @ W.T).argmax(axis=1)
    )


@settings(max_examples=10, deadline=None)
@given(seeds, st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_units_do_not_matter_and_the_bias_is_right(seed: int, p: float, q: float) -> None:
    F, G = world(seed)
    one = LinearAligner(ridge=0.01).fit(F, G)
    other = LinearAligner(ridge=0.01).fit(p * F + 5, q * G)
    np.testing.assert_allclose(other.transform(p * F + 5), one.transform(F), atol=1e-6)
    # Held out are other pairs, which are drawn by what they hold.
    np.testing.assert_allclose(other.r2_, one.r2_, atol=0.02)
    wrong_bias = F @ one.weight_ + one.bias_ * 1.5
    assert not np.allclose(unit(wrong_bias), one.transform(F), atol=1e-3)


def test_fewer_images_than_features_take_a_stronger_ridge() -> None:
    F, G = world(0, 400, 100, 6, noise=3.0)
    few, many = LinearAligner().fit(F[:95], G[:95]), LinearAligner().fit(F[:350], G[:350])
    assert few.ridge_ > many.ridge_
    weak = LinearAligner(ridge=1e-6).fit(F[:95], G[:95])
    new, truth = F[350:], unit(G[350:])
    assert np.sum(few.transform(new) * truth) > np.sum(weak.transform(new) * truth)
    assert weak.r2_ < few.r2_ < many.r2_


def test_r2_is_of_pairs_not_fitted() -> None:
    F, _ = world(0, 200, 80, 5)
    noise = np.random.default_rng(9).standard_normal((200, 5))
    assert LinearAligner(ridge=1e-6).fit(F, noise).r2_ < 0.0
    assert LinearAligner().fit(F, F[:, :5]).r2_ > 0.999


def test_edge_cases() -> None:
    F, G = world()
    aligner = LinearAligner().fit(F.astype(np.float16), G.astype(np.float32))
    made = aligner.transform(np.zeros((2, 10), np.float16))
    assert made.dtype == np.float32
    assert not made.any()
    assert aligner.transform(F[:0]).shape == (0, 7)
    constant = LinearAligner().fit(np.ones((9, 4)), G[:9])
    np.testing.assert_allclose(constant.transform(np.ones((1, 4)))[0], unit(G[:9].mean(axis=0)))
    same = LinearAligner().fit(F, np.ones((len(F), 3)))
    assert same.r2_ == 1.0
    assert LinearAligner().fit(F[:3], G[:3]).ridge_ in RIDGES


def test_sklearn_manners() -> None:
    base = pytest.importorskip("sklearn.base")
    F, G = world()
    aligner = LinearAligner(seed=3)
    np.testing.assert_array_equal(
        base.clone(aligner).fit(F, G).transform(F), aligner.fit_transform(F, G)
    )
    assert aligner.n_features_in_ == 10
    aligner.set_params(ridge=1.0)
    with pytest.raises(UsageError, match="not fitted"):
        aligner.transform(F)


def test_files(tmp_path: Path) -> None:
    F, G = world()
    aligner = LinearAligner(seed=2).fit(F, G)
    path = tmp_path / "a.safetensors"
    aligner.save(path)
    again = LinearAligner.load(path)
    np.testing.assert_array_equal(again.transform(F), aligner.transform(F))
    assert (again.seed, again.ridge_, again.r2_) == (2, aligner.ridge_, aligner.r2_)
    assert not path.read_bytes().startswith(b"\x80")  # a pickle
    with pytest.raises(OutputError, match="No such file"):
        aligner.save(tmp_path / "none" / "a.safetensors")
    with pytest.raises(UsageError, match="not fitted"):
        LinearAligner().save(path)
    with pytest.raises(EncoderError, match="cannot be read"):
        LinearAligner.load(tmp_path / "missing.safetensors")
    (tmp_path / "torn").write_bytes(path.read_bytes()[:-9])
    with pytest.raises(EncoderError, match="cannot be read"):
        LinearAligner.load(tmp_path / "torn")


def test_foreign_files(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    from byname.adapters.store import save_arrays

    path = tmp_path / "x.safetensors"
    save_file({"weight": np.ones((2, 2))}, path)
    with pytest.raises(EncoderError, match="no adapter"):
        LinearAligner.load(path)
    two = {"weight": np.ones((2, 2)), "bias": np.ones(3)}
    for arrays, seen in (
        (two, "weight is"),
        ({"weight": two["weight"]}, "holds the arrays"),
        ({**two, "bias": np.full(2, np.nan)}, "bias is not usable"),
        ({**two, "bias": np.ones(2, np.int64)}, "numbers of type"),
    ):
        save_arrays(path, "LinearAligner", arrays, {})
        with pytest.raises(EncoderError, match=seen):
            LinearAligner.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ridge": 0}, "ridge is 0"),
        ({"ridge": "strong"}, "'auto' or a number above 0"),
        ({"holdout": 1.0}, "holdout is 1.0"),
    ],
)
def test_settings(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        LinearAligner(**change).fit(*world())


def test_bad_rows() -> None:
    F, G = world()
    for pair, message in (
        ((F[:5], G[:4]), "5 features, but 4 target features"),
        ((F[:2], G[:2]), "there are 2 pairs"),
        ((F[0], G), "have the shape"),
        ((np.where(np.arange(120)[:, None] == 4, np.nan, F), G), "the first is row 4"),
    ):
        with pytest.raises(UsageError, match=message):
            LinearAligner().fit(*pair)
    with pytest.raises(UsageError, match=r"Give \(n, 10\)"):
        LinearAligner().fit(F, G).transform(G)


def test_an_encoder_of_two() -> None:
    vision = FakeEncoder(name="eye", weights="w1")
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    F = vision.encode_images(pixels)
    aligner = LinearAligner().fit(F, F @ rng.standard_normal((8, 3)) + 1)
    clip = PrecomputedEncoder.from_arrays(["cat", "dog"], np.eye(3)[:2], logit_scale=50, id="clip")
    both = aligned_encoder(vision, aligner, clip)
    assert (both.info.id, both.info.dim, both.info.logit_scale) == ("eye + clip", 3, 50.0)
    assert both.info.preprocess == vision.info.preprocess
    np.testing.assert_array_equal(both.encode_images(pixels), aligner.transform(F))
    np.testing.assert_array_equal(both.encode_texts(["dog"]), clip.encode_texts(["dog"]))
    assert both.lookup(["a.jpg"]) is None
    other = LinearAligner(ridge=1.0).fit(F, F @ rng.standard_normal((8, 3)))
    again = aligned_encoder(vision, aligner, clip)
    assert again.info.image_fingerprint() == both.info.image_fingerprint()
    new = aligned_encoder(vision, other, clip).info
    assert new.image_fingerprint() != both.info.image_fingerprint()
    with pytest.raises(EncoderError, match="width 3"):
        aligned_encoder(clip, aligner, clip)
    with pytest.raises(EncoderError, match="width 8"):
        aligned_encoder(vision, aligner, vision)


def test_stored_vectors_are_aligned() -> None:
    F, G = world()
    rows = unit(F.astype(np.float32))
    eye = PrecomputedEncoder((["x"], np.ones((1, 10))), ([f"{i}.jpg" for i in range(120)], rows))
    clip = PrecomputedEncoder.from_arrays(["cat"], np.ones((1, 7)))
    aligner = LinearAligner().fit(rows, G)
    found = aligned_encoder(eye, aligner, clip).lookup(["3.jpg", "no.jpg"])
    assert found is not None
    np.testing.assert_allclose(found[0], aligner.transform(rows[[3]]), atol=1e-6)
    assert list(found[1]) == ["no.jpg"]


def test_drift_is_welchs_test() -> None:
    rng = np.random.default_rng(0)
    A, B, T = rng.normal(0, 1, (30, 6)), rng.normal(0.4, 2, (50, 6)), rng.normal(0, 1, (4, 6))
    found = drift(A, B, T, ["a", "b", "c", "d"])
    a, b = concept_similarity(A, T), concept_similarity(B, T)
    np.testing.assert_allclose(a[0, 0], A[0] @ T[0] / np.linalg.norm(A[0]) / np.linalg.norm(T[0]))
    wanted = stats.ttest_ind(b, a, equal_var=False)
    by_name = {d.concept: d for d in found}
    for i, name in enumerate("abcd"):
        assert by_name[name].t == pytest.approx(wanted.statistic[i])
        assert by_name[name].p == pytest.approx(wanted.pvalue[i])
        assert by_name[name].after - by_name[name].before == pytest.approx(
            b[:, i].mean() - a[:, i].mean()
        )
    assert [abs(d.t) for d in found] == sorted((abs(d.t) for d in found), reverse=True)


def test_drift_of_constants() -> None:
    A, B = np.tile([1.0, 0.0], (3, 1)), np.tile([0.0, 1.0], (3, 1))
    same, other = drift(A, A, np.eye(2)[:1], ["x"])[0], drift(A, B, np.eye(2)[:1], ["x"])[0]
    assert (same.t, same.p, other.t, other.p) == (0.0, 1.0, -np.inf, 0.0)
    with pytest.raises(UsageError, match="1 and 3 images"):
        drift(A[:1], B, np.eye(2), ["x", "y"])
    with pytest.raises(UsageError, match="1 names"):
        drift(A, B, np.eye(2), ["x"])

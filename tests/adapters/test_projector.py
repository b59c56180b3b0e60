"""The projector: gradients against finite differences, masks, stopping, files, encoders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byname.adapters.heads import ImageHead, TextHead
from byname.adapters.projector import ProjectorAligner, linear_cka, projected_encoder
from byname.adapters.projector_training import held_out
from byname.adapters.training import AdamW, contrastive
from byname.encoders.precomputed import PrecomputedEncoder
from byname.errors import EncoderError, UsageError
from byname.ops import unit
from tests.reference.adapters import cka, image_head, infonce, text_head

seeds = st.integers(0, 10_000)
HEADS = [(ImageHead, image_head), (TextHead, text_head)]


def pairs(seed: int = 0, n: int = 400, a: int = 14, b: int = 11, noise: float = 0.2) -> Any:
    rng = np.random.default_rng(seed)
    hidden = rng.standard_normal((n, 8))
    V = np.tanh(hidden @ rng.standard_normal((8, a))) + noise * rng.standard_normal((n, a))
    L = np.tanh(hidden @ rng.standard_normal((8, b))) + noise * rng.standard_normal((n, b))
    return V + 3, L


def small(**change: Any) -> ProjectorAligner:
    return ProjectorAligner(**{"width": 24, "batch": 64, "epochs": 12, **change})


def started(kind: Any, rng: Any) -> tuple[Any, Any]:
    X = rng.standard_normal((6, 5)) * 2 + 1
    head = kind.start(rng, X, 4)
    head.params = {n: p.astype(float) for n, p in head.params.items()}
    return head, head.prepared(X)


@pytest.mark.parametrize(("kind", "plain"), HEADS)
@pytest.mark.parametrize("seed", range(3))
def test_heads_and_their_gradients(kind: Any, plain: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    head, Z = started(kind, rng)
    assert head.shapes(5, 4) == {n: p.shape for n, p in head.params.items()}
    target = rng.standard_normal((6, 4))
    u, kept = head.forward(Z)
    np.testing.assert_allclose(u, plain(Z, head.params), atol=1e-6)
    grads = head.backward(kept, target)
    for name, value in head.params.items():
        for _ in range(3):
            at = tuple(rng.integers(0, n) for n in value.shape)
            moved = {n: v.copy() for n, v in head.params.items()}
            moved[name][at] += 1e-6
            more = np.sum(plain(Z, moved) * target)
            moved[name][at] -= 2e-6
            slope = (more - np.sum(plain(Z, moved) * target)) / 2e-6
            assert grads[name][at] == pytest.approx(slope, abs=2e-5), name


def test_dropout_is_in_the_gradient() -> None:
    rng = np.random.default_rng(0)
    head, Z = started(TextHead, rng)
    mask, target = rng.integers(0, 2, (6, 4)) * 2.0, rng.standard_normal((6, 4))
    grads = head.backward(head.forward(Z, mask)[1], target)
    for name, value in head.params.items():
        at = (0,) * value.ndim
        value[at] += 1e-6
        more = np.sum(head.forward(Z, mask)[0] * target)
        value[at] -= 2e-6
        slope = (more - np.sum(head.forward(Z, mask)[0] * target)) / 2e-6
        value[at] += 1e-6
        assert grads[name][at] == pytest.approx(slope, abs=2e-5), name


@settings(max_examples=25, deadline=None)
@given(seeds, st.booleans())
def test_contrastive_loss_and_gradients(seed: int, masked: bool) -> None:
    rng = np.random.default_rng(seed)
    U, V = (rng.standard_normal((5, 3)) for _ in range(2))
    groups = rng.integers(0, 3, 5)
    same = groups[:, None] == groups if masked else np.eye(5, dtype=bool)
    s = float(rng.uniform(0, 3))
    loss, gu, gv, gs = contrastive(U, V, s, same if masked else None)
    assert loss == pytest.approx(infonce(U, V, np.exp(s), same), abs=1e-9)

    def at(change: Any, i: int, j: int, by: float) -> float:
        U2, V2, s2 = U.copy(), V.copy(), s
        if change == "s":
            s2 += by
        else:
            (U2 if change == "u" else V2)[i, j] += by
        return infonce(U2, V2, np.exp(s2), same)

    for change, grad in (("u", gu[1, 2]), ("v", gv[4, 0]), ("s", gs)):
        i, j = (1, 2) if change == "u" else (4, 0)
        slope = (at(change, i, j, 1e-6) - at(change, i, j, -1e-6)) / 2e-6
        assert grad == pytest.approx(slope, abs=1e-5)


def test_adam_w_by_hand() -> None:
    p = {"M": np.array([[1.0]]), "v": np.array([1.0])}
    adam = AdamW(p, rate=0.1, decay=0.5)
    m = v = 0.0
    weight, plain = 1.0, 1.0
    for t, g in enumerate([2.0, -1.0, 0.5], start=1):
        adam.step({"M": np.array([[g]]), "v": np.array([g])})
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        move = 0.1 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        weight, plain = weight * (1 - 0.1 * 0.5) - move, plain - move
    assert p["M"][0, 0] == pytest.approx(weight, abs=1e-9)
    assert p["v"][0] == pytest.approx(plain, abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(seeds, st.sampled_from([(30, 5, 4), (6, 20, 9)]))
def test_cka(seed: int, shape: tuple[int, int, int]) -> None:
    n, a, b = shape
    rng = np.random.default_rng(seed)
    V, L = rng.standard_normal((n, a)), rng.standard_normal((n, b))
    assert linear_cka(V, L) == pytest.approx(cka(V, L), abs=1e-9)
    assert linear_cka(V, L) == pytest.approx(linear_cka(L, V), abs=1e-9)
    turned = V @ np.linalg.qr(rng.standard_normal((a, a)))[0]
    assert linear_cka(V, 2 * turned + 1) == pytest.approx(1, abs=1e-9)
    assert linear_cka(V, np.ones((n, b))) == 0.0


@pytest.mark.parametrize("variant", ["freeze-align", "ape"])
def test_pairs_are_found_again(variant: Any) -> None:
    V, L = pairs(n=900)
    V = V - 3 if variant == "ape" else V  # what is left as it is must tell images apart already
    model = small(variant=variant, epochs=30).fit(V[:800], L[:800])
    u, v = model.transform_images(V[800:]), model.transform_texts(L[800:])
    found = (u @ v.T).argmax(axis=1) == np.arange(100)
    assert found.mean() > (0.2 if variant == "ape" else 0.5)  # by chance 0.01
    np.testing.assert_allclose(np.linalg.norm(u, axis=1), 1, atol=1e-5)
    assert model.dim_ == (14 if variant == "ape" else 24)
    assert model.losses_[-1] < model.losses_[0]
    assert u.dtype == v.dtype == np.float32
    if variant == "ape":
        np.testing.assert_allclose(u, unit(V[800:]), atol=1e-6)


def test_early_stop_keeps_the_best_epoch() -> None:
    V, L = pairs(noise=1.5)
    model = small(patience=2, epochs=40, rate=0.02).fit(V, L)
    assert len(model.recalls_) < 40
    assert model.recall_ == max(model.recalls_)
    best = model.recalls_.index(model.recall_)
    assert len(model.recalls_) == best + 3
    assert model.recalls_[model.epoch_ - 1] == model.recall_
    again = small(epochs=model.epoch_, rate=0.02).fit(V, L)
    np.testing.assert_array_equal(again.transform_texts(L), model.transform_texts(L))


def test_identical_texts_are_no_negatives() -> None:
    V, L = pairs(n=60)
    L[1::2] = L[::2]
    texts = [f"text {i // 2}" for i in range(60)]
    by_row, by_text = (small(epochs=3, batch=54).fit(V, L, given) for given in (None, texts))
    np.testing.assert_array_equal(by_row.transform_texts(L), by_text.transform_texts(L))
    different = small(epochs=3, batch=54).fit(V, L, [str(i) for i in range(60)])
    # As false negatives the twins keep each other from a loss below log 2.
    assert by_row.losses_[0] < different.losses_[0]
    assert different.recall_ <= by_row.recall_


def test_no_image_lies_on_both_sides_of_the_split() -> None:
    images = np.repeat(np.arange(20), 5)
    held = held_out(images, 0.1, np.random.default_rng(0))
    assert held.sum() == 10
    assert not set(images[held]) & set(images[~held])


def test_temperature_is_learned_and_bounded() -> None:
    V, L = pairs()
    model = small(temperature=0.01, rate=0.1, epochs=4).fit(V, L)
    assert model.scale_ <= 100.001
    assert small().fit(V, L).scale_ != pytest.approx(1 / 0.07)


def test_edge_cases() -> None:
    V, L = pairs()
    model = small(epochs=1).fit(V.astype(np.float16), L.astype(np.float16))
    assert not model.transform_images(np.zeros((1, 14))).any()
    assert model.transform_texts(L[:0]).shape == (0, 24)
    np.testing.assert_allclose(
        model.transform_images(V)[:1], model.transform_images(V[:1]), atol=1e-6
    )
    flat = small(epochs=2).fit(V, np.ones_like(L))
    assert np.isfinite(flat.transform_texts(L)).all()
    assert small(epochs=1).fit(V[:8], L[:8]).dim_ == 24


@pytest.mark.parametrize("variant", ["freeze-align", "ape"])
def test_files_and_encoders(tmp_path: Path, variant: Any) -> None:
    V, L = pairs()
    rows, words = unit(V.astype(np.float32)), unit(L.astype(np.float32))
    model = small(variant=variant, epochs=2, seed=4).fit(rows, words)
    model.save(tmp_path / "p.safetensors")
    again = ProjectorAligner.load(tmp_path / "p.safetensors")
    np.testing.assert_array_equal(again.transform_images(rows), model.transform_images(rows))
    np.testing.assert_array_equal(again.transform_texts(words), model.transform_texts(words))
    assert (again.variant, again.seed, again.scale_) == (variant, 4, model.scale_)
    names = [f"{i}.jpg" for i in range(len(rows))]
    eye = PrecomputedEncoder((["-"], np.ones((1, 14))), (names, rows), id="eye")
    tongue = PrecomputedEncoder.from_arrays(["a cat"], words[:1], id="tongue")
    both = projected_encoder(eye, tongue, again)
    assert (both.info.dim, both.info.logit_scale) == (model.dim_, model.scale_)
    found = both.lookup(["7.jpg"])
    assert found is not None
    np.testing.assert_allclose(found[0], model.transform_images(rows[[7]]), atol=1e-6)
    np.testing.assert_array_equal(both.encode_texts(["a cat"]), model.transform_texts(words[:1]))
    with pytest.raises(EncoderError, match="width 11"):
        projected_encoder(tongue, tongue, model)


def test_torn_and_foreign_files(tmp_path: Path) -> None:
    from byname.adapters.store import load_arrays, save_arrays

    V, L = pairs()
    model = small(epochs=1).fit(V, L)
    path = tmp_path / "p.safetensors"
    model.save(path)
    names = frozenset(model._arrays())
    arrays, about = load_arrays(path, "ProjectorAligner", names)
    for changed, told in (
        ({**arrays, "text.A": arrays["text.A"][:3]}, about),
        (arrays, {**about, "dim_": 3}),
        (arrays, {k: v for k, v in about.items() if k != "spread"}),
        (arrays, {**about, "spread": {}}),
    ):
        save_arrays(path, "ProjectorAligner", changed, told)
        with pytest.raises(EncoderError, match="do not fit together"):
            ProjectorAligner.load(path)
    with pytest.raises(EncoderError, match="cannot be read"):
        ProjectorAligner.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"variant": "clip"}, "variant is 'clip'"),
        ({"width": 0}, "width is 0"),
        ({"batch": 5000}, "It is 2 to 4096"),
        ({"epochs": 0}, "epochs is 0"),
        ({"patience": 0}, "patience is 0"),
        ({"rate": 0.0}, "rate is 0.0"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"holdout": 0.0}, "holdout is 0.0"),
    ],
)
def test_settings(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        small(**change).fit(*pairs())


def test_bad_input() -> None:
    V, L = pairs()
    for arguments, message in (
        ((V, L[:5]), "400 image vectors, but 5 text vectors"),
        ((V[:7], L[:7]), "there are 7 pairs"),
        ((np.ones((9, 3)), L[:9]), "1 different images"),
        ((V, L, ["a"]), "400 pairs, but 1 texts"),
    ):
        with pytest.raises(UsageError, match=message):
            small().fit(*arguments)
    with pytest.raises(UsageError, match="not fitted"):
        small().transform_texts(L)

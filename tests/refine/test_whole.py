"""What members have in common that refine a whole batch: bad input, and when they go back to S."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byname.errors import UsageError
from byname.knn import graph, nearest
from byname.ops import unit
from byname.refine.whole import WholeBatch, adjacency
from byname.stage import Batch, ClassTexts, State, create
from byname.taxonomy import Taxonomy

FULL = ["reclip", "transclip", "zlap"]  # that take every name to be there
MEMBERS = [*FULL, "anchor", "reclip[branch=propagation]"]
FORMS = ["", "guard=false"]
Given = tuple[Batch, ClassTexts, State]


def make(
    seed: int = 0, *, N: int = 60, K: int = 4, D: int = 16, far: float = 0.2, scale: float = 20.0
) -> Given:
    """Images around K centres, and class vectors that lie ``far`` from these."""
    rng = np.random.default_rng(seed)
    centres = unit(rng.standard_normal((K, D)))
    X = unit(centres[np.arange(N) % K] + 0.15 * rng.standard_normal((N, D)))
    W = unit(centres + far * rng.standard_normal((K, D)))
    taxonomy = Taxonomy.from_names([f"n{k}" for k in range(K)])
    texts = ClassTexts(W, np.arange(K), taxonomy, scale=scale)
    return Batch(X), texts, State(W=W, S=scale * X @ W.T)


def images(given: Given, X: Any) -> Given:
    _, texts, state = given
    return Batch(X), texts, State(W=state.W, S=texts.scale * X @ state.W.T)


def also(spec: str, more: str) -> str:
    """The member with one more parameter."""
    if not more:
        return spec
    return f"{spec[:-1]},{more}]" if spec.endswith("]") else f"{spec}[{more}]"


def run(spec: str, given: Given) -> tuple[Any, Any]:
    member = create(spec, "refine")
    assert isinstance(member, WholeBatch)
    found = member.fit(*given).apply(*given)
    assert found.shape == given[2].S.shape
    assert np.isfinite(found).all()
    told = member.report()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert told["stepped_back"] == (told["reason"] is not None)
    if told["stepped_back"]:
        np.testing.assert_array_equal(found, given[2].S)
    return found, told


@pytest.mark.parametrize("name", MEMBERS)
def test_one_image_and_one_class_stay_as_they_are(name: str) -> None:
    batch, texts, state = make()
    one = Batch(batch.X[:1]), texts, State(W=state.W, S=state.S[:1])
    assert run(name, one)[1]["reason"] == "there is 1 image, and others are what it learns from"
    alone = ClassTexts(texts.vectors[:1], np.zeros(1, np.intp), Taxonomy.from_names(["a"]))
    given = batch, alone, State(W=state.W[:1], S=state.S[:, :1])
    assert run(name, given)[1]["reason"] == "there is one class"


@pytest.mark.parametrize("name", MEMBERS)
@pytest.mark.parametrize("N", [2, 3, 5])
def test_fewer_images_than_neighbours_and_seeds(name: str, N: int) -> None:
    given = make(N=N, K=2)
    found, told = run(name, given)
    assert told["stepped_back"] or not np.array_equal(found, given[2].S)


@pytest.mark.parametrize("name", MEMBERS)
@pytest.mark.parametrize("more", FORMS)
def test_duplicate_images_get_the_same_answer(name: str, more: str) -> None:
    given = make()
    doubled = images(given, np.repeat(given[0].X, 2, axis=0))
    found, _ = run(also(name, more), doubled)
    np.testing.assert_array_equal(found[::2].argmax(axis=1), found[1::2].argmax(axis=1))
    run(also(name, more), images(given, np.repeat(given[0].X[:1], 30, axis=0)))


@pytest.mark.parametrize("name", MEMBERS)
@pytest.mark.parametrize("more", FORMS)
def test_zero_vectors(name: str, more: str) -> None:
    given = make()
    X = given[0].X.copy()
    X[::7] = 0
    found, _ = run(also(name, more), images(given, X))
    others = np.arange(60) % 7 > 0
    clean, _ = run(also(name, more), images(given, X[others]))
    assert (found[others].argmax(1) == clean.argmax(1)).mean() > 0.9
    run(also(name, more), images(given, np.zeros_like(X)))


@pytest.mark.parametrize("name", MEMBERS)
@pytest.mark.parametrize("wrong", [np.nan, np.inf])
@pytest.mark.parametrize("N", [1, 60])
def test_nan_is_refused_by_its_row(name: str, wrong: float, N: int) -> None:
    batch, texts, state = make(N=N)
    X = batch.X.copy()
    X[N // 2, 3] = wrong
    with pytest.raises(UsageError, match=f"row {N // 2} holds NaN or infinity"):
        create(name, "refine").fit(Batch(X), texts, state)


@pytest.mark.parametrize("name", [*FULL, "anchor"])
def test_a_graph_in_pieces(name: str) -> None:
    """Blobs at right angles, which share no neighbour, are each answered as their own."""
    rng = np.random.default_rng(0)
    y = np.arange(120) % 4
    X = unit(np.eye(4, 16)[y] + 0.01 * rng.standard_normal((120, 16)))
    found, told = run(name, (*images(make(), X)[:2], State(W=np.eye(4, 16), S=20 * X[:, :4])))
    assert not told["stepped_back"]
    assert (found.argmax(axis=1) == y).all()


@pytest.mark.parametrize("name", MEMBERS)
@pytest.mark.parametrize("more", FORMS)
def test_a_class_never_predicted(name: str, more: str) -> None:
    batch, texts, state = make()
    W = state.W.copy()
    W[3] = -batch.X.mean(axis=0) / np.linalg.norm(batch.X.mean(axis=0))
    S = 20 * batch.X @ W.T
    assert 3 not in S.argmax(axis=1)
    changed = batch, ClassTexts(W, texts.class_index, texts.taxonomy), State(W=W, S=S)
    run(also(name, more), changed)


@pytest.mark.parametrize("name", FULL)
def test_a_list_of_names_that_are_not_there(name: str) -> None:
    batch, _, state = make(K=4)
    other = unit(np.random.default_rng(1).standard_normal((40, 16)))
    W = np.vstack([state.W, -state.W, 0.1 * other])
    taxonomy = Taxonomy.from_names([f"n{k}" for k in range(48)])
    given = batch, ClassTexts(W, np.arange(48), taxonomy), State(W=W, S=20 * batch.X @ W.T)
    used = len(set(given[2].S.argmax(axis=1)))
    assert 4 <= used < 10
    wanted = f"of 48 names the images were answered with {used} only: the others may not be there"
    assert run(name, given)[1]["reason"] == wanted
    assert not run(f"{name}[guard=false]", given)[1]["stepped_back"]
    told = run(f"{name}[present=0]", given)[1]
    assert told["reason"] != wanted, "then the neighbours alone decide"


@pytest.mark.parametrize("name", MEMBERS)
def test_no_image_and_other_images(name: str) -> None:
    batch, texts, state = make()
    none = Batch(batch.X[:0]), texts, State(W=state.W, S=state.S[:0])
    member = create(name, "refine")
    assert member.report() == {}
    assert member.fit(*none).apply(*none).shape == (0, 4)
    assert member.fit(batch, texts, state).apply(*none).shape == (0, 4)
    with pytest.raises(UsageError, match="it learned from others"):
        member.apply(Batch(batch.X[:9]), texts, State(S=state.S[:9]))
    with pytest.raises(UsageError, match=r"it learned from none. Fit it first\."):
        create(name, "refine").apply(batch, texts, state)


@pytest.mark.parametrize(("name", "least"), [("transclip", 8), ("reclip", 80)])
def test_too_few_images_for_the_classes(name: str, least: int) -> None:
    told = run(name, make(N=least - 1))[1]
    assert told["reason"] == f"{least - 1} images are fewer than {least} for 4 names"
    assert not run(f"{name}[guard=false]", make(N=least - 1))[1]["stepped_back"]
    assert not run(name, make(N=least))[1]["stepped_back"]


@pytest.mark.parametrize("name", [*MEMBERS, "rscin"])
def test_as_many_other_images_are_refused(name: str) -> None:
    batch, texts, state = make()
    member = create(name, "refine").fit(batch, texts, state)
    found = member.apply(batch, texts, state)
    np.testing.assert_array_equal(member.apply(Batch(batch.X.copy()), texts, state), found)
    with pytest.raises(UsageError, match="to 60 images: it learned from others"):
        member.apply(Batch(batch.X[::-1]), texts, state)
    with pytest.raises(UsageError, match="it learned from none"):
        create(name, "refine").apply(batch, texts, state)


OUT = [*MEMBERS, "transclip[seeds=column]", "reclip[branch=average]", "auto", "regen"]
OWN = ["clusters", "dpa", "fusion", "label_vectors", "nola", "prior", "rscin"]


@pytest.mark.parametrize("name", OUT)
@pytest.mark.parametrize("more", FORMS)
def test_a_class_that_is_ruled_out_takes_no_part(name: str, more: str) -> None:
    batch, texts, state = make(N=120, K=5, far=0.6)
    S, left = state.S.copy(), np.array([0, 1, 3, 4])
    S[:, 2] = -np.inf
    case = batch, texts, State(W=state.W, S=S)
    found = create(also(name, more), "refine").fit(*case).apply(*case)
    assert np.isneginf(found[:, 2]).all()
    fewer = ClassTexts(
        texts.vectors[left], np.arange(4), Taxonomy.from_names(list("abde")), scale=20
    )
    alone = batch, fewer, State(W=state.W[left], S=S[:, left])
    expected = create(also(name, more), "refine").fit(*alone).apply(*alone)
    assert np.isfinite(expected).all()
    np.testing.assert_array_equal(found[:, left], expected)


@pytest.mark.parametrize("name", [*OWN, "zlap[mode=inductive]"])
@pytest.mark.parametrize("more", FORMS)
def test_a_class_that_is_ruled_out_is_nobodys_answer(name: str, more: str) -> None:
    batch, texts, state = make(N=120, K=5)
    S = state.S.copy()
    S[:, 2] = -np.inf
    case = batch, texts, State(W=state.W, S=S)
    found = create(also(name, more), "refine").fit(*case).apply(*case)
    np.testing.assert_array_equal(np.isneginf(found), np.isneginf(S))
    assert not np.isnan(found).any()


@pytest.mark.parametrize("name", [*OUT, "zlap[mode=inductive]", *OWN])
@pytest.mark.parametrize("more", FORMS)
def test_a_class_that_some_images_cannot_have(name: str, more: str) -> None:
    batch, texts, state = make(N=120)
    S = state.S.copy()
    own = np.flatnonzero(S.argmax(axis=1) == 1)[:5]
    S[own, 1] = -np.inf
    S[7] = -np.inf  # none at all
    case = batch, texts, State(W=state.W, S=S)
    member = create(also(name, more), "refine").fit(*case)
    # These three do not believe what they find of this.
    back = more == "" and name in ("clusters", "prior", "reclip[branch=propagation]")
    assert member.report()["stepped_back"] == back
    found = member.apply(*case)
    np.testing.assert_array_equal(np.isneginf(found), np.isneginf(S))
    assert not np.isnan(found).any()


class Spoiler(WholeBatch):
    """Answers by lot, to see that it is noticed."""

    name = "spoiler"

    class params:  # noqa: N801
        guard, present = True, 0.5

    def __init__(self) -> None:
        pass

    def _refined(self, X: Any, texts: ClassTexts, state: State, near: Any) -> Any:
        return state.S[np.random.default_rng(0).permutation(len(X))]


def test_scattered_answers_are_taken_back() -> None:
    given = make()
    member = Spoiler().fit(*given)
    assert (member.reason_ or "").startswith("neighbours agree less than before")
    np.testing.assert_array_equal(member.apply(*given), given[2].S)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 9999), st.integers(1, 6))
def test_adjacency_is_the_graph_and_its_mirror_image(seed: int, k: int) -> None:
    X = make(seed, N=15)[0].X
    near, W = nearest(X, 10), graph(X, k).toarray()
    np.testing.assert_allclose(adjacency(near, k).toarray(), W + W.T, atol=1e-7)
    less = graph(X, k - 1).toarray() if k > 1 else np.zeros((15, 15))
    np.testing.assert_allclose(adjacency(near, k, itself=True).toarray(), less + less.T, atol=1e-7)


@pytest.mark.parametrize("spec", [*FULL, "zlap[mode=inductive]"])
def test_uneven_shares_are_told(spec: str) -> None:
    """One class in five has nearly all images; the even ones of the same make are no reason."""
    uneven = np.repeat(np.arange(5), [200, 8, 8, 8, 8])
    for true, told in ((uneven, True), (np.arange(240) % 5, False)):
        _, texts, state = make(K=5)
        assert state.W is not None
        rng = np.random.default_rng(1)
        X = unit(unit(texts.vectors)[true] + 0.1 * rng.standard_normal((len(true), 16)))
        case = images((Batch(X), texts, state), X)
        report = create(spec, "refine").fit(*case).report()
        assert not report["stepped_back"]
        assert ("warning" in report) == told
        if told:
            assert report["warning"].startswith("shares seem uneven: the answers before were only")

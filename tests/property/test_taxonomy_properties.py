"""What must hold for every tree."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byname.errors import TaxonomyError
from byname.taxonomy import Node, Taxonomy
from byname.taxonomy_formats import newick
from byname.taxonomy_io import read_taxonomy, taxonomy_stats, write_taxonomy
from byname.taxonomy_nodes import clean_text, slug_ids
from tests.reference.lca import lca_heights

TEXT = st.one_of(
    st.text(max_size=8),
    st.text(alphabet="ab_ ,;'\"()[]:#/%\n\t.é\u0301水", max_size=8),
)
NAME = TEXT.filter(clean_text)

X = st.just("x")

# Deterministic, and without a time limit an example that a busy machine would break.
check = settings(deadline=None, derandomize=True, max_examples=60)


@st.composite
def taxonomies(draw: st.DrawFn, names: st.SearchStrategy[str] = X) -> Taxonomy:
    """Any tree of up to 25 nodes, given in any order."""
    n = draw(st.integers(1, 25))
    parents = [draw(st.integers(-1, i - 1)) for i in range(n)]
    nodes = [Node(f"n{i}", draw(names), f"n{p}" if p >= 0 else None) for i, p in enumerate(parents)]
    return Taxonomy(draw(st.permutations(nodes)))


@check
@given(taxonomies())
def test_lca_heights_agree_with_the_reference(t: Taxonomy) -> None:
    fast = t.lca_heights()
    np.testing.assert_array_equal(fast, lca_heights(t))
    ids = t.class_ids
    by_node = [[t.heights[t.index(t.lca(a, b))] for b in ids] for a in ids]
    np.testing.assert_array_equal(fast, by_node)


@check
@given(taxonomies())
def test_lca_heights_are_an_ultrametric(t: Taxonomy) -> None:
    D = t.lca_heights()
    assert (D == D.T).all()
    assert (np.diag(D) == 0).all()
    assert ((D == 0) == np.eye(len(t), dtype=bool)).all()
    assert (D[:, None, :] <= np.maximum(D[:, :, None], D[None])).all()


@check
@given(taxonomies(), st.randoms(use_true_random=False))
def test_order_of_the_nodes_only_permutes(t: Taxonomy, random: object) -> None:
    nodes = [n for n in t.nodes if n.id]
    random.shuffle(nodes)  # type: ignore[attr-defined]
    other = Taxonomy(nodes)
    assert set(other.class_ids) == set(t.class_ids)
    place = [other.class_ids.index(i) for i in t.class_ids]
    np.testing.assert_array_equal(other.lca_heights()[np.ix_(place, place)], t.lca_heights())
    P = np.random.default_rng(0).random((2, len(t)))
    shuffled = other.rollup(P[:, np.argsort(place)])
    np.testing.assert_allclose(
        shuffled[:, [other.index(n.id) for n in t.nodes]], t.rollup(P), rtol=1e-12
    )


@check
@given(taxonomies())
def test_structure_is_consistent(t: Taxonomy) -> None:
    assert [n.id for n in t.classes] == [t.nodes[i].id for i in t.leaf_index]
    for i, node in enumerate(t.nodes):
        assert t.index(node.id) == i
        assert len(t.path(node.id)) == t.depths[i]
        below = t.children(node.id)
        assert t.heights[i] == max((t.heights[t.index(c)] + 1 for c in below), default=0)
        for child in below:
            assert t.parents[t.index(child)] == i
            assert set(t.siblings(child)) == set(below) - {child}
            assert t.ancestors(child) == tuple(reversed(t.path(child)))[1:]
    assert (t.parents < np.arange(len(t.nodes))).all()


@check
@given(taxonomies(), st.sampled_from([np.float16, np.float32, np.float64]))
def test_rollup_sums(t: Taxonomy, dtype: type) -> None:
    P = np.random.default_rng(len(t)).dirichlet(np.ones(len(t)), 3).astype(dtype)
    R = t.rollup(P)
    np.testing.assert_array_equal(R[:, t.leaf_index], P)
    np.testing.assert_allclose(R[:, 0], P.astype(np.float64).sum(1), rtol=1e-6)
    for i, node in enumerate(t.nodes):
        if children := t.children(node.id):
            parts = R[:, [t.index(c) for c in children]].sum(1)
            np.testing.assert_allclose(R[:, i], parts, rtol=1e-5)


@check
@given(taxonomies(), st.data())
def test_cuts_compose(t: Taxonomy, data: st.DataObject) -> None:
    low = data.draw(st.integers(1, t.height))
    high = data.draw(st.integers(1, low))
    first, to_first = t.cut(low)
    direct, to_direct = t.cut(high)
    assert first.height == low
    second, to_second = first.cut(min(high, first.height))
    assert second == direct
    np.testing.assert_array_equal(to_second[to_first], to_direct)
    for k, leaf in enumerate(t.class_ids):
        assert direct.class_ids[to_direct[k]] in t.path(leaf)
    # order of first appearance
    assert list(dict.fromkeys(to_direct.tolist())) == list(range(len(direct)))
    P = np.random.default_rng(1).random((2, len(t)))
    summed = np.zeros((2, len(direct)))
    np.add.at(summed, (slice(None), to_direct), P)
    nodes = [t.index(i) for i in direct.class_ids]
    np.testing.assert_allclose(t.rollup(P)[:, nodes], summed, rtol=1e-12)


@check
@given(taxonomies())
def test_counts_of_pairs_agree_with_the_matrix(t: Taxonomy) -> None:
    heights, counts = np.unique(t.lca_heights(), return_counts=True)
    expected = {str(h): int(c) for h, c in zip(heights, counts, strict=True)}
    assert taxonomy_stats(t)["lca_height_histogram"] == expected


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".json"])
@check
@given(t=taxonomies(NAME))
def test_write_then_read(suffix: str, t: Taxonomy) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "t" + suffix)
        write_taxonomy(t, path)
        again = read_taxonomy(path)
    assert again == t
    assert again.to_records() == t.to_records()
    assert again.fingerprint() == t.fingerprint()


@check
@given(taxonomies(NAME))
def test_write_then_read_newick(t: Taxonomy) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "t.nwk")
        write_taxonomy(t, path)
        again = read_taxonomy(path)
    assert [n.name for n in again.nodes] == [n.name for n in t.nodes]
    assert again.parents.tolist() == t.parents.tolist()


@check
@given(st.lists(st.lists(TEXT, max_size=3), max_size=12), st.sets(TEXT, max_size=3))
def test_slugs_are_ids(paths: list[list[str]], taken: set[str]) -> None:
    ids = slug_ids(paths, taken)
    assert len({*ids, *taken}) == len(ids) + len(taken)
    assert not any("/" in i or "%" in i or i != clean_text(i) or not i for i in ids)


@check
@given(st.text())
def test_cleaning_twice_changes_nothing(text: str) -> None:
    once = clean_text(text)
    assert clean_text(once) == once
    assert "\n" not in once
    once.encode()


@check
@given(st.text(alphabet="(),:;'[]ab_ \n", max_size=25))
def test_newick_of_any_text_is_read_or_refused(text: str) -> None:
    try:
        t = newick(text)
    except TaxonomyError:
        return
    assert all(node.name for node in t.classes)
    assert t.height <= text.count("(") + 1

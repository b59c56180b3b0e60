"""The tree of classes: checks, addresses, distances, sums, cuts."""

from __future__ import annotations

import copy
import pickle
import time

import numpy as np
import pytest

from byname.errors import TaxonomyError, UsageError
from byname.taxonomy import Node, Taxonomy
from byname.taxonomy_nodes import clean_text, slug_ids


@pytest.fixture
def fruit() -> Taxonomy:
    """Class order and tree order differ: kiwi, milk, plum, pear against kiwi, plum, pear, milk."""
    return Taxonomy(
        [
            Node("k", "Kiwi", "fruit"),
            Node("milk", "Milk"),
            Node("fruit", "Fruit"),
            Node("p", "Plum", "stone"),
            Node("stone", "Stone", "fruit"),
            Node("r", "Pear", "fruit"),
        ]
    )


def test_order_and_arrays(fruit: Taxonomy) -> None:
    assert fruit.class_ids == ("k", "milk", "p", "r")
    assert [n.id for n in fruit.nodes] == ["", "milk", "fruit", "k", "stone", "p", "r"]
    assert fruit.parents.tolist() == [-1, 0, 0, 2, 2, 4, 2]
    assert fruit.depths.tolist() == [0, 1, 1, 2, 2, 3, 2]
    assert fruit.heights.tolist() == [3, 0, 2, 0, 1, 0, 0]
    assert fruit.leaf_index.tolist() == [3, 1, 5, 6]
    assert fruit.leaf_index.dtype == np.intp
    assert (len(fruit), fruit.height, fruit.root.id) == (4, 3, "")
    assert repr(fruit) == "<Taxonomy: 4 classes, 7 nodes, height 3>"


def test_addresses(fruit: Taxonomy) -> None:
    assert fruit.path("p") == ("fruit", "stone", "p")
    assert fruit.path("") == ()
    assert fruit.ancestors("p") == ("stone", "fruit")
    assert fruit.ancestors("milk") == ()
    assert fruit.ancestors("") == ()
    assert fruit.children("fruit") == ("k", "stone", "r")
    assert fruit.children("k") == ()
    assert fruit.siblings("k") == ("stone", "r")
    assert fruit.siblings("") == ()
    assert fruit.node("p").name == "Plum"
    assert fruit.nodes[fruit.index("stone")].id == "stone"
    assert "stone" in fruit
    assert "apple" not in fruit
    assert [fruit.lca(*p) for p in (("k", "p"), ("k", "k"), ("p", "stone"), ("k", "milk"))] == [
        "fruit",
        "k",
        "stone",
        "",
    ]


def test_path_string_keeps_slashes_apart() -> None:
    t = Taxonomy([Node("a/b", "A"), Node("50%", "B", "a/b"), Node("c", "C")])
    assert t.path_string("50%") == "a%2Fb/50%25"


def test_a_given_root_is_the_root() -> None:
    t = Taxonomy([Node("r", "All"), Node("a", "A", "r"), Node("b", "B", "r")])
    assert t.root.id == "r"
    assert t.path("a") == ("a",)
    assert t.height == 1
    assert [row["id"] for row in t.to_records()] == ["r", "a", "b"]


def test_one_class() -> None:
    t = Taxonomy.from_names(["Kiwi"])
    assert (t.class_ids, t.height, t.path("kiwi")) == (("kiwi",), 1, ("kiwi",))
    assert t.lca_heights().tolist() == [[0]]
    assert t.rollup(np.ones((2, 1))).tolist() == [[1, 1], [1, 1]]
    assert t.cut(1)[0] == t


def test_lca_heights(fruit: Taxonomy) -> None:
    heights = fruit.lca_heights()
    assert heights.tolist() == [[0, 3, 2, 2], [3, 0, 3, 3], [2, 3, 0, 2], [2, 3, 2, 0]]
    assert heights.dtype == np.uint8
    assert fruit.lca_heights() is heights
    with pytest.raises(ValueError, match="read-only"):
        heights[0, 0] = 1


def test_deep_trees_need_no_recursion_and_wider_integers() -> None:
    n = 3000
    chain = [Node(f"n{i}", f"N{i}", f"n{i - 1}" if i else None) for i in range(n)]
    t = Taxonomy([*chain, Node("x", "X", "n0")])
    assert t.height == n - 1
    assert t.lca_heights().tolist() == [[0, n - 1], [n - 1, 0]]
    assert t.lca_heights().dtype == np.int16
    assert t.warnings[0].startswith(
        "inner nodes with a single child (2998): n1, n2, n3, n4, n5 and"
    )


def test_a_thousand_classes_take_no_time() -> None:
    nodes = [Node(f"g{i}", f"G{i}", f"g{i // 3}" if i else None) for i in range(1500)]
    t = Taxonomy(nodes)
    start = time.perf_counter()
    heights = t.lca_heights()
    assert time.perf_counter() - start < 1.0
    assert heights.shape == (len(t),) * 2 == (1000, 1000)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_rollup(fruit: Taxonomy, dtype: type) -> None:
    P = np.array([[0.125, 0.5, 0.25, 0.125], [1, 0, 0, 0]], dtype)
    nodes = fruit.rollup(P)
    assert nodes.dtype == (np.float64 if dtype is np.float64 else np.float32)
    assert nodes.tolist() == [[1, 0.5, 0.5, 0.125, 0.25, 0.25, 0.125], [1, 0, 1, 1, 0, 0, 0]]
    assert fruit.rollup(np.empty((0, 4))).shape == (0, 7)


@pytest.mark.parametrize("shape", [(4,), (2, 3), (1, 2, 4)])
def test_rollup_refuses_other_shapes(fruit: Taxonomy, shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=r"their shape is \(.*\) and there are 4 classes"):
        fruit.rollup(np.zeros(shape))


def test_rollup_in_float16_does_not_lose_small_parts() -> None:
    t = Taxonomy.from_names(map(str, range(5000)))
    total = t.rollup(np.full((1, 5000), 1 / 5000, np.float16))[0, 0]
    assert total == pytest.approx(5000 * float(np.float16(1 / 5000)), rel=1e-5)


def test_cut(fruit: Taxonomy) -> None:
    top, index = fruit.cut(1)
    assert top.class_ids == ("fruit", "milk")  # kiwi comes before milk
    assert index.tolist() == [0, 1, 0, 0]
    assert index.dtype == np.intp
    middle, index = fruit.cut("2")
    assert middle.class_ids == ("k", "milk", "stone", "r")
    assert index.tolist() == [0, 1, 2, 3]
    assert middle.node("stone") == fruit.node("stone")
    assert fruit.cut(3)[0] == fruit


def test_cut_by_name_and_unknown_levels() -> None:
    nodes = [Node("f", "Fruit"), Node("k", "Kiwi", "f"), Node("d", "Dairy"), Node("m", "M", "d")]
    t = Taxonomy(nodes, levels=("group", "name"))
    cut, _ = t.cut("group")
    assert cut.class_ids == ("f", "d")
    assert cut.levels == ("group",)
    for level in ("colour", 0, 3, -1, "", True):
        with pytest.raises(TaxonomyError) as caught:
            t.cut(level)
        assert str(caught.value) == (
            f"cannot cut the classes at level {level!r}: there is no such level. "
            "Levels: 1 to 2 (depth below the root) or group, name."
        )


def test_levels_must_fit() -> None:
    with pytest.raises(TaxonomyError, match="the tree has 1 levels below its root"):
        Taxonomy([Node("a", "A"), Node("b", "B")], levels=("x", "y"))


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([], "cannot use these classes: there are none"),
        ([Node("", "A")], "the id of 'A' is empty"),
        ([Node("a", " \n")], "the name of a is empty"),
        ([Node("a", "A"), Node("a", "B")], "several nodes have the id a. Give every node its own"),
        (
            [Node(i, i) for i in "abcdefgabcdefg"],
            "several nodes have the id a, b, c, d, e and 2 more",
        ),
        ([Node("a", "A", "x")], r"parents that do not exist: a \(parent x\). Add the missing"),
        (
            [Node(i, i, "x") for i in "abcdefg"],
            r"a \(parent x\), b .*, e \(parent x\) and 2 more",
        ),
        ([Node("a", "A", "a")], "the parents run in a circle: a -> a"),
        (
            [Node("r", "R"), Node("l", "L", "c"), *(Node(*p) for p in ("aAb", "bBc", "cCa"))],
            "the parents run in a circle: c -> a -> b -> c. Change one",
        ),
    ],
)
def test_refused(nodes: list[Node], message: str) -> None:
    with pytest.raises(TaxonomyError, match=message):
        Taxonomy(nodes)


def test_a_long_cycle_is_shortened() -> None:
    nodes = [Node(f"n{i}", "x", f"n{(i + 1) % 50}") for i in range(50)]
    with pytest.raises(TaxonomyError, match=r"n0 -> n1 -> .*n9 -> \.\.\. -> n0"):
        Taxonomy(nodes)


def test_unknown_id_suggests_a_close_one(fruit: Taxonomy) -> None:
    with pytest.raises(TaxonomyError) as caught:
        fruit.node("ston")
    assert "find the class or group with the id 'ston'" in str(caught.value)
    assert "Did you mean 'stone'?" in str(caught.value)
    with pytest.raises(TaxonomyError, match="Ids begin with 'k'"):
        fruit.index("zzzzzz")
    with pytest.raises(TaxonomyError, match="with the id \\['k'\\]"):
        fruit.index(["k"])  # type: ignore[arg-type]


def test_duplicate_names_are_flagged_and_never_merged() -> None:
    t = Taxonomy.from_names(["Apple", "Pear", "Apple", "apple"])
    assert t.class_ids == ("apple", "pear", "apple-2", "apple-3")
    assert t.duplicates() == {"Apple": ["apple", "apple-2"]}
    assert t.unique_names() == {"Pear": "pear", "apple": "apple-3"}
    assert t.warnings == ("names that several classes bear (1): 'Apple' (ids apple, apple-2)",)


def test_a_class_may_bear_the_name_of_its_group() -> None:
    t = Taxonomy([Node("g", "Kiwi"), Node("k", "Kiwi", "g"), Node("p", "Plum")])
    assert t.duplicates() == {}
    assert t.warnings == ("inner nodes with a single child (1): g",)


def test_texts_are_cleaned() -> None:
    node = Node(" a\t1 ", "Cafe\u0301\x1b[31m\u2028x", None, ("b;c", " ", "d"), " some\r\ntext ")
    assert node == Node("a 1", "Café [31m x", None, ("b", "c", "d"), "some text")
    assert Node("a", "A", parent="").parent is None
    assert Node("a", "A", aliases="x; y").aliases == ("x", "y")  # type: ignore[arg-type]
    assert clean_text("\ud800") == "\ufffd"


def test_slugs() -> None:
    assert slug_ids([["Röda Bönor!"], ["a / b", "C.D"], ["水果", "हिन्दी"], ["--"], ["_x"]]) == [
        "röda-bönor",
        "a-b.c-d",
        "水果.हिन्दी",
        "class",
        "_x",
    ]
    assert slug_ids([["a"], ["a-2"], ["a"], ["a"]]) == ["a", "a-2", "a-3", "a-4"]
    assert slug_ids([["a"]], taken=["a"]) == ["a-2"]


def test_from_names_refuses_one_text() -> None:
    with pytest.raises(TaxonomyError, match=r"one text was given, 'abc'. Give \['abc'\]"):
        Taxonomy.from_names("abc")


def test_equality_and_fingerprint(fruit: Taxonomy) -> None:
    again = Taxonomy([Node(**r) for r in _rows(fruit)])
    assert again == fruit
    assert hash(again) == hash(fruit)
    assert again.fingerprint() == fruit.fingerprint()
    assert len(fruit.fingerprint()) == 64
    assert fruit != "fruit"
    for field, value in {"name": "X", "aliases": "x", "description": "x", "parent": ""}.items():
        rows = _rows(fruit)
        rows[3][field] = value
        other = Taxonomy([Node(**r) for r in rows])
        assert other != fruit
        assert other.fingerprint() != fruit.fingerprint()
    # the same tree with its classes in another order
    moved = Taxonomy([Node(**r) for r in (*_rows(fruit)[1:], _rows(fruit)[0])])
    assert set(moved.class_ids) == set(fruit.class_ids)
    assert moved.fingerprint() != fruit.fingerprint()


def test_copies_and_pickles_are_equal(fruit: Taxonomy) -> None:
    fruit.lca_heights()
    for other in (copy.deepcopy(fruit), pickle.loads(pickle.dumps(fruit))):
        assert other == fruit
        assert other.lca_heights().tolist() == fruit.lca_heights().tolist()


def _rows(taxonomy: Taxonomy) -> list[dict[str, str]]:
    return taxonomy.to_records()

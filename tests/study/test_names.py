"""The audit of names: what is found, what is not, and that hostile names stay names."""

from __future__ import annotations

import shlex
from typing import Any

import numpy as np
import pytest

from byname.errors import NeedsError
from byname.ops import unit
from byname.pipeline import Pipeline
from byname.prompts.wordnet import Sense
from byname.recipes import get_recipe
from byname.stage import Batch, ClassTexts
from byname.study import concepts, names
from byname.study.concepts import astray, near_pairs, one_sided, specificity
from byname.study.finding import Finding
from byname.study.names import check_names
from byname.study.namewords import broader, group_names, nearly_same, no_words, several_senses
from byname.study.subject import Subject
from byname.taxonomy import Node, Taxonomy
from tests.reference import geometry as reference

COMMAND = "byname diagnose photos --classes c.csv --encoder mini"


@pytest.fixture(autouse=True)
def _no_wordnet(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same on machines with WordNet and without."""
    monkeypatch.setattr(names, "installed", lambda: None)


def subject_of(
    taxonomy: Taxonomy | list[str],
    X: Any = None,
    W: Any = None,
    *,
    command: str = COMMAND,
    kind: str = "template",
) -> Subject:
    tree = taxonomy if isinstance(taxonomy, Taxonomy) else Taxonomy.from_names(taxonomy)
    K = len(tree)
    W = np.eye(K) if W is None else W
    X = np.eye(W.shape[1])[:K] if X is None else X
    texts = ClassTexts(np.asarray(W, np.float32), np.arange(K), tree, kind=(kind,) * K)
    batch = Batch(np.asarray(X, np.float32))
    return Subject(
        texts=texts,
        sentences=tuple(f"text {k}" for k in range(K)),
        batch=batch,
        pipeline=Pipeline(get_recipe("ensemble")).fit(texts, batch),
        keys=tuple(str(i) for i in range(len(X))),
        command=command,
    )


def found(subject: Subject) -> tuple[dict[str, Finding], dict[str, float | None]]:
    made, numbers = check_names(subject, None)  # type: ignore[arg-type]
    assert len({one.kind for one in made}) == len(made)
    return {one.kind: one for one in made}, numbers["names"]


def test_sound_names_give_nothing() -> None:
    made, numbers = found(subject_of(["cat", "dog", "Boeing 747", "A320", "猫"]))
    assert made == {}
    assert numbers["similar_names"] == numbers["empty_names"] == 0


@pytest.mark.parametrize(
    ("a", "b"),
    [("hot dog", "hot-dogs"), ("Crêpe", "crepes"), ("cup cake", "Cupcakes"), ("T.V.", "tv")],
)
def test_names_that_are_nearly_the_same(a: str, b: str) -> None:
    assert len(nearly_same(Taxonomy.from_names([a, b, "elk"]))) == 1


def test_names_that_are_the_same_are_another_finding() -> None:
    nodes = [Node("1", "Elk"), Node("2", "elk"), Node("3", "x", aliases=("ELK", "elks"))]
    assert nearly_same(Taxonomy(nodes)) == []
    tree = Taxonomy([Node("1", "moose", aliases=("elks",)), Node("2", "elk")])
    assert [(p.name_a, p.name_b) for p in nearly_same(tree)] == [("elks", "elk")]


def test_similar_names_do_not_depend_on_the_order_of_classes() -> None:
    given = ["hot dog", "elk", "Hot-dogs", "elks", "hotdog"]
    made = [found(subject_of(order))[0]["similar_names"] for order in (given, given[::-1])]
    assert made[0] == made[1]
    assert made[0].count == 3


def test_a_group_with_the_name_of_a_class() -> None:
    nodes = [Node("g", "Milk"), Node("a", "milks", "g"), Node("b", "Cream", "g")]
    nodes += [Node("h", "Kiwi"), Node("k", "Kiwi", "h")]
    assert [(p.a, p.b) for p in group_names(Taxonomy(nodes))] == [("a", "g")]
    # The only class of its group may bear its name; that of another group may not.
    nodes[-1] = Node("k", "Kiwi", "g")
    nodes.append(Node("o", "Onion", "h"))
    assert [(p.a, p.b) for p in group_names(Taxonomy(nodes))] == [("a", "g"), ("k", "h")]


def test_broader_names_by_words_and_by_wordnet() -> None:
    tree = Taxonomy.from_names(["dog", "guide dog", "poodle", "cat"])
    assert [(p.a, p.b) for p in broader(tree)] == [("dog", "guide-dog")]
    senses = {"poodle": [Sense("1", ("poodle",), "", ("dog", "animal"))]}
    pairs = broader(tree, lambda name: senses.get(name, []))
    assert [(p.a, p.b) for p in pairs] == [("dog", "guide-dog"), ("dog", "poodle")]


@pytest.mark.parametrize(
    "name", ["part-17", "Class 3", "id_4", "n02084071", "q", "42", "!", "deadbeef01", "SKU 884213"]
)
def test_names_that_say_nothing(name: str) -> None:
    assert len(no_words(Taxonomy.from_names([name]))) == 1


@pytest.mark.parametrize(
    "name", ["Boeing 747", "DC-10", "7up", "猫", "ox", "TV", "facade", "я и ты"]
)
def test_names_that_say_something(name: str) -> None:
    assert no_words(Taxonomy.from_names([name])) == []


def test_several_meanings(monkeypatch: pytest.MonkeyPatch) -> None:
    bird = Sense("1", ("crane",), "", ("bird", "animal", "physical_object", "entity"))
    lift = Sense("2", ("crane",), "", ("device", "machine", "physical object", "entity"))
    hen = [Sense("3", ("hen",), "", ("bird", "animal")), Sense("4", ("hen",), "", ("animal",))]
    senses = {"crane": [bird, lift], "hen": hen}

    def look_up(name: str) -> list[Sense]:
        return senses.get(name, [])

    assert several_senses(Taxonomy.from_names(["crane", "hen", "elk"]), look_up) == ["crane"]
    told = Taxonomy([Node("b", "Birds"), Node("crane", "crane", "b"), Node("hen", "hen", "b")])
    assert several_senses(told, look_up) == []
    monkeypatch.setattr(names, "installed", lambda: look_up)
    made, numbers = found(subject_of(["crane", "hen", "elk"]))
    assert made["several_meanings"].classes == ("crane",)
    assert numbers["several_meanings"] == 1


def test_damaged_wordnet_data_leave_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> list[Sense]:
        raise NeedsError("look names up", "the data are damaged", "Install them again.")

    monkeypatch.setattr(names, "installed", lambda: broken)
    made, numbers = found(subject_of(["dog", "guide dog", "cat"]))
    assert set(made) == {"broader_name"}
    assert numbers["several_meanings"] is None


def clusters(K: int = 5, n: int = 12, D: int = 16) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    W = unit(rng.standard_normal((K, D)))
    return unit(np.repeat(W, n, axis=0) + 0.1 * rng.standard_normal((K * n, D))), W


def test_specificity_against_plain_loops() -> None:
    rng = np.random.default_rng(1)
    W = unit(rng.standard_normal((5, 6)))
    X = unit(W[rng.integers(0, 5, 40)] + 0.6 * rng.standard_normal((40, 6)))
    y = (X @ W.T).argmax(axis=1)
    told = specificity(X, W, y)
    assert told is not None
    assert told.tolist() == pytest.approx(reference.specificity(X, W, y, 40 // len(set(y)) - 1))
    order = rng.permutation(40)
    assert specificity(X[order], W, y[order]) == pytest.approx(told)


def test_nothing_is_said_of_too_few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    X, W = clusters(n=3)
    assert specificity(X, W, (X @ W.T).argmax(axis=1)) is None
    assert specificity(X[:0], W, np.zeros(0, np.intp)) is None
    X, W = clusters()
    monkeypatch.setattr(concepts, "ROWS", 1)
    assert (specificity(X, W, (X @ W.T).argmax(axis=1)) == 1).all()


def test_a_class_that_is_answered_here_and_there_is_not_specific() -> None:
    X, W = clusters(n=40)
    y = (X @ W.T).argmax(axis=1)
    y[::40] = 5
    told = specificity(X, np.vstack([W, unit(W.sum(axis=0))]), y)
    assert told is not None
    assert (told[:5] > 0.9).all()
    assert told[5] < 0.05


def test_a_name_that_describes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    X, W = clusters(K=4)
    said = np.array([1.0, 0.05, 0.06, 0.0])
    monkeypatch.setattr(names, "specificity", lambda *given: said)
    made, numbers = found(subject_of(["cat", "dog", "elk", "fox"], X, W))
    one = made["undescribed"]
    assert (one.classes, one.values["images"]) == (("fox", "dog"), 24)
    make, few = one.next.split("  # or label a few images of each, then: ")
    assert make.endswith("--style descriptors --classes c.csv --only fox,dog --emit queries.jsonl")
    assert few == "byname fewshot photos --classes c.csv --encoder mini --support LABELLED.csv"
    assert numbers["undescribed"] == 2
    # A class without any answer is another finding.
    made, _ = found(subject_of(["cat", "dog", "elk", "fox"], X[X @ W[3] < 0.8], W))
    assert made["undescribed"].classes == ("dog",)
    task = subject_of(["cat", "dog", "elk", "fox"], X, W, command="byname diagnose --task F.npz")
    assert found(task)[0]["undescribed"].next.startswith("# write the task again")


def test_near_pairs_and_not_those_of_one_name() -> None:
    X, W = clusters()
    V = np.vstack([W, unit(W[0] + 0.01)])
    assert [pair[:2] for pair in near_pairs(V)] == [(0, 5)]
    given = ["cat", "dog", "elk", "fox", "hen", "lynx"]
    assert found(subject_of(given, X, V))[0]["near_texts"].classes == ("cat", "lynx")
    given[-1] = "Cat"
    assert "near_texts" not in found(subject_of(given, X, V))[0]


def test_texts_against_the_tree() -> None:
    centre = unit(np.random.default_rng(0).standard_normal((2, 16)))
    W = unit(np.repeat(centre, 4, axis=0) + 0.2 * np.random.default_rng(1).normal(size=(8, 16)))
    nodes = [Node("g0", "beasts"), Node("g1", "herbs")]
    named = ["cat", "dog", "elk", "fox", "dill", "mint", "sage", "leek"]
    nodes += [Node(name, name, f"g{k // 4}") for k, name in enumerate(named)]
    assert "texts_against_tree" not in found(subject_of(Taxonomy(nodes), None, W))[0]
    nodes[2], nodes[9] = Node("cat", "cat", "g1"), Node("leek", "leek", "g0")
    made, numbers = found(subject_of(Taxonomy(nodes), None, W))
    assert set(made["texts_against_tree"].classes[:2]) == {"cat", "leek"}
    assert made["texts_against_tree"].next.startswith("byname taxonomy check c.csv")
    assert 0.25 <= (numbers["astray_share"] or 0) < 0.75
    assert np.isnan(astray(W, Taxonomy.from_names(named))[0]).all()


def test_one_sided_pairs() -> None:
    first = np.repeat(np.arange(6), 30)
    second = np.random.default_rng(0).integers(1, 6, 180)
    second = (first + second) % 6
    assert one_sided(first, second, 6) == []
    second[first == 2] = 4
    second[first == 0], second[first == 1] = 1, 0  # drawn to each other
    second[(first == 4) & (second == 2)] = 3
    assert [(pair.of, pair.to, pair.share) for pair in one_sided(first, second, 6)] == [(2, 4, 1.0)]


def test_no_finding_depends_on_the_order_of_images_or_classes() -> None:
    rng = np.random.default_rng(3)
    centre = unit(rng.standard_normal((20, 24)))
    X = unit(np.repeat(centre, 30, axis=0) + 0.3 * rng.standard_normal((600, 24)))
    W = unit(centre + 0.2 * rng.standard_normal((20, 24)))
    W[7], W[9] = unit(W[6] + 0.02), unit(rng.standard_normal(24))
    said = [f"{'guide ' * (k % 2)}dog{'s' * (k % 3)} {'xy'[k % 2] * (k // 4)}" for k in range(20)]
    nodes = [Node(f"g{g}", said[g]) for g in range(4)]
    leaves = [Node(f"c{k}", name.strip(), f"g{k % 4}") for k, name in enumerate(said)]
    made, numbers = found(subject_of(Taxonomy([*nodes, *leaves]), X, W))
    assert {"similar_names", "near_texts", "texts_against_tree", "broader_name"} <= set(made)
    for seed in range(3):
        images = np.random.default_rng(seed).permutation(600)
        order = np.random.default_rng(seed).permutation(20).tolist()
        tree = Taxonomy([*nodes, *[leaves[k] for k in order]])
        again = found(subject_of(tree, X[images], W[order]))
        assert {k: one.what for k, one in again[0].items()} == {k: f.what for k, f in made.items()}
        assert {k: one.next for k, one in again[0].items()} == {k: f.next for k, f in made.items()}
        assert again[1] == pytest.approx(numbers)


def test_descriptors_may_be_checked_where_there_are_images() -> None:
    made, _ = found(subject_of(["cat", "dog"], kind="descriptor"))
    words = shlex.split(made["unchecked_descriptors"].next, comments=True)
    assert words[:5] == ["byname", "controls", "photos", "--classes", "c.csv"]
    assert words[-4:] == ["--descriptors", "FILE.json", "--labels", "LABELS.csv"]
    command = f"{COMMAND} --prompts templates+d.json"
    made, _ = found(subject_of(["cat", "dog"], kind="descriptor", command=command))
    assert "--descriptors templates+d.json" not in made["unchecked_descriptors"].next
    assert "--descriptors d.json" in made["unchecked_descriptors"].next
    task = "byname diagnose --task F.npz"
    assert found(subject_of(["cat", "dog"], kind="descriptor", command=task))[0] == {}


def test_hostile_names_stay_on_one_line_and_are_quoted() -> None:
    evil = ["a\n$(rm -rf x)", "A \n$(rm -rf x);", "<script>", "part-1\n2"]
    X, W = clusters(K=4)
    command = shlex.join(["byname", "diagnose", "my\nphotos", "--classes", "c;d.csv"])
    made, _ = found(subject_of(Taxonomy(Node(f"i{k}\n;", n) for k, n in enumerate(evil)), X, W))
    assert "similar_names" in made
    made |= found(subject_of(evil, X, W, command=command, kind="descriptor"))[0]
    for one in made.values():
        assert "\n" not in one.what + one.next
    assert "'c;d.csv'" in made["unchecked_descriptors"].next


@pytest.mark.parametrize("K", [1, 2, 3])
def test_few_classes_and_no_images(K: int) -> None:
    given = ["cat", "dog", "elk"][:K]
    made, numbers = found(subject_of(given, np.zeros((0, K))))
    assert made == {}
    assert numbers["specificity"] is None
    assert found(subject_of(given))[0] == {}

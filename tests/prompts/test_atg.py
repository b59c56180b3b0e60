from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from byname.errors import NeedsError, PromptError, RecipeError
from byname.prompts.atg import ATG, atg_wording, drop_too_close, pair_queries
from byname.queries import Query
from byname.stage import create
from byname.taxonomy import Node, Taxonomy

FLAT = Taxonomy.from_names(["river", "lake", "car"])
CRANES = Taxonomy(
    [
        Node("b", "bird"),
        Node("m", "machine"),
        Node("x", "crane", "b"),
        Node("y", "crane", "m"),
        Node("o", "owl", "b"),
    ]
)
REPLIES = {
    ("river", "attribute"): "- flowing water\n- a long course",
    ("river", "analogous"): "- canal\n- Lake\n- road",
    ("river", "synonym"): "stream, river",
    ("lake", "attribute"): "- still water",
    ("lake", "analogous"): "- pond",
    ("lake", "synonym"): "none",
    ("car", "attribute"): "- wheels",
    ("car", "analogous"): "- van",
    ("car", "synonym"): "- automobile\n- motorcar",
    ("river", "one-to-one"): "A:\n- flow\nB:\n- a round shore\n- stillness",
    ("lake", "one-to-one"): "A:\n- water",
}


def replies(member: ATG, taxonomy: Taxonomy = FLAT) -> list[tuple[Query, str]]:
    return [(q, REPLIES[q.class_id, q.kind]) for q in member.queries(taxonomy)]


def test_queries() -> None:
    member = ATG(pairs=[("river", "lake")])
    asked = list(member.queries(FLAT))
    assert Counter(q.kind for q in asked) == {
        "attribute": 3,
        "analogous": 3,
        "synonym": 3,
        "one-to-one": 1,
    }
    assert [q.class_id for q in asked[:4]] == ["river", "river", "river", "lake"]
    assert (asked[-1].class_id, asked[-1].about) == ("river", "lake")
    for query in asked:
        assert FLAT.node(query.class_id).name in query.text
        assert "{" not in query.text
    assert [q.kind for q in ATG(kinds="synonyms+attributes").queries(FLAT)][:2] == [
        "attribute",
        "synonym",
    ]
    assert list(ATG(kinds="name").queries(FLAT)) == []


def test_siblings_are_the_pairs_where_none_are_given() -> None:
    def pairs(taxonomy: Taxonomy, **given: Any) -> list[tuple[str, str]]:
        asked = ATG(kinds="name+one-to-one", **given).queries(taxonomy)
        return [(q.class_id, q.about) for q in asked]

    assert pairs(CRANES) == [("x", "o")]
    assert pairs(CRANES, pairs=[("y", "o")]) == [("y", "o")]
    assert pairs(FLAT) == [("river", "lake"), ("river", "car"), ("lake", "car")]
    with pytest.raises(NeedsError):
        ATG(kinds="name+one-to-one").generate(FLAT)


def test_names_in_questions_are_text() -> None:
    odd = Taxonomy([Node("a", "{other} {item} 50 %"), Node("b", "x")])
    query = next(ATG(pairs=[("a", "b")]).queries(odd))
    assert '"{other} {item} 50 %"' in query.text


def test_classes_of_one_name_are_asked_about_with_their_parents() -> None:
    asked = {q.class_id: q.text for q in ATG(kinds="attributes").queries(CRANES)}
    assert '"crane (bird)"' in asked["x"]
    assert '"crane (machine)"' in asked["y"]
    assert '"owl"' in asked["o"]
    (pair,) = pair_queries(CRANES, [("x", "y")])
    assert '"crane (bird)" (A)' in pair.text
    assert list(pair_queries(Taxonomy([Node("a", "x"), Node("b", "x")]), [("a", "b")])) == []


def test_collect() -> None:
    member = ATG(pairs=[("river", "lake"), ("lake", "car")])
    made = member.collect(FLAT, replies(member))
    assert list(made.align(FLAT).classes) == list(FLAT.class_ids)
    found = [(p.kind, p.about) for p in made.classes["river"]]
    assert found == [
        ("name", ""),
        ("attribute", "flowing water"),
        ("attribute", "a long course"),
        ("analogous", "canal"),
        ("analogous", "road"),
        ("synonym", "stream"),
    ]
    texts = made.texts("car")
    assert texts[0] == "a photo of a car."
    assert texts[-2:] == ["a photo of a automobile.", "a photo of a motorcar."]
    assert all("wheels" in t and "car" in t for t in texts[1:2])
    assert [(p.a, p.b, len(p.texts)) for p in made.pairs] == [
        ("river", "lake", 3),
        ("lake", "river", 6),
    ]
    assert all("flow" in text for text in made.pairs[0].texts)
    given = made.provenance.model_dump()
    assert given["answers_dropped"] == {"name of a class": 2, "pair with one side": 1}
    assert given["queries"] == 11


def test_no_text_holds_the_word_none() -> None:
    """In the paper's code every synonym became a photo of "None"."""
    member = ATG()
    made = member.collect(FLAT, replies(member))
    texts = [text for node_id in FLAT.class_ids for text in made.texts(node_id)]
    assert texts
    assert not [text for text in texts if "none" in text.casefold()]


def test_names_alone_need_no_replies() -> None:
    made = ATG(kinds="name", template="{} in a photo").generate(FLAT)
    assert made.texts("lake") == ["lake in a photo"]
    with pytest.raises(NeedsError, match="prompts make"):
        ATG().generate(FLAT)
    with pytest.raises(NeedsError):
        ATG(kinds="name", pairs=[("river", "lake")]).generate(FLAT)


def test_without_names_a_class_without_reply_is_missing() -> None:
    member = ATG(kinds="attributes")
    made = member.collect(FLAT, replies(member)[:2])
    assert list(made.classes) == ["river", "lake"]
    with pytest.raises(PromptError, match="no texts for 'car'"):
        made.align(FLAT)


def test_replies_to_other_questions_are_refused() -> None:
    other = next(ATG(kinds="attributes").queries(Taxonomy.from_names(["owl"])))
    with pytest.raises(PromptError, match="answer no query"):
        ATG().collect(FLAT, [(other, "- feathers")])


def fake_vectors(table: dict[str, list[float]]) -> Any:
    calls: list[list[str]] = []

    def embed(texts: list[str]) -> NDArray[np.float64]:
        calls.append(texts)
        return np.array([table[t] for t in texts])

    embed.calls = calls  # type: ignore[attr-defined]
    return embed


def test_drop_too_close_is_about_other_classes() -> None:
    names = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])
    embed = fake_vectors(
        {
            "near a": [0.99, 0.1, 0],
            "near b": [0, 0.95, 0.3],
            "far": [0.6, 0.6, 0.5],
            "at b": [0, 2, 0],
        }
    )
    given = {"a": ["near a", "near b", "far", "at b"], "b": ["near b", "near a"], "c": []}
    kept = drop_too_close(given, embed, names)
    assert kept == {"a": ["near a", "far"], "b": ["near b"], "c": []}
    assert embed.calls == [["near a", "near b", "far", "at b"]]
    assert drop_too_close(given, embed, names, limit=1.0) == {k: list(v) for k, v in given.items()}
    assert drop_too_close({"a": ["at b"]}, embed, names[:1]) == {"a": ["at b"]}
    assert drop_too_close({"a": []}, embed, names[:1]) == {"a": []}
    with pytest.raises(PromptError, match="3 classes and 2 class vectors"):
        drop_too_close(given, embed, names[:2])


def test_drop_too_close_agrees_with_a_plain_loop() -> None:
    rng = np.random.default_rng(0)
    names = rng.normal(0, 1, (6, 3))
    names /= np.linalg.norm(names, axis=1, keepdims=True)
    vectors = {f"t{i}": rng.normal(0, 1, 3) for i in range(40)}
    given = {f"c{k}": [f"t{i}" for i in rng.choice(40, 10, replace=False)] for k in range(6)}
    expected = {
        f"c{k}": [
            t
            for t in given[f"c{k}"]
            if max(vectors[t] @ names[j] / np.linalg.norm(vectors[t]) for j in range(6) if j != k)
            <= 0.8
        ]
        for k in range(6)
    }
    embed = fake_vectors({t: v.tolist() for t, v in vectors.items()})
    assert drop_too_close(given, embed, names, 0.8) == expected
    assert expected != given


def test_collect_drops_look_alikes_too_close_to_another_class() -> None:
    member = ATG(kinds="name+analogous")
    table = {
        f"a photo of a {n}.": [1.0 * (i == j) for j in range(4)]
        for i, n in enumerate(["river", "lake", "car", "road"])
    }
    table |= {
        "a photo of a canal.": [1.0, 0.1, 0, 0],
        "a photo of a pond.": [0, 0, 1.0, 0.1],
        "a photo of a van.": [0, 0, 1, 0.1],
    }
    made = member.collect(FLAT, replies(member), embed=fake_vectors(table))
    about = {i: [p.about for p in made.classes[i] if p.kind == "analogous"] for i in made.classes}
    assert about == {"river": ["canal", "road"], "lake": [], "car": ["van"]}
    assert made.provenance.model_dump()["answers_dropped"]["too close"] == 1


def test_wording() -> None:
    wording = atg_wording(
        {
            "questions": {"synonym": {"text": "Other names of {name}?", "temperature": 0.5}},
            "sentences": {"attribute": ["{item}!", "{name}: {item}"]},
        }
    )
    member = ATG(kinds="attributes+synonyms", wording=wording)
    asked = list(member.queries(FLAT))
    assert (asked[1].text, asked[1].temperature) == ("Other names of river?", 0.5)
    made = member.collect(FLAT, [(asked[0], "- wet")])
    assert made.texts("river") == ["wet!", "river: wet"]


@pytest.mark.parametrize(
    "raw, seen",
    [
        ({"questions": {"synonym": {"text": "What?"}}}, "question 'synonym' must hold {name}"),
        (
            {"questions": {"one-to-one": {"text": "{name}?"}}},
            "question 'one-to-one' must hold {name} and {other}",
        ),
        ({"sentences": {"attribute": ["{name}"]}}, "must hold {item}"),
        ({"sentences": {"analogous": ["{item} {other}"]}}, "for 'analogous' must hold"),
        ({"sentences": {"attribute": []}}, "sentences/attribute: Tuple should have at least 1"),
        ({"questions": 3}, "'questions' is no object"),
        ({"words": {}}, "is not an object with"),
        ({}, "is not an object with"),
        ([], "is not an object with"),
        (None, "is not an object with"),
        ("x", "is not an object with"),
        (5, "is not an object with"),
        ({"questions": {"colour": "{name}?"}}, "there is no kind 'colour'"),
    ],
)
def test_bad_wording(raw: Any, seen: str) -> None:
    with pytest.raises(PromptError) as caught:
        ATG().use_wording(raw, "'w.json'")
    assert seen in str(caught.value)
    assert "use the wording in 'w.json' for 'atg'" in str(caught.value)


@pytest.mark.parametrize(
    "spec, seen",
    [
        ("atg[kinds=name+smell]", "'smell' is no kind"),
        ("atg[kinds=+]", "no kind is given"),
        ("atg[template=a photo]", "it holds {} 0 times"),
    ],
)
def test_bad_parameters(spec: str, seen: str) -> None:
    with pytest.raises(RecipeError) as caught:
        create(spec, "prompts")
    assert seen in str(caught.value)


@pytest.mark.parametrize(
    "pair, seen",
    [(("river", "sea"), "no class has the id 'sea'"), (("car", "car"), "it is one class twice")],
)
def test_bad_pairs(pair: tuple[str, str], seen: str) -> None:
    with pytest.raises(PromptError, match=seen):
        list(pair_queries(FLAT, [pair]))


def test_equal_replies_to_different_questions_all_count() -> None:
    fruit = Taxonomy.from_names(["apple", "pear", "plum"])
    member = ATG(kinds="name+one-to-one")
    same = "A:\n- red skin\nB:\n- green skin"
    made = member.collect(fruit, [(q, same) for q in member.queries(fruit)])
    assert [(p.a, p.b) for p in made.pairs] == [
        ("apple", "pear"), ("pear", "apple"), ("apple", "plum"), ("plum", "apple"),
        ("pear", "plum"), ("plum", "pear"),
    ]  # fmt: skip
    member = ATG(kinds="name+attributes+analogous")
    given = [(q, "- tomato") for q in member.queries(fruit) for _ in range(2)]
    made = member.collect(fruit, given)
    kinds = {p.kind for p in made.classes["apple"]}
    assert kinds == {"name", "attribute", "analogous"}
    assert made.provenance.model_dump()["dropped"]["duplicate"] == 6


def test_refusals_are_counted() -> None:
    member = ATG(kinds="name+attributes")
    sorry = "I'm sorry, but I can't help with that."
    made = member.collect(FLAT, [(q, sorry) for q in member.queries(FLAT)])
    assert made.provenance.model_dump()["dropped"]["refusal"] == 3
    assert [p.kind for p in made.classes["car"]] == ["name"]

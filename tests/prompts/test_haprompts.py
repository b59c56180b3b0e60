from __future__ import annotations

import time
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from byname.errors import PromptError, RecipeError
from byname.prompts.haprompts import HAPrompts, default_wording, parse_wording
from byname.stage import create
from byname.taxonomy import Node, Taxonomy
from byname.taxonomy_io import read_taxonomy

TREE = Taxonomy(
    [
        Node("root", "everything"),
        Node("f", "fruit", "root"),
        Node("c", "citrus", "f"),
        Node("l", "lemon", "c"),
        Node("o", "orange", "c"),
        Node("a", "apple", "f"),
        Node("d", "dairy", "root"),
        Node("m", "milk", "d"),
        Node("s", "salt", "root"),
    ]
)
# The published counts: LP without its fallback, node pairs without de-duplication.
COUNTS = {
    "food-101": (866, 1247, 2113, 606, 2719),
    "ucf-101": (958, 1191, 2149, 504, 2653),
    "cub-200": (2262, 5249, 7511, 1200, 8711),
    "sun-324": (7396, 1966, 9362, 2433, 11795),
    "imagenet-998": (4616, 33492, 38108, 16839, 54947),
}


def count(taxonomy: Taxonomy, **params: Any) -> int:
    return sum(1 for _ in HAPrompts(**params).queries(taxonomy))


def asked(class_id: str, taxonomy: Taxonomy = TREE, **params: Any) -> list[tuple[str, str]]:
    made = HAPrompts(**params).queries(taxonomy)
    return [(q.about, q.kind) for q in made if q.class_id == class_id]


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if "998" in n else ()) for n in COUNTS]
)
def test_the_published_counts(shared: Path, name: str) -> None:
    taxonomy = read_taxonomy(shared / "taxonomies" / f"{name}.json")
    lp, ap, comp, path, full = COUNTS[name]
    wanted = {
        "lp": lp,
        "ap": ap,
        "comp": comp,
        "path": path,
        "full": full,
        "lp+ap": comp,
        "lp+path": lp + path,
        "path+ap": ap + path,
        "lp+ap+path": full,
        "comp+lp": comp,
    }
    assert {variant: count(taxonomy, variant=variant) for variant in wanted} == wanted
    fallback = count(taxonomy, variant="lp", fallback=True)
    assert fallback == (2597 if name == "cub-200" else lp)
    dedup = count(taxonomy, variant="comp", dedup=True)
    assert dedup == (38050 if name == "imagenet-998" else comp)


def test_who_is_asked_about_whom() -> None:
    assert asked("l", variant="lp") == [("o", "leaf_peer")]
    assert asked("l", variant="ap") == [
        ("a", "ancestor_peer"),
        ("d", "ancestor_peer"),
        ("s", "ancestor_peer"),
    ]
    assert asked("a", variant="lp") == [("c", "leaf_peer")], "a peer may be a group"
    kinds = ["path_look", "path_picture", "path_traits"]
    assert asked("l", variant="path") == [(a, kind) for a in ("c", "f") for kind in kinds]
    assert asked("l") == [*asked("l", variant="lp"), *asked("l", variant="ap+path")]


def test_a_class_right_below_the_root_is_described_without_a_note() -> None:
    made = [q for q in HAPrompts(variant="path").queries(TREE) if q.class_id == "s"]
    assert [q.about for q in made] == ["", "", ""]
    assert all("salt" in q.text and "kind of" not in q.text for q in made)


def test_the_root_is_never_mentioned() -> None:
    for query in HAPrompts().queries(TREE):
        assert "everything" not in query.text
        assert query.about != "root"


def test_fallback_only_stands_in_for_missing_siblings() -> None:
    assert asked("m", variant="lp") == []
    stand_in = [("f", "ancestor_peer"), ("s", "ancestor_peer")]
    assert asked("m", variant="lp", fallback=True) == stand_in
    assert asked("l", variant="lp", fallback=True) == asked("l", variant="lp")
    assert asked("m", variant="comp", fallback=True) == stand_in, "nothing is asked twice"


def test_classes_of_one_name_are_asked_apart_and_their_queries_differ() -> None:
    cranes = [
        Node("b", "birds"), Node("x", "crane", "b"), Node("g", "gull", "b"),
        Node("t", "tools"), Node("y", "crane", "t"), Node("h", "hammer", "t"),
    ]  # fmt: skip
    made = list(HAPrompts(variant="comp").queries(Taxonomy(cranes)))
    assert len({q.id for q in made}) == len(made) == 8
    assert ("h", "leaf_peer") in asked("y", Taxonomy(cranes), variant="lp")


def test_dedup_leaves_out_equal_and_repeated_names() -> None:
    nodes = [
        Node("A", "avocado"), Node("a1", "avocado", "A"),
        Node("P", "pear"), Node("p1", "conference", "P"), Node("p2", "pear", "P"),
        Node("B", "box"), Node("b1", "lid", "B"), Node("b2", "lid", "B"), Node("b3", "base", "B"),
    ]  # fmt: skip
    tree = Taxonomy(nodes)
    assert asked("b3", tree, variant="lp") == [("b1", "leaf_peer"), ("b2", "leaf_peer")]
    assert asked("b3", tree, variant="lp", dedup=True) == [("b1", "leaf_peer")]
    assert asked("p2", tree, variant="comp", dedup=True) == [
        ("p1", "leaf_peer"),
        ("A", "ancestor_peer"),
        ("B", "ancestor_peer"),
    ]
    assert [about for about, _ in asked("a1", tree, variant="path")] == ["A"] * 3
    assert [about for about, _ in asked("a1", tree, variant="path", dedup=True)] == [""] * 3
    assert asked("b1", tree, variant="lp", dedup=True) == [("b3", "leaf_peer")]


def test_a_flat_list() -> None:
    flat = Taxonomy.from_names(["cat", "dog", "fox"])
    assert [count(flat, variant=v) for v in ("lp", "ap", "path", "full")] == [6, 0, 9, 15]


def test_identical_taxonomies_give_identical_queries() -> None:
    again = Taxonomy(list(TREE.nodes))
    assert list(HAPrompts().queries(again)) == list(HAPrompts().queries(TREE))
    ids = {q.id for q in HAPrompts().queries(TREE)}
    assert {q.id for q in HAPrompts(variant="path").queries(TREE)} < ids


@pytest.mark.slow
def test_the_largest_tree_is_planned_fast_and_lazily(shared: Path) -> None:
    taxonomy = read_taxonomy(shared / "taxonomies" / "imagenet-998.json")
    start = time.process_time()
    assert count(taxonomy) == 54947
    assert time.process_time() - start < 2
    tracemalloc.start()
    count(taxonomy)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5e6


@pytest.mark.parametrize("variant", ["", "lpp", "lp+", "lp path"])
def test_unknown_variants(variant: str) -> None:
    with pytest.raises(RecipeError) as error:
        HAPrompts(variant=variant)
    assert str(error.value) == (
        f"cannot use the variant '{variant}' of 'haprompts': "
        f"'{variant.rpartition('+')[2].strip()}' is none. "
        "Known: lp, ap, comp, path, full, and unions such as lp+path."
    )


def test_the_spec() -> None:
    assert create("haprompts[variant=LP + path,dedup=true]").params.parts() == ("lp", "path")
    assert HAPrompts(variant="lp").spec == "haprompts[variant=lp]"


def test_remarks_say_what_the_options_would_do() -> None:
    assert HAPrompts(variant="lp").remarks(TREE) == [
        "fallback: off, it would change the number by +2 (classes without a sibling: 1)",
        "dedup: off, it would change the number by +0 (repeated or equal names)",
    ]
    on = HAPrompts(variant="lp", fallback=True).remarks(TREE)[0]
    assert on == "fallback: on, it changes the number by +2 (classes without a sibling: 1)"


def test_settings_of_the_paper() -> None:
    for query in HAPrompts().queries(TREE):
        assert query.stop == ("." if query.kind.endswith("peer") else None)
        assert (query.temperature, query.max_tokens) == (1.0, 150)


def test_levels_go_from_descriptions_to_fine_comparisons() -> None:
    member = HAPrompts()
    replies = [(q, f"text {i}") for i, q in enumerate(member.queries(TREE))]
    prompts = member.collect(TREE, replies).classes["l"]
    assert Counter(p.level for p in prompts) == {0: 6, 1: 2, 2: 1, 3: 1}
    assert [p.about for p in prompts if p.level == 3] == ["o"]


# -- wording


def test_names_and_wordings_are_inert() -> None:
    odd = Taxonomy([Node("x", "{peer} {0}"), Node("y", "a\\1 {name}")])
    wording = parse_wording({"leaf_peer": "{name} | {peer} | {x} {} {{name}} %s"})
    texts = [q.text for q in HAPrompts(variant="lp", wording=wording).queries(odd)]
    assert texts[0] == "{peer} {0} | a\\1 {name} | {x} {} {{peer} {0}} %s"


def test_a_wording_replaces_what_it_names() -> None:
    wording = parse_wording(
        {"path_look": {"text": "{name} ({ancestor})?", "alone": "{name}?", "max_tokens": 9}}
    )
    assert wording["leaf_peer"] == default_wording()["leaf_peer"]
    made = list(HAPrompts(variant="path", wording=wording).queries(TREE))
    looks = {q.text: q.max_tokens for q in made if q.kind == "path_look"}
    assert looks["lemon (citrus)?"] == 9
    assert looks["salt?"] == 9


@pytest.mark.parametrize(
    "raw, seen",
    [
        ([], "it is not a JSON object with kinds of questions"),
        ({}, "it is not a JSON object with kinds of questions"),
        ({"peer": "x"}, "there is no kind of question 'peer'"),
        ({"leaf_peer": 3}, "at leaf_peer: it is neither a text nor an object"),
        ({"leaf_peer": None}, "at leaf_peer: it is neither a text nor an object"),
        ({"leaf_peer": {}}, "at leaf_peer/text: Field required"),
        ({"leaf_peer": "{name}?"}, "leaf_peer/text lacks {peer}"),
        ({"leaf_peer": "{peer}?"}, "leaf_peer/text lacks {name}"),
        ({"path_look": "{name}?"}, "path_look/text lacks {ancestor}"),
        (
            {"leaf_peer": "{name} {peer} {ancestor}"},
            "leaf_peer/text holds {ancestor}, which it has no value for",
        ),
        (
            {"path_look": {"text": "{name} {ancestor}", "alone": "?"}},
            "path_look/alone lacks {name}",
        ),
        (
            {"leaf_peer": {"text": "{name} {peer}", "temperature": 3}},
            "at leaf_peer/temperature: Input should be less than or equal to 2",
        ),
        (
            {"leaf_peer": {"text": "{name} {peer}", "tokens": 3}},
            "at leaf_peer/tokens: Extra inputs are not permitted",
        ),
    ],
)
def test_wordings_that_do_not_fit(raw: Any, seen: str) -> None:
    with pytest.raises(PromptError) as error:
        parse_wording(raw, "'w.json'")
    assert str(error.value).startswith(f"cannot use the wording in 'w.json': {seen}.")


def test_equal_names_are_told_apart_in_the_wording_alone() -> None:
    nodes = [
        Node("b", "birds"), Node("x", "crane", "b"), Node("g", "gull", "b"),
        Node("t", "crane"), Node("y", "lattice", "t"),
        Node("B", "box"), Node("b1", "lid", "B"), Node("b2", "Lid", "B"),
    ]  # fmt: skip
    tree = Taxonomy(nodes)
    made = {(q.class_id, q.about): q for q in HAPrompts(variant="comp").queries(tree)}
    assert len(made) == sum(HAPrompts(variant="comp").counts(tree).values())
    for pair, names in {
        ("x", "t"): ("crane (birds)", "crane"),
        ("b1", "b2"): ("lid (b1)", "Lid (b2)"),
        ("x", "g"): ("crane", "gull"),
    }.items():
        kind = made[pair].kind
        question = default_wording()[kind].text
        assert made[pair].text == question.replace("{name}", names[0]).replace("{peer}", names[1])

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Any

import pytest

from byname.errors import PromptError, RecipeError
from byname.prompts.sounds import Sounds
from byname.promptset import PromptSet
from byname.queries import Query
from byname.stage import create
from byname.taxonomy import Node, Taxonomy

PETS = Taxonomy([Node("d", "dog_bark"), Node("c", "cat_meow"), Node("x", "{item} {} 50 %")])
FIVE = "\n".join(f"{i}. Description {i}, short." for i in range(1, 6))


def first_round(taxonomy: Taxonomy = PETS, **params: Any) -> dict[str, Query]:
    return {query.class_id: query for query in Sounds(**params).queries(taxonomy)}


def follow(
    replies: Mapping[str, Sequence[str]], taxonomy: Taxonomy = PETS, **params: Any
) -> list[Query]:
    return [q for q in Sounds(**params).asked(taxonomy, replies) if q.kind == "scene"]


def test_first_round() -> None:
    asked = list(Sounds().queries(PETS))
    assert [(q.class_id, q.kind, q.form, q.temperature) for q in asked] == [
        (i, "sound", "list", 0.7) for i in ("d", "c", "x")
    ]
    assert '"dog bark"' in asked[0].text
    assert "_" not in asked[0].text
    assert "5 different ways" in asked[0].text
    assert '"{item} {} 50 %"' in asked[2].text
    assert Sounds().remarks(PETS) == [
        "follow-up queries: at most 15, 5 a class, once the first are answered"
    ]


def test_one_and_five_queries_a_class() -> None:
    one = first_round()
    replies = {query.id: [FIVE] for query in one.values()}
    asked = list(Sounds().asked(PETS, replies))
    assert len(asked) == 3 * (1 + 5)
    assert len({query.id for query in asked}) == len(asked)
    assert [q.class_id for q in asked] == ["d", "c", "x", *"ddddd", *"ccccc", *"xxxxx"]
    scenes = asked[3:8]
    assert [f'"Description {i}, short"' in q.text for i, q in enumerate(scenes, 1)] == [True] * 5
    assert all("10 captions" in q.text and '"dog bark"' in q.text for q in scenes)
    assert all(q.about == "" for q in asked)


def test_partial_replies_give_what_can_be_asked_so_far() -> None:
    one = first_round()
    every = {query.id: [FIVE] for query in one.values()}
    whole = follow(every)
    assert list(Sounds().asked(PETS)) == list(one.values())
    assert list(Sounds().asked(PETS, {})) == list(one.values())
    assert follow({one["c"].id: [FIVE]}) == [q for q in whole if q.class_id == "c"]
    two = {one["x"].id: [FIVE], one["d"].id: ["- Only this.", "- only THIS.\n- And that."]}
    assert [(q.class_id, q.kind) for q in Sounds().asked(PETS, two)][3:] == (
        [("d", "scene")] * 2 + [("x", "scene")] * 5
    )
    answered = {**every, whole[0].id: ["- A dog."]}
    assert follow(answered) == whole


@pytest.mark.parametrize("order", list(permutations("dcx")))
def test_the_order_of_replies_does_not_matter(order: tuple[str, ...]) -> None:
    one = first_round()
    assert follow({one[i].id: [FIVE] for i in order}) == follow({one[i].id: [FIVE] for i in "dcx"})


@pytest.mark.parametrize(
    "reply, items",
    [
        (FIVE + "\n6. One too many", [f"Description {i}, short" for i in range(1, 6)]),
        ('{"1": "Low, then high", "2": "Error", "3": "x"}', ["Low, then high", "x"]),
        ('["Low", "cut o', ["Low"]),
        ("A sharp, sudden crack, and no more.", ["A sharp, sudden crack, and no more"]),
        ("Error", []),
        ("error: timed out", []),
        ("- Error beeps of a computer", ["Error beeps of a computer"]),
        ("I'm sorry, I can't describe it.", []),
        ("- I cannot say.\n- Loud.", ["Loud"]),
        ("", []),
        ("- " + "x" * 1001 + "\n- y", ["y"]),
        ("- {name} {count} <b>", ["{name} {count} <b>"]),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_descriptions(reply: str, items: list[str]) -> None:
    query = first_round()["c"]
    asked = follow({query.id: [reply]})
    assert len(asked) == len(items)
    for item, scene in zip(items, asked, strict=True):
        assert f'is described so: "{item}". Write 10' in scene.text
    assert bool(Sounds().problem(query, reply)) == (not items and "x" * 1001 not in reply)


def test_texts() -> None:
    member, one = Sounds(), first_round()
    replies: list[tuple[Query, str]] = [(one["d"], "- Short bursts.\n- A growl.")]
    scenes = follow({one["d"].id: [replies[0][1]]})
    replies += [
        (scenes[0], '{"1": "A dog barks, far off.", "2": "Error", "3": "A bark is heard."}'),
        (scenes[1], "1. A growl in a yard\n2. A dog barks, far off\n3. The Sounds of a dog"),
        (one["c"], "Error"),
    ]
    made = member.collect(PETS, replies)
    assert made.texts("d") == [
        "This is a sound of dog bark.",
        "A dog barks, far off",
        "A growl in a yard",
    ]
    assert [p.kind for p in made.classes["d"]] == ["template", "scene", "scene"]
    assert [p.template for p in made.classes["d"]] == [0, -1, -1]
    assert made.texts("x") == ["This is a sound of {item} {} 50 %."]
    record = made.provenance.model_dump()
    assert record["answers_dropped"] == {"error": 1, "forbidden word": 2, "no list": 1}
    assert record["queries"] == 3 + 2
    assert member.collect(PETS, replies[::-1]) == made
    assert list(Sounds(mix=False).collect(PETS, replies).classes) == ["d"]
    assert PromptSet.model_validate_json(made.model_dump_json()) == made


def test_second_round_replies_may_be_missing() -> None:
    one = first_round()
    first = [(query, FIVE) for query in one.values()]
    scenes = follow({query.id: [FIVE] for query in one.values()})
    made = Sounds().collect(PETS, [*first, (scenes[7], "- A cat at night"), (scenes[0], "")])
    assert made.texts("c") == ["This is a sound of cat meow.", "A cat at night"]
    assert len(made.texts("d")) == 1
    assert made.provenance.model_dump()["queries"] == 18
    assert made.provenance.model_dump()["dropped"]["empty"] == 1


def test_second_round_replies_without_the_first_are_refused() -> None:
    one = first_round()
    [scene, *_] = follow({one["d"].id: [FIVE]})
    with pytest.raises(PromptError, match="1 of them answer no query of these classes"):
        Sounds().collect(PETS, [(scene, "- A dog")])


def test_no_more_captions_than_asked_for() -> None:
    query = first_round(n=1, scenes=2)["d"]
    [scene] = follow({query.id: [FIVE]}, n=1, scenes=2)
    assert "2 captions" in scene.text
    member = Sounds(n=1, scenes=2, mix=False)
    made = member.collect(PETS, [(query, FIVE), (scene, "- a\n- is heard\n- b\n- c\n- d")])
    assert made.texts("d") == ["a", "b"]
    assert made.provenance.model_dump()["answers_dropped"] == {
        "forbidden word": 1,
        "more than asked for": 2,
    }


def test_a_forbidden_word_that_is_the_class() -> None:
    names = Taxonomy.from_names(["sound of rain", "rain"])
    one = first_round(names)
    replies = {query.id: ["- Drops."] for query in one.values()}
    said = [(query, "- Drops.") for query in one.values()]
    said += [(q, "- The sound of rain on a roof\n- rain was heard") for q in follow(replies, names)]
    made = Sounds(mix=False).collect(names, said)
    assert [list(map(str, made.texts(i))) for i in made.classes] == [
        ["The sound of rain on a roof"]
    ]


def test_words_that_only_hold_a_forbidden_one_are_kept() -> None:
    query = first_round()["d"]
    [scene, *_] = follow({query.id: [FIVE]})
    reply = "- A soundless, unheard dog\n- A SOUND, at last"
    made = Sounds(mix=False).collect(PETS, [(query, FIVE), (scene, reply)])
    assert made.texts("d") == ["A soundless, unheard dog"]


@pytest.mark.parametrize(
    "reply",
    ["- a\u202eb", "- \x00\x1b[31mred", "- <img src=x>", "- Ignore the above", "- " + "y" * 10**6],
    ids=lambda value: repr(value)[:20],
)
def test_hostile_captions_are_text(reply: str) -> None:
    query = first_round()["d"]
    [scene, *_] = follow({query.id: [FIVE]})
    made = Sounds(mix=False).collect(PETS, [(query, FIVE), (scene, reply)])
    assert made.texts("d") == [reply[2:]]
    assert PromptSet.model_validate_json(made.model_dump_json()) == made


def test_classes_of_one_name() -> None:
    cranes = Taxonomy(
        [Node("b", "bird"), Node("m", "machine"), Node("x", "crane", "b"), Node("y", "crane", "m")]
    )
    one = first_round(cranes)
    assert ["crane (bird)" in one["x"].text, "crane (machine)" in one["y"].text] == [True, True]
    scenes = follow({query.id: ["- Loud."] for query in one.values()}, cranes)
    assert ["crane (bird)" in q.text for q in scenes] == [True, False]
    assert Sounds().collect(cranes, ()).texts("y") == ["This is a sound of crane."]


def test_only() -> None:
    member, one = Sounds(), first_round()
    member.only = frozenset({"c"})
    replies = {query.id: [FIVE] for query in one.values()}
    assert {query.class_id for query in member.asked(PETS, replies)} == {"c"}
    assert list(member.collect(PETS, [(one["c"], FIVE)]).classes) == ["c"]


@pytest.mark.parametrize(
    "spec, message",
    [
        ("sounds[n=0]", "use 'sounds[n=0]': it is not from 1 to 100"),
        ("sounds[scenes=101]", "use 'sounds[scenes=101]'"),
        ("sounds[template=a sound]", "it holds {} 0 times"),
        ("sounds[n=five]", "n='five' does not fit"),
    ],
)
def test_wrong_parameters(spec: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        create(spec)
    assert message in str(caught.value)


def test_music() -> None:
    member = create("sounds[template=This is a {} song.]")
    made = member.collect(Taxonomy.from_names(["hip_hop"]), ())
    assert made.texts(next(iter(made.classes))) == ["This is a hip hop song."]

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from byname.prompts.replies import parse_list, parse_two_lists


@pytest.mark.parametrize(
    "reply, expected",
    [
        ("- a long tail\n- big ears\n", ["a long tail", "big ears"]),
        ("* a\n* b\n• c\n_ d\n– e", ["a", "b", "c", "d", "e"]),
        ("1. red\n2) round\n(3) ripe", ["red", "round", "ripe"]),
        ("Sure! Features:\n\n- red\n- round\n\nI hope this helps.", ["red", "round"]),
        ("- **Colour:** red\n- `round`", ["Colour: red", "round"]),
        ("- Red\n- red\n- RED.", ["Red"]),
        ("red, round and ripe.", ["red", "round", "ripe"]),
        ("red, round, and ripe", ["red", "round", "ripe"]),
        ("a long, thin tail; big ears", ["a long, thin tail", "big ears"]),
        ("- a long, thin tail", ["a long, thin tail"]),
        ("Features:\nred\nround", ["red", "round"]),
        ("couch", ["couch"]),
        ("black and white stripes", ["black and white stripes"]),
        ("1.5 m long\n2 ears", ["1.5 m long", "2 ears"]),
        ("none", []),
        ("None.", []),
        ("- none", []),
        ("I'm sorry, but I cannot help with that, friend.", []),
        ("", []),
        (" \n\t", []),
        ("- \n- \n", []),
    ],
)
def test_lists(reply: str, expected: list[str]) -> None:
    assert parse_list(reply) == expected


@pytest.mark.parametrize(
    "reply",
    [
        "A:\n- long\n- flows: always\nB:\n- round\n- still",
        "A\n- long\n- flows: always\n\nB\n- round\n- still",
        "For A:\n1. long\n2. flows: always\nFor B:\n1. round\n2. still",
        "**River:**\n- long\n- flows: always\n**Lake**:\n- round\n- still",
        "### River (A):\n- long\n- flows: always\n### Lake (B):\n- round\n- still",
        "Here are the key differences:\n\nA (river):\n* long\n* flows: always\n\n"
        "B (lake):\n* round\n* still",
        "Visible differences for the river:\n- long\n- flows: always\nFor the lake:\n- round\n"
        "- still",
        "1. River:\n   - long\n   - flows: always\n2. Lake:\n   - round\n   - still",
        "Lake: round, still\nRiver: long; flows: always",
        "- A: long\n- B: round\n- A: flows: always\n- B: still",
        '"river": long; flows: always\n"lake": round; still',
    ],
)
def test_two_lists(reply: str) -> None:
    assert parse_two_lists(reply, "river", "lake") == (
        ["long", "flows: always"],
        ["round", "still"],
    )


def test_for_and_a_colon_inside_an_answer() -> None:
    reply = "A:\n- known For its course: winding\n- For boats\nB:\n- a shore"
    assert parse_two_lists(reply, "river", "lake") == (
        ["known For its course: winding", "For boats"],
        ["a shore"],
    )


def test_one_name_inside_the_other() -> None:
    reply = "apple:\n- green\nred apple:\n- red"
    assert parse_two_lists(reply, "red apple", "apple") == (["red"], ["green"])
    reply = "crane (bird): feathers\ncrane (machine): steel"
    assert parse_two_lists(reply, "crane (bird)", "crane (machine)") == (["feathers"], ["steel"])


def test_remarks_are_no_answers() -> None:
    reply = "A:\n- long\n\nB:\n- round\n\nThese help to tell them apart."
    assert parse_two_lists(reply, "river", "lake") == (["long"], ["round"])


@pytest.mark.parametrize("reply", ["", "they look alike", "A:\n- long", "- long\n- round"])
def test_a_side_without_answers(reply: str) -> None:
    a, b = parse_two_lists(reply, "river", "lake")
    assert not (a and b)


@given(st.lists(st.from_regex(r"[a-z]{2,8} [a-z]{2,8}", fullmatch=True), max_size=6, unique=True))
def test_what_is_written_as_a_list_comes_back(items: list[str]) -> None:
    items = [item for item in items if item not in ("no synonyms",)]
    assert parse_list("\n".join(f"- {item}" for item in items)) == items
    assert parse_list("\n".join(f"{i}. {item}" for i, item in enumerate(items, 1))) == items


@given(st.text(), st.text(min_size=1), st.text(min_size=1))
def test_any_text_can_be_read(reply: str, a: str, b: str) -> None:
    for items in (parse_list(reply), *parse_two_lists(reply, a, b)):
        assert all(item and item == item.strip() for item in items)
        assert len({item.casefold() for item in items}) == len(items)


@pytest.mark.parametrize(
    "reply",
    [
        '["a b", "c"]',
        '{"items": ["a b", "c"]}',
        '{"1": "a b", "2": "c"}',
        'Here:\n```json\n{"items": ["a b", "c"]}\n```\nI hope so',
        '```\n["a b", "c"]\n```',
        '```json\n["a b", "c"',
        '{"items": ["a b", "c", "cut o',
        '{"1": "a b", "2": "c", "3": "cut',
        '{"1": "a b", "2": "c", "th',
        "- a b\n- c",
    ],
)
def test_json_in_any_dress(reply: str) -> None:
    assert parse_list(reply) == ["a b", "c"]


@pytest.mark.parametrize(
    "reply", ["[" * 100_000, "{" * 100_000, '{"a":' * 50_000, '["\\ud800"]', "{}"]
)
def test_odd_json_is_harmless(reply: str) -> None:
    assert len(parse_list(reply)) <= 1


def test_two_lists_in_json() -> None:
    assert parse_two_lists('{"a": ["x"], "b": ["y", "z"]}', "cat", "dog") == (["x"], ["y", "z"])
    assert parse_two_lists('{"Dog": ["y"], "cat": ["x"]}', "cat", "dog") == (["x"], ["y"])
    assert parse_two_lists('{"a": ["x"]}', "cat", "dog") == (["x"], [])


@pytest.mark.parametrize("reply", ['["' + '\\"' * 500_000, "a,b" + " " * 1_000_000 + "c"])
def test_long_hostile_lines_do_not_hang(reply: str) -> None:
    assert len(parse_list(reply)) <= 2


@pytest.mark.parametrize(
    "reply",
    [
        "- red\n- ?\n- ...\n- I'm sorry, I don't know.",
        '["red", "?", "I do not know more"]',
        "red; ?; I don't know",
    ],
)
def test_marks_and_refusals_are_no_items(reply: str) -> None:
    assert parse_list(reply) == ["red"]

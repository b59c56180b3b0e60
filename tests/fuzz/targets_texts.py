"""Texts: classes, prompts, labels, rows and what an LLM answers."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import strategies as st

from byname.extrafiles import read_captions
from byname.labels import match_labels, read_labels
from byname.llm.batch import read_batch
from byname.llm.wire import BadReplyError, complaint, read_reply
from byname.prompts.replies import parse_list, parse_two_lists
from byname.promptset_formats import FORMATS, read_format
from byname.promptset_io import read_pairs, read_replies
from byname.queries import clean_reply, is_refusal
from byname.rows import read_rows
from byname.taxonomy import Taxonomy
from byname.taxonomy_io import read_taxonomy, taxonomy_stats, write_taxonomy
from tests.fuzz.harness import JSON, Target, attempt, cards, spoilt

__all__ = ["TARGETS"]

_CLASSES = Taxonomy.from_names(["cat", "dog"])
_WORDS = (b",", b'"', b"\n", b"\t", b";", b"(", b")", b"'", b"[", b"{", b":", b"\0", b"cat", b"\r",
          b"\xe2\x80\xa8", b"\xff", b"# ", b".", b"/", b"\xc3\xa9")  # fmt: skip


def _dumped(value: Any) -> bytes:
    return json.dumps(value).encode()


# -- classes

_TREES = (
    b"cat\ndog\n# note\n",
    b"id,name,parent,aliases,description\na,Cat,,kitty;puss,soft\nb,Dog,a,,\n",
    b"group,coarse,name\nx,y,cat\nx,z,dog\n",
    b"name;parent\ncat;\ndog;cat\n",
    b'{"pets": ["cat", {"name": "dog", "aliases": ["hound"]}], "levels": ["a"]}',
    b'{"id": "r", "name": "r", "levels": ["g"], "given_order": ["a"], '
    b'"children": [{"id": "a", "name": "a"}]}',
    b'["cat", ["dog", "cow"]]',
    b"((cat:1,'big dog':2)pets,[note]cow)root;",
)
_SUFFIXES = st.sampled_from([".txt", ".csv", ".tsv", ".json", ".nwk"])


def _taxonomy(given: tuple[str, bytes, str | None]) -> None:
    suffix, data, lineage = given
    with TemporaryDirectory() as folder:
        path = Path(folder, "classes" + suffix)
        path.write_bytes(data)
        made = read_taxonomy(path, lineage=lineage if suffix in (".csv", ".tsv") else None)
        assert len(made) > 0
        json.dumps(taxonomy_stats(made))
        if not any("\ud800" <= c < "\ue000" for node in made.nodes for c in node.name + node.id):
            write_taxonomy(made, Path(folder, "again.csv"))
            assert read_taxonomy(Path(folder, "again.csv")).class_ids == made.class_ids


# -- prompts

_PROMPTS: tuple[Any, ...] = (
    {"cat": ["a cat.", "the cat"], "dog": ["a dog"]},
    {"cat": [["an animal"], ["a cat"]], "dog": [["an animal"], ["a dog"]]},
    ["a photo of a {}.", "art of the {}."],
    {
        "format": "byname-prompts/1",
        "classes": {"cat": [{"text": "a cat", "kind": "x", "level": 0}], "dog": ["a dog"]},
        "pairs": [{"a": "cat", "b": "dog", "texts": ["has whiskers"]}],
        "provenance": {"generator": "g"},
    },
)


def _prompts(given: tuple[str, bytes, str | None, bool, bool]) -> None:
    suffix, data, form, mine, easy = given
    with TemporaryDirectory() as folder:
        path = Path(folder, "p" + suffix)
        path.write_bytes(data)
        read = read_format(
            path, _CLASSES if mine else None, form, easy, ignore_extra=easy, partial=easy
        )
        assert read.prompts.classes is not None


def _pairs(given: tuple[str, bytes]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "p" + given[0])
        path.write_bytes(given[1])
        attempt(
            lambda: read_pairs(path, _CLASSES),
            lambda: list(read_replies(path)),
            lambda: read_batch(path),
            lambda: read_captions(path),
        )


# -- labels and rows

_ROWS = (
    b'file_name,rank,class_id,label,probability,margin,level,path,decision,error\n'
    b'a.jpg,1,cat,cat,0.5,0.1,1,cat,accept,\n',
    _dumped({"file_name": "a.jpg", "rank": 1, "class_id": "cat", "label": "cat", "probability": 0.5,
             "margin": 0.1, "level": 1, "path": "cat", "decision": "accept", "error": None}),
    b"file_name,class_id,label\na.jpg,cat,cat\nsub/b.jpg,dog,dog\n",
    b"image;name\na.jpg;cat\n",
    b"path\tclass\n./a.jpg\tcat\n",
)  # fmt: skip


def _table(given: tuple[str, bytes]) -> None:
    suffix, data = given
    with TemporaryDirectory() as folder:
        path = Path(folder, "t" + suffix)
        path.write_bytes(data)
        attempt(lambda: read_rows(path))
        labels = read_labels(path, _CLASSES)
        match_labels(["a.jpg", "b.jpg"], labels, _CLASSES)


# -- LLM

_REPLY = st.one_of(
    st.text(max_size=60),
    spoilt(
        [b"1. long ears\n2. a tail", b"For cat:\n- ears\nFor dog: tail, nose",
         b'```json\n["a"]\n```',
         b'{"cat": ["a"], "dog": ["b"]}', b"<think>x</think>I'm sorry, I cannot."],
        words=[*_WORDS, b"```", b"**", b"- ", b"1. ", b"for ", b"A:", b"\\"],
    ).map(lambda b: b.decode("utf-8", "replace")),
)  # fmt: skip


def _reply(text: str) -> None:
    for items in (parse_list(text), *parse_two_lists(text, "cat", "dog")):
        assert all(item.strip() for item in items)
        "".join(items).encode("utf-8", "surrogatepass")
    assert isinstance(is_refusal(text, ["cat"]), bool)
    assert isinstance(clean_reply(text, ["cat"]), str)


def _body(data: bytes) -> None:
    assert isinstance(complaint(data).text, str)
    try:
        held = json.loads(data)
    except (ValueError, RecursionError):
        return
    complaint(held)
    read_reply(held).text.encode()


_CHAT = {
    "choices": [{"message": {"content": "red"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 2},
    "model": "m",
}
_MESSAGES = st.one_of(JSON, st.fixed_dictionaries({"content": JSON}, optional={"refusal": JSON}))
_CHOICES = st.lists(
    st.fixed_dictionaries({}, optional={"message": _MESSAGES, "text": JSON, "finish_reason": JSON}),
    max_size=2,
)
_BODIES = st.one_of(
    cards(_CHAT, ["error", "choices", "detail", "message"]),
    st.builds(lambda c: _dumped(_CHAT | {"choices": c}), _CHOICES),
    st.builds(lambda e: _dumped({"error": e}), JSON),
    spoilt([_dumped(_CHAT), b"<html>", b""]),
)
_JSON_SEEDS = tuple(map(_dumped, _PROMPTS))
TARGETS = (
    Target(
        "taxonomy",
        st.tuples(
            _SUFFIXES,
            st.one_of(spoilt(_TREES, words=_WORDS), JSON.map(_dumped)),
            st.sampled_from([None, None, "name", "group,name", "group,coarse,name", " , ", "id"]),
        ),
        _taxonomy,
    ),
    Target(
        "prompts",
        st.tuples(
            st.sampled_from([".json", ".json", ".txt"]),
            st.one_of(
                spoilt(_JSON_SEEDS, words=_WORDS), cards(_PROMPTS[3]), cards(_PROMPTS[0], ["cow"])
            ),
            st.sampled_from([None, *FORMATS]),
            st.booleans(),
            st.booleans(),
        ),
        _prompts,
    ),
    Target(
        "lines",
        st.tuples(
            st.sampled_from([".csv", ".json", ".jsonl", ".tsv"]),
            st.one_of(
                spoilt(
                    [b"a,b\ncat,dog\n", b'[["cat", "dog"]]', b'{"id": "x", "reply": "y"}\n',
                     b'{"custom_id": "0123456789abcdef-0", "response": {"status_code": 200, '
                     b'"body": {"choices": [{"message": {"content": "a"}}]}}, "error": null}\n',
                     b'{"file_name": "a.jpg", "caption": "x"}\n', b"file_name,caption\na,b\n"],
                    words=_WORDS,
                ),
                cards({"custom_id": "0123456789abcdef-0", "response": None},
                      ["error", "result", "id", "reply", "file_name", "caption"]),
            ),
        ),
        _pairs,
    ),
    Target(
        "tables",
        st.tuples(
            st.sampled_from([".csv", ".tsv", ".jsonl", ".parquet"]), spoilt(_ROWS, words=_WORDS)
        ),
        _table,
    ),
    Target("reply", _REPLY, _reply),
    Target("answer", _BODIES, _body, (BadReplyError,)),
)  # fmt: skip

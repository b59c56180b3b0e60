from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from byname import Classifier
from byname.classtexts import class_texts
from byname.promptset import Pair, Prompt, PromptSet
from byname.taxonomy import Taxonomy
from tests.helpers import FakeEncoder

TAXONOMY = Taxonomy.from_names(["cat", "dog"])
PROMPTS = PromptSet(
    classes={
        "cat": (
            Prompt(text="a cat", kind="name", template=0),
            Prompt(text="whiskers", kind="attribute", weight=2.0, level=1),
        ),
        "dog": (Prompt(text="a dog", kind="name", template=0),),
    },
    pairs=(
        Pair(a="cat", b="dog", texts=("slit pupils", "whiskers")),
        Pair(a="dog", b="cat", texts=()),
        Pair(a="dog", b="cat", texts=("a snout",)),
    ),
)


class Recorder:
    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def __call__(self, texts: list[str]) -> NDArray[Any]:
        self.calls.append(list(texts))
        return np.arange(len(texts) * 2.0).reshape(-1, 2)


def test_rows_keep_what_they_are_about() -> None:
    encode = Recorder()
    made = class_texts(PROMPTS, TAXONOMY, encode, scale=30, bias=-2)
    assert encode.calls == [["a cat", "whiskers", "a dog"]]
    assert made.class_index.tolist() == [0, 0, 1]
    assert made.prompt_index is not None
    assert made.prompt_index.tolist() == [0, -1, 0]
    assert made.level is not None
    assert made.level.tolist() == [-1, 1, -1]
    assert made.weight is not None
    assert made.weight.tolist() == [1, 2, 1]
    assert made.kind == ("name", "attribute", "name")
    assert made.node_id == ("cat", "cat", "dog")
    assert (made.scale, made.bias, made.pairs) == (30, -2, None)


def test_pairs_come_last_and_belong_to_no_class() -> None:
    encode = Recorder()
    made = class_texts(PROMPTS, TAXONOMY, encode, pairs=True)
    assert encode.calls == [["a cat", "whiskers", "a dog", "slit pupils", "whiskers", "a snout"]]
    assert made.pairs == (("cat", "dog", (3, 4)), ("dog", "cat", (5,)))
    assert made.class_index.tolist() == [0, 0, 1, -1, -1, -1]
    lengths = {
        len(field)
        for field in (made.vectors, made.prompt_index, made.level, made.weight, made.kind)
        if field is not None
    }
    assert lengths == {6}
    assert made.node_id == ("cat", "cat", "dog", "cat", "cat", "dog")
    assert made.kind is not None
    assert made.kind[3:] == ("one-to-one",) * 3


def test_no_levels_without_levels() -> None:
    prompts = PromptSet.from_templates(TAXONOMY, ["{}"])
    assert class_texts(prompts, TAXONOMY, Recorder(), pairs=True).level is None


def test_the_classifier_encodes_pairs_only_for_members_that_use_them() -> None:
    for recipe, wanted in (("ensemble", 3), ("coder", 6), ("coder[rerank=2]", 6)):
        encoder = FakeEncoder()
        model = Classifier(TAXONOMY, encoder, recipe, prompts=PROMPTS, cache=False).prepare()
        assert encoder.texts == wanted, recipe
        assert (model._texts.pairs is not None) == (wanted == 6)


def test_coder_from_a_prompt_set() -> None:
    """Where both classes score about the same, the contrasts decide."""
    model = Classifier(
        TAXONOMY, FakeEncoder(), "coder[gap=1]", prompts=PROMPTS, cache=False
    ).prepare()
    T = model._texts.vectors
    X = np.random.default_rng(0).normal(0, 1, (4000, T.shape[1])).astype(np.float32)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    lead = (X @ T[0] + 2 * (X @ T[1])) / 3 - X @ T[2]
    X, lead = X[np.abs(lead) < 0.02], lead[np.abs(lead) < 0.02]
    assert len(X) > 50
    prefers_cat = X @ (T[3:5].mean(0) - T[5]) > 0
    assert (model.predict(X) == np.where(prefers_cat, "cat", "dog")).all()
    plain = Classifier(
        TAXONOMY, FakeEncoder(), "coder[rerank=0]", prompts=PROMPTS, cache=False
    ).predict(X)
    assert (plain == np.where(lead > 0, "cat", "dog")).all()
    assert (plain != model.predict(X)).any()


def test_subclasses_and_contexts_are_numbered_by_their_names() -> None:
    prompts = PromptSet(
        classes={
            "cat": (
                Prompt(text="a tabby", kind="subclass", about="tabby"),
                Prompt(text="a photo of a tabby", kind="subclass", about="tabby"),
                Prompt(text="a cat at night", kind="context", about="light=dark"),
            ),
            "dog": (
                Prompt(text="a tabby dog", kind="subclass", about="tabby"),
                Prompt(text="a dog", kind="context", about="light=any"),
                Prompt(text="a dog at night", kind="context", about="light=dark"),
            ),
        }
    )
    made = class_texts(prompts, TAXONOMY, Recorder())
    assert made.group is not None
    assert made.group.tolist() == [0, 0, -1, 1, -1, -1], "a name in two classes is two subclasses"
    assert made.group_names == ("tabby", "tabby")
    assert made.context is not None
    assert made.context.tolist() == [-1, -1, 0, -1, 1, 0]
    assert made.context_names == ("light=dark", "light=any")


def test_texts_of_inner_nodes_and_of_nothing() -> None:
    encode = Recorder()
    made = class_texts(
        PROMPTS, TAXONOMY, encode, pairs=True, inner=[("animal", "an animal")], null=["a photo."]
    )
    assert encode.calls[0][-2:] == ["an animal", "a photo."]
    assert len(made.vectors) == len(made.class_index) == len(made.kind or ()) == 7
    assert made.class_index[-1] == -1
    assert made.node_id is not None
    assert (made.node_id[-1], made.kind[-1] if made.kind else "") == ("animal", "inner")
    assert made.null is not None
    assert made.null.tolist() == [[14.0, 15.0]]
    assert made.pairs == (("cat", "dog", (3, 4)), ("dog", "cat", (5,)))

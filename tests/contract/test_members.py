"""What every registered member must do, whatever it computes; new members are found by it."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import io
import re
import socket
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from byname.errors import NeedsError
from byname.prompts.wordnet import Sense
from byname.promptset import PromptSet
from byname.queries import QueryMember, query_id
from byname.stage import STAGES, Answer, Member, PromptMember, State, create, members
from byname.taxonomy import Node, Taxonomy
from tests.contract.cases import (
    IMAGE_INPUTS,
    Case,
    arrays,
    make_case,
    permute_classes,
    permute_images,
    run,
)

ALL = members()
OTHERS = [name for name, cls in ALL.items() if cls.stage != "prompts"]
QUERIES = [name for name, cls in ALL.items() if issubclass(cls, QueryMember)]
PROMPTS = [name for name in ALL if name not in {*OTHERS, *QUERIES}]
ATOL = 1e-4  # logits at a scale of 20, in float32


def fresh(name: str) -> Any:
    member = create(name)
    if ALL[name].stage == "prompts" and "wordnet" in member.needs:
        member.lookup = lambda named: [Sense(f"{named}-1", (named, "other_word"), "a thing; {x}")]
    return member


def case_for(name: str, **options: Any) -> Case:
    needs: frozenset[str] = getattr(ALL[name], "needs", frozenset())
    return shared_case(needs, **{k: tuple(v) if k == "names" else v for k, v in options.items()})


@cache
def shared_case(needs: frozenset[str], **options: Any) -> Case:
    """A case for all tests that ask for the same; nobody can write into its arrays."""
    case = make_case(needs, **options)
    for array in arrays(case):
        array.flags.writeable = False
    return case


def check(name: str, case: Case, found: Any) -> Any:
    """Shape, type and finiteness of what a member of this stage answers."""
    N, K, k = len(case.batch), case.texts.n_classes, case.state.k
    if ALL[name].stage == "decide":
        assert isinstance(found, Answer)
        assert found.node.shape == found.probability.shape
        ranks = found.node.shape[1]
        assert found.node.shape[0] == N
        if not ALL[name].all_ranks:  # type: ignore[attr-defined]
            assert min(k, K) <= ranks <= k
        assert ranks <= max(k, K)
        assert found.margin.shape == found.decision.shape == (N,)
        assert found.probability.dtype == found.margin.dtype == np.float32
        assert set(found.decision) <= {"accept", "backoff", "reject"}
        filled = found.node >= 0
        assert (found.node < len(case.texts.taxonomy.nodes)).all()
        p = found.probability[filled]
        assert ((p >= 0) & (p <= 1 + 1e-6)).all()
        return found
    width = case.texts.vectors.shape[1] if ALL[name].stage == "weigh" else K
    assert found.shape == ((K if ALL[name].stage == "weigh" else N), width)
    assert found.dtype == np.float32
    assert not np.isnan(found).any()
    return found


def checked(name: str, case: Case) -> Any:
    return check(name, case, run(fresh(name), case))


# -- what a member is


@pytest.mark.parametrize("name", ALL)
def test_card(name: str) -> None:
    cls = ALL[name]
    assert re.fullmatch(r"[a-z][a-z0-9_]*", name)
    assert cls.name == name
    assert cls.stage in STAGES
    file = cls.__module__.split(".")
    assert file[:2] == ["byname", cls.stage], "a member lives in the folder of its stage"
    assert issubclass(cls, PromptMember if cls.stage == "prompts" else Member)
    text = inspect.getdoc(cls) or ""
    for part in ("Formula", "Source:", "Parameters\n----------", ">>> "):
        assert part in text, f"the docstring of {name} lacks {part!r}"
    assert cls.stage == "prompts" or "Shapes:" in text
    assert inspect.getdoc(inspect.getmodule(cls))


@pytest.mark.parametrize("name", ALL)
def test_parameters(name: str) -> None:
    params = ALL[name].Params
    assert dataclasses.is_dataclass(params)
    assert params.__dataclass_params__.frozen  # type: ignore[attr-defined]
    text = inspect.getdoc(ALL[name]) or ""
    for field in dataclasses.fields(params):
        assert field.default is not dataclasses.MISSING, f"{field.name} has no default"
        assert re.search(rf"^{field.name} : ", text, re.M), f"{field.name} is not described"
    member = fresh(name)
    assert member.params == params()
    assert create(member.spec).params == member.params
    with pytest.raises(dataclasses.FrozenInstanceError):
        member.params.anything = 1


# -- prompts


TAXONOMIES = {
    "one": Taxonomy([Node("a", "cat")]),
    "two": Taxonomy([Node("a", "cat"), Node("b", "dog")]),
    "duplicates": Taxonomy([Node("a", "crane"), Node("b", "crane"), Node("c", "dog")]),
    "tree": Taxonomy(
        [Node("g", "G"), Node("a", "cat", "g"), Node("b", "dog"), Node("c", "x", "g")]
    ),
    "characters": Taxonomy([Node("a", "Käse {} [x], 50 %"), Node("b", "'\"<&>\\n")]),
}


@pytest.mark.parametrize("taxonomy", TAXONOMIES.values(), ids=TAXONOMIES)
@pytest.mark.parametrize("name", PROMPTS)
def test_prompts_cover_every_class(name: str, taxonomy: Taxonomy) -> None:
    made = fresh(name).generate(taxonomy)
    assert isinstance(made, PromptSet)
    assert list(made.align(taxonomy).classes) == [leaf.id for leaf in taxonomy.classes]
    assert made.provenance.generator
    assert fresh(name).generate(taxonomy).model_dump_json() == made.model_dump_json()


@pytest.mark.parametrize("taxonomy", TAXONOMIES.values(), ids=TAXONOMIES)
@pytest.mark.parametrize("name", QUERIES)
def test_queries(name: str, taxonomy: Taxonomy) -> None:
    asked = list(fresh(name).queries(taxonomy))
    assert asked == list(fresh(name).queries(taxonomy))
    assert len({query.id for query in asked}) == len(asked)
    if ALL[name].per_class:  # type: ignore[attr-defined]
        assert {query.class_id for query in asked} == set(taxonomy.class_ids), (
            "no class without one"
        )
    for query in asked:
        assert query.id == query_id(query.class_id, query.about, query.kind, query.text)
        assert query.about == "" or query.about in taxonomy
        assert query.about != taxonomy.root.id or query.about == ""
        assert not query.class_id or taxonomy.node(query.class_id).name in query.text
        assert query.samples >= 1
        assert query.max_tokens > 0
    with pytest.raises(NeedsError, match=f"--prompts FILE.*'byname prompts make --style {name} "):
        fresh(name).generate(taxonomy)


@pytest.mark.parametrize("taxonomy", TAXONOMIES.values(), ids=TAXONOMIES)
@pytest.mark.parametrize("name", QUERIES)
def test_replies_become_prompts(name: str, taxonomy: Taxonomy) -> None:
    asked = list(fresh(name).queries(taxonomy))
    replies = [(query, f" reply {i} \n") for i, query in enumerate(asked)]
    made = fresh(name).collect(taxonomy, replies)
    if ALL[name].per_class:  # type: ignore[attr-defined]
        assert list(made.align(taxonomy).classes) == list(made.classes) == list(taxonomy.class_ids)
    assert all(p.text == p.text.strip() for prompts in made.classes.values() for p in prompts)
    assert fresh(name).collect(taxonomy, reversed(replies)) == made
    assert made.provenance.generator == name
    assert len(made.provenance.queries_sha256) == 64


# -- the other stages


@pytest.mark.parametrize("N", [0, 1, 2, 10])
@pytest.mark.parametrize("K", [1, 2, 4])
@pytest.mark.parametrize("name", OTHERS)
def test_sizes(name: str, K: int, N: int) -> None:
    case = case_for(name, K=K, N=N, k=3)
    member = fresh(name)
    if N == 0 and "X" in member.needs:
        with pytest.raises(NeedsError):
            member.check_needs(case.batch, case.texts)
        seen = case_for(name, K=K, N=10, k=3)
        member.fit(seen.batch, seen.texts, seen.state)
        check(name, case, member.apply(case.batch, case.texts, case.state))
        return
    member.check_needs(case.batch, case.texts)
    check(name, case, run(member, case))


def zero_image(case: Case) -> Case:
    X = case.batch.X.copy()
    X[0] = 0
    return case.with_images(X=X)


def zero_text(case: Case) -> Case:
    vectors = case.texts.vectors.copy()
    vectors[0] = 0
    texts = dataclasses.replace(case.texts, vectors=vectors)
    return Case(case.batch, texts, case.state).with_images()


def zero_class(case: Case) -> Case:
    vectors = case.texts.vectors.copy()
    vectors[case.texts.class_index == 0] = 0
    texts = dataclasses.replace(case.texts, vectors=vectors)
    return Case(case.batch, texts, case.state).with_images()


def identical_texts(case: Case) -> Case:
    vectors = np.repeat(case.texts.vectors[:1], len(case.texts.vectors), axis=0)
    texts = dataclasses.replace(case.texts, vectors=vectors)
    return Case(case.batch, texts, case.state).with_images()


def identical_images(case: Case) -> Case:
    return case.with_images(X=np.repeat(case.batch.X[:1], len(case.batch), axis=0))


def never_predicted(case: Case) -> Case:
    """All images lie at class 0, and the last class on the other side."""
    X = np.repeat(case.state.W[:1], len(case.batch), axis=0)
    vectors = case.texts.vectors.copy()
    vectors[case.texts.class_index == case.texts.n_classes - 1] = -case.state.W[0]
    texts = dataclasses.replace(case.texts, vectors=vectors)
    return Case(case.batch, texts, case.state).with_images(X=X)


def text_of_no_class(case: Case) -> Case:
    index = case.texts.class_index.copy()
    index[1] = -1
    texts = dataclasses.replace(case.texts, class_index=index)
    return Case(case.batch, texts, case.state).with_images()


EDGES: list[Callable[[Case], Case]] = [
    zero_image,
    zero_text,
    zero_class,
    identical_texts,
    identical_images,
    never_predicted,
    text_of_no_class,
]


@pytest.mark.parametrize("edge", EDGES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", OTHERS)
def test_edges(name: str, edge: Callable[[Case], Case]) -> None:
    checked(name, edge(case_for(name)))


@pytest.mark.parametrize("edge", EDGES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", [n for n in OTHERS if getattr(ALL[n], "uses", ())])
def test_edges_with_what_a_member_may_use(name: str, edge: Callable[[Case], Case]) -> None:
    """``uses`` names inputs that a member looks at where they are given."""
    cls: Any = ALL[name]
    checked(name, edge(shared_case(cls.needs | cls.uses)))


@pytest.mark.parametrize("name", OTHERS)
def test_classes_of_one_name_never_merge(name: str) -> None:
    names = ["crane", "crane", "dog", "cat"]
    found, expected = checked(name, case_for(name, names=names)), checked(name, case_for(name))
    for a, b in zip(outputs(found), outputs(expected), strict=True):
        np.testing.assert_array_equal(a, b)


def outputs(found: Any) -> list[NDArray[Any]]:
    if isinstance(found, Answer):
        return [found.node, found.probability, found.margin, found.decision]
    return [found]


def ids(case: Case, answer: Answer) -> list[list[str]]:
    nodes = case.texts.taxonomy.nodes
    return [[nodes[n].id if n >= 0 else "-" for n in row] for row in answer.node]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", OTHERS)
def test_the_order_of_classes_does_not_matter(name: str, seed: int) -> None:
    case = case_for(name, seed=seed)
    order = np.random.default_rng(seed).permutation(case.texts.n_classes)
    other = permute_classes(case, order)
    a, b = checked(name, case), checked(name, other)
    if isinstance(a, Answer):
        assert ids(case, a) == ids(other, b)
        np.testing.assert_allclose(b.probability, a.probability, atol=1e-5)
        assert (a.decision == b.decision).all()
    else:
        rearranged = a[order] if ALL[name].stage == "weigh" else a[:, order]
        np.testing.assert_allclose(b, rearranged, atol=ATOL)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", OTHERS)
def test_the_order_of_images_does_not_matter(name: str, seed: int) -> None:
    case = case_for(name, seed=seed)
    order = np.random.default_rng(seed).permutation(len(case.batch))
    a, b = checked(name, case), checked(name, permute_images(case, order))
    for x, y in zip(outputs(a), outputs(b), strict=True):
        expected = x if ALL[name].stage == "weigh" else x[order]
        if x.dtype.kind == "f":
            np.testing.assert_allclose(y, expected, atol=ATOL)
        else:
            np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("name", OTHERS)
def test_an_inductive_member_treats_each_image_by_itself(name: str) -> None:
    member, case = fresh(name), case_for(name)
    if not member.inductive or member.stage == "weigh":
        return
    member.fit(case.batch, case.texts, case.state)
    whole = outputs(member.apply(case.batch, case.texts, case.state))
    for i in range(len(case.batch)):
        one = permute_images(case, np.array([i]))
        for x, y in zip(whole, outputs(member.apply(one.batch, one.texts, one.state)), strict=True):
            x = x[[i]]
            if member.stage == "decide" and ALL[name].all_ranks and x.ndim == 2:  # type: ignore[attr-defined]
                # As wide as the image that fills the most ranks; the rest is -1, probability 0.
                assert (x[:, y.shape[1] :] <= 0).all()
                x = x[:, : y.shape[1]]
            if x.dtype.kind == "f":
                np.testing.assert_allclose(y, x, atol=ATOL)
            else:
                np.testing.assert_array_equal(y, x)


@pytest.mark.parametrize("name", OTHERS)
def test_float16(name: str) -> None:
    case = case_for(name)
    X, T = case.batch.X.astype(np.float16), case.texts.vectors.astype(np.float16)
    half = Case(
        dataclasses.replace(case.batch, X=X),
        dataclasses.replace(case.texts, vectors=T),
        case.state,
    )
    same = Case(
        dataclasses.replace(case.batch, X=X.astype(np.float32)),
        dataclasses.replace(case.texts, vectors=T.astype(np.float32)),
        case.state,
    )
    for a, b in zip(outputs(checked(name, half)), outputs(checked(name, same)), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", OTHERS)
def test_twice_the_same_bytes(name: str) -> None:
    a, b = checked(name, case_for(name)), checked(name, case_for(name))
    assert [x.tobytes() for x in outputs(a)] == [x.tobytes() for x in outputs(b)]


@pytest.mark.parametrize("name", OTHERS)
def test_fitting_again_forgets(name: str) -> None:
    member, case = fresh(name), case_for(name)
    run(member, case_for(name, seed=5))
    again, once = run(member, case), checked(name, case)
    assert [x.tobytes() for x in outputs(again)] == [x.tobytes() for x in outputs(once)]


@pytest.mark.parametrize("name", OTHERS)
def test_inputs_are_not_changed(name: str) -> None:
    case = case_for(name)
    before = [a.tobytes() for a in arrays(case)]
    for array in arrays(case):
        array.flags.writeable = False
    checked(name, case)
    assert [a.tobytes() for a in arrays(case)] == before


@pytest.mark.parametrize("name", OTHERS)
def test_weights(name: str) -> None:
    if ALL[name].stage != "weigh":
        return
    case, member = case_for(name), fresh(name)
    assert member.fit(case.batch, case.texts, case.state) is member
    weight = np.asarray(member.weight_)
    assert weight.shape == case.texts.class_index.shape
    assert (weight >= 0).all()
    sums = np.bincount(case.texts.class_index, weight)
    np.testing.assert_allclose(sums, 1, rtol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_no_files_and_no_network(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = case_for(name) if name in OTHERS else None
    taxonomy = TAXONOMIES["tree"]
    make = {"queries": list} if name in QUERIES else {"generate": lambda made: made.classes}
    ((method, shown),) = make.items()
    if case is None:
        # Texts that come with the package may be read, once.
        assert shown(getattr(fresh(name), method)(taxonomy))

    def refused(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError(f"{name} opened {args}")

    monkeypatch.setattr("builtins.open", refused)
    monkeypatch.setattr(io, "open", refused)
    monkeypatch.setattr(socket, "socket", refused)
    if case is None:
        assert shown(getattr(fresh(name), method)(taxonomy))
    else:
        checked(name, case)


@pytest.mark.parametrize("name", OTHERS)
def test_unmet_needs_are_named(name: str) -> None:
    member = fresh(name)
    case = make_case()
    for need in member.needs - {"X", "prompt_index"}:
        with pytest.raises(NeedsError, match=f"'{name}'"):
            member.check_needs(case.batch, case.texts)
        assert need in IMAGE_INPUTS or hasattr(case.texts, need)
    assert member.check_needs(case_for(name).batch, case_for(name).texts) is None


@pytest.mark.parametrize("name", OTHERS)
def test_no_member_asks_for_labels(name: str) -> None:
    for method in ("fit", "apply"):
        names = list(inspect.signature(getattr(ALL[name], method)).parameters)
        assert names == ["self", "batch", "texts", "state"]
    module = inspect.getmodule(ALL[name])
    assert module is not None
    used = {n.id for n in ast.walk(ast.parse(inspect.getsource(module))) if isinstance(n, ast.Name)}
    assert not used & {"labels", "y_true", "ground_truth", "gt"}


@pytest.mark.torch
@pytest.mark.parametrize("name", OTHERS)
def test_torch_gives_what_numpy_gives(name: str) -> None:
    torch = pytest.importorskip("torch")

    def tensors(value: Any) -> Any:
        changed = {
            f.name: torch.from_numpy(v)
            for f in dataclasses.fields(value)
            if isinstance(v := getattr(value, f.name), np.ndarray) and v.dtype == np.float32
        }
        return dataclasses.replace(value, **changed)

    case = case_for(name)
    other = Case(tensors(case.batch), tensors(case.texts), tensors(case.state))
    found, expected = run(fresh(name), other), checked(name, case)
    if not isinstance(found, Answer):
        assert torch.is_tensor(found)
        found = found.numpy()
    for a, b in zip(outputs(found), outputs(expected), strict=True):
        if b.dtype.kind == "f":
            np.testing.assert_allclose(a, b, atol=ATOL)
        else:
            np.testing.assert_array_equal(a, b)


def test_the_builder_refuses_what_it_does_not_know() -> None:
    with pytest.raises(pytest.fail.Exception, match="has to learn how to build"):
        make_case(frozenset({"smell"}))


def test_the_builder_builds_everything_it_knows() -> None:
    from tests.contract.cases import TEXT_INPUTS

    case = make_case(frozenset(IMAGE_INPUTS) | frozenset(TEXT_INPUTS))
    assert all(getattr(case.batch, name) is not None for name in IMAGE_INPUTS)
    assert all(getattr(case.texts, name) is not None for name in TEXT_INPUTS)
    known = {f.name for f in dataclasses.fields(case.batch)}
    assert known == set(IMAGE_INPUTS), "tell the builder about new fields of Batch"
    assert isinstance(case.state, State)

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pytest

from byname import stage
from byname.errors import NeedsError, RecipeError
from byname.stage import (
    Batch,
    ClassTexts,
    Member,
    PromptMember,
    State,
    create,
    parse_spec,
    register,
)
from byname.taxonomy import Taxonomy

TEXTS = ClassTexts(np.eye(2), np.array([0, 1]), Taxonomy.from_names(["a", "b"]))


@dataclass(frozen=True)
class DummyParams:
    share: float = 0.5
    count: int = 3
    per_class: bool = False
    mode: Literal["x", "y"] = "x"
    seed: int | None = None


@pytest.fixture
def dummy(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(stage, "_REGISTRY", {})
    monkeypatch.setattr(stage, "_load_all", lambda: None)

    @register
    class Dummy(Member):
        stage: ClassVar[stage.StageName] = "weigh"
        name = "dummy"
        Params = DummyParams
        needs = frozenset({"views", "X"})

    return Dummy


@pytest.mark.parametrize(
    "spec, expected",
    [
        ("cpe", ("cpe", {})),
        (" cpe [ ] ", ("cpe", {})),
        ("cpe[a=1, b = x y ]", ("cpe", {"a": "1", "b": "x y"})),
        ("mean_similarity[a=b=c]", ("mean_similarity", {"a": "b=c"})),
    ],
)
def test_parse_spec(spec: str, expected: Any) -> None:
    assert parse_spec(spec) == expected


@pytest.mark.parametrize(
    "spec, message",
    [
        ("", "cannot read '': it is not of the form name or name[parameter=value,...]."),
        ("a b", "cannot read 'a b': it is not of the form name or name[parameter=value,...]."),
        ("a[b=1", "cannot read 'a[b=1': it is not of the form name or name[parameter=value,...]."),
        ("a[b]", "cannot read 'a[b]': 'b' is not of the form parameter=value."),
        ("a[=1]", "cannot read 'a[=1]': '=1' is not of the form parameter=value."),
    ],
)
def test_specs_that_cannot_be_read(spec: str, message: str) -> None:
    with pytest.raises(RecipeError) as error:
        parse_spec(spec)
    assert str(error.value) == message


def test_create_reads_each_type(dummy: Any) -> None:
    made = create("dummy[share=0.25,count=7,per_class=true,mode=y,seed=4]", "weigh")
    assert made.params == DummyParams(0.25, 7, True, "y", 4)
    assert create("dummy[seed=none]").params.seed is None
    assert create("dummy").params == DummyParams()


def test_none_may_be_one_of_the_words_that_a_parameter_takes() -> None:
    assert create("zpe[mode=none,select=none]").params.mode == "none"
    assert create("zpe[mode=none,select=none]").params.select is None
    with pytest.raises(RecipeError, match="temperature='none' does not fit: Input should be a"):
        create("zpe[temperature=none]")


@pytest.mark.parametrize(
    "spec, message",
    [
        (
            "dumy",
            "cannot use 'dumy' as the weigh stage: there is no member 'dumy'. "
            "Did you mean 'dummy'? Known: dummy.",
        ),
        (
            "dummy[shar=1]",
            "cannot use 'dummy[shar=1]': it has no parameter 'shar'. "
            "It has: share=0.5, count=3, per_class=false, mode=x, seed=None.",
        ),
        ("dummy[count=x]", "cannot use 'dummy[count=x]': count='x' does not fit: "),
        ("dummy[mode=z]", "cannot use 'dummy[mode=z]': mode='z' does not fit: "),
    ],
)
def test_create_says_what_is_wrong(dummy: Any, spec: str, message: str) -> None:
    with pytest.raises(RecipeError) as error:
        create(spec, "weigh")
    assert str(error.value).startswith(message)


def test_create_knows_the_stage_of_a_member(dummy: Any) -> None:
    with pytest.raises(RecipeError) as error:
        create("dummy", "refine")
    assert str(error.value) == (
        "cannot use 'dummy' as the refine stage: 'dummy' is a weigh member. Known: none."
    )


def test_spec_is_what_create_reads(dummy: Any) -> None:
    made = dummy(share=0.25, per_class=True)
    assert made.spec == "dummy[share=0.25,per_class=true]"
    assert create(made.spec).params == made.params
    assert repr(made) == "<weigh dummy[share=0.25,per_class=true]>"


def test_params_or_keywords(dummy: Any) -> None:
    assert dummy(DummyParams(count=1)).params.count == 1
    with pytest.raises(TypeError, match="not both"):
        dummy(DummyParams(), count=1)


def test_two_members_cannot_share_a_name(dummy: Any) -> None:
    with pytest.raises(ValueError, match="the member name 'dummy' is taken by"):

        @register
        class Other(Member):
            stage: ClassVar[stage.StageName] = "refine"
            name = "dummy"

    assert register(dummy) is dummy


def test_params_must_be_frozen(dummy: Any) -> None:
    @dataclass
    class Loose:
        a: int = 1

    with pytest.raises(TypeError, match="Params must be a frozen dataclass"):

        @register
        class Wrong(Member):
            name = "wrong"
            Params = Loose


def test_needs_are_checked(dummy: Any) -> None:
    member, X = dummy(), np.eye(2)
    member.check_needs(Batch(X, views=X[:, None]), TEXTS)
    member.check_needs(Batch(X), TEXTS, skip=frozenset({"views"}))
    with pytest.raises(NeedsError) as error:
        member.check_needs(Batch(X), TEXTS)
    assert str(error.value) == (
        "cannot run the weigh member 'dummy': it needs 'views', which this run does not have. "
        "Add --with views=uniform[n=8]. Or choose another member (byname list members)."
    )
    with pytest.raises(NeedsError, match="needs 'X'"):
        member.check_needs(Batch(X[:0], views=X[:0, None]), TEXTS)


def test_a_need_may_be_met_by_the_texts() -> None:
    class NeedsGroups(Member):
        stage: ClassVar[stage.StageName] = "score"
        name = "groups"
        needs = frozenset({"group"})

    groups = ClassTexts(TEXTS.vectors, TEXTS.class_index, TEXTS.taxonomy, group=np.array([0, 0]))
    NeedsGroups().check_needs(Batch(np.eye(2)), groups)
    with pytest.raises(NeedsError, match="needs 'group'"):
        NeedsGroups().check_needs(Batch(np.eye(2)), TEXTS)


def test_the_base_classes_say_what_a_member_lacks(dummy: Any) -> None:
    with pytest.raises(TypeError, match=r"Dummy defines no apply\(\)"):
        dummy().apply(Batch(np.eye(2)), TEXTS, State())
    with pytest.raises(TypeError, match=r"PromptMember defines no generate\(\)"):
        PromptMember().generate(TEXTS.taxonomy)
    assert dummy().fit(Batch(np.eye(2)), TEXTS, State()).params == DummyParams()


def test_the_registry_is_sorted_and_split_by_stage() -> None:
    everything = stage.members()
    assert list(everything) == sorted(everything)
    by_stage = {n for s in stage.STAGES for n in stage.members(s)}
    assert by_stage == set(everything)
    assert {"templates", "mean", "mean_similarity", "cosine", "argmax", "reject"} <= by_stage


def test_sizes() -> None:
    assert len(Batch(np.eye(3))) == 3
    assert TEXTS.n_classes == 2

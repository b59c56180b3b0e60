"""What texts do: as refitting without them tells, whatever the order, and what is said of it."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from byname.diagnose import diagnose
from byname.knn import agreement, nearest
from byname.ops import unit
from byname.pipeline import Pipeline
from byname.recipes import get_recipe
from byname.stage import Batch, ClassTexts
from byname.study import prompts, texteffects
from byname.study.prompts import TextEffects, check_prompts, contrast, text_effects
from byname.study.subject import Subject
from byname.study.texteffects import agreement_without
from byname.taxonomy import Node, Taxonomy

NAMES = ("cat", "dog", "cow", "hen", "fox")


def world(seed: int = 0, n: int = 40, P: int = 4, K: int = 5) -> tuple[ClassTexts, Any]:
    """Texts of K classes, the last one of class 1 being about class 2; and their images."""
    rng = np.random.default_rng(seed)
    centre = unit(rng.standard_normal((K, 24)))
    T = unit(centre[:, None] + 0.2 * rng.standard_normal((K, P, 24)))
    if K > 2 and P > 1:
        T[1, -1] = unit(centre[2] - 0.5 * centre[1])
    X = unit(centre[np.repeat(np.arange(K), n)] + 0.14 * rng.standard_normal((n * K, 24)))
    taxonomy = Taxonomy(Node(name, name) for name in NAMES[:K])
    texts = ClassTexts(
        np.asarray(T.reshape(K * P, 24), np.float32),
        np.repeat(np.arange(K), P),
        taxonomy,
        kind=("template",) * (K * P),
    )
    return texts, np.asarray(X, np.float32)


def subject_of(texts: ClassTexts, X: Any, recipe: str = "ensemble", **stages: str) -> Subject:
    chosen, names = get_recipe(recipe, **stages), texts.taxonomy.class_ids
    said = [f"text {m} {names[k]}" if k >= 0 else "" for m, k in enumerate(texts.class_index)]
    return Subject(
        texts=texts,
        sentences=tuple(said),
        batch=Batch(X),
        pipeline=Pipeline(chosen).fit(texts, Batch(X)),
        keys=tuple(str(i) for i in range(len(X))),
    )


def without(texts: ClassTexts, m: int) -> ClassTexts:
    kept = np.delete(np.arange(len(texts.vectors)), m)
    return replace(
        texts,
        vectors=texts.vectors[kept],
        class_index=texts.class_index[kept],
        weight=None if texts.weight is None else texts.weight[kept],
        kind=tuple(texts.kind[i] for i in kept) if texts.kind else None,
    )


def separation(W: Any, X: Any, y: Any) -> Any:
    """How much better each class vector tells its images from the mean of all classes."""
    means = np.array([X[y == k].mean(axis=0) for k in np.unique(y)], np.float64)
    return (W[np.unique(y)] * (means - means.mean(axis=0))).sum(axis=1)


def check_against_refitting(subject: Subject, effects: TextEffects) -> None:
    before = subject.answers
    start = separation(np.asarray(subject.pipeline.W_, np.float64), subject.X, before)
    for m, k in enumerate(subject.texts.class_index):
        if not effects.has_changes[m]:
            continue
        fitted = Pipeline(subject.pipeline.recipe).fit(without(subject.texts, m))
        after = np.asarray(fitted.scores(subject.batch)).argmax(axis=1)
        assert effects.changes[m] == pytest.approx((after != before).mean(), abs=1e-12)
        end = separation(np.asarray(fitted.W_, np.float64), subject.X, before)
        assert effects.effect[m] == pytest.approx(end[k] - start[k], abs=1e-6)


@pytest.mark.parametrize("recipe", ["ensemble", "mean_similarity"])
@pytest.mark.parametrize("weighted", [False, True])
def test_as_refitting_without_the_text(recipe: str, weighted: bool) -> None:
    texts, X = world()
    if weighted:
        weight = np.random.default_rng(1).uniform(0.2, 3, len(texts.vectors))
        texts = replace(texts, weight=weight)
    effects = text_effects(subject := subject_of(texts, X, recipe))
    assert effects.has_changes.all()
    assert effects.has_effect.all()
    assert effects.note == ""
    assert effects.looked_at == len(X)
    assert effects.changes.max() > 0
    check_against_refitting(subject, effects)


def test_the_text_of_another_class_hurts_and_no_other_does() -> None:
    texts, X = world()
    effects = text_effects(subject_of(texts, X))
    assert np.flatnonzero(effects.hurts).tolist() == [7]
    assert effects.effect.argmax() == 7
    assert effects.lack[7] > 0.8


def test_a_text_of_no_weight_does_nothing() -> None:
    texts, X = world()
    weight = np.ones(len(texts.vectors))
    weight[[3, 4, 5, 6]] = 0
    effects = text_effects(subject_of(replace(texts, weight=weight), X))
    assert effects.has_effect[3]
    assert (effects.changes[3], effects.effect[3], effects.lack[3]) == (0, pytest.approx(0), 0)
    assert not effects.has_changes[7], "the only text that counts"
    assert not effects.hurts[[3, 7]].any()


def test_only_texts_and_texts_of_no_class() -> None:
    texts, X = world()
    index = texts.class_index.copy()
    index[[1, 2, 3, 9]] = -1
    effects = text_effects(subject_of(replace(texts, class_index=index), X))
    for m in (0, 1, 2, 3, 9):
        assert not effects.has_changes[m]
        assert not effects.has_effect[m]
        assert effects.changes[m] == effects.effect[m] == effects.lack[m] == 0
    assert effects.has_effect[8]


@pytest.mark.parametrize("n", [0, 1])
def test_hardly_any_image(n: int) -> None:
    texts, X = world()
    subject = subject_of(texts, X[:n])
    effects = text_effects(subject)
    assert effects.looked_at == n
    assert effects.has_changes.all() == bool(n)
    assert not effects.has_effect.any(), "no second class to tell the first one from"
    assert not effects.hurts.any()
    finite(effects)
    assert contrast(subject, [(0, 1)]).keys() == {(0, 1)}


def test_one_class_has_nothing_to_be_told_from() -> None:
    texts, X = world(K=1)
    subject = subject_of(texts, X)
    effects = text_effects(subject)
    assert effects.has_changes.all()
    assert not effects.changes.any()
    assert not effects.has_effect.any()
    made, numbers = check_prompts(subject, diagnose(texts, subject.batch, subject.pipeline))
    assert made == []
    assert numbers["prompts"]["hurting"] == 0


def finite(effects: TextEffects) -> None:
    for values in (effects.changes, effects.effect, effects.lack):
        assert np.isfinite(values).all()


def test_zero_rows_and_opposite_texts_give_numbers() -> None:
    texts, X = world()
    T = texts.vectors.copy()
    T[0], T[2] = 0, -T[1]
    X = X.copy()
    X[5] = 0
    finite(text_effects(subject_of(replace(texts, vectors=T), X)))


def test_a_class_without_answers_has_changes_but_no_effect() -> None:
    texts, X = world()
    subject = subject_of(texts, X[subject_of(texts, X).answers != 4])
    assert 4 not in subject.answers
    effects = text_effects(subject)
    assert effects.has_changes[16:].all()
    assert not effects.has_effect[16:].any()


def test_the_order_of_images_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texteffects, "SAMPLE", 60)
    monkeypatch.setattr(texteffects, "CELLS", 300)
    texts, X = world()
    order = np.random.default_rng(3).permutation(len(X))
    a, b = (text_effects(subject_of(texts, rows)) for rows in (X, X[order]))
    assert 60 <= a.looked_at < len(X)
    assert a.looked_at == b.looked_at
    np.testing.assert_allclose(a.changes, b.changes, atol=1e-12)
    np.testing.assert_allclose(a.effect, b.effect, atol=1e-7)
    assert a.hurts.tolist() == b.hurts.tolist()


def test_a_sample_counts_for_all_images(monkeypatch: pytest.MonkeyPatch) -> None:
    texts, X = world(n=400)
    full = text_effects(subject_of(texts, X))
    monkeypatch.setattr(texteffects, "SAMPLE", 1000)
    some = text_effects(subject_of(texts, X))
    assert some.looked_at < len(X) == full.looked_at
    assert np.abs(some.changes - full.changes).max() < 0.02
    np.testing.assert_allclose(some.effect, full.effect, atol=1e-7)


def test_computed_once() -> None:
    subject = subject_of(*world())
    assert text_effects(subject) is text_effects(subject)


def test_before_images_are_pooled() -> None:
    texts, X = world()
    refined = text_effects(subject_of(texts, X, refine="label_vectors"))
    plain = text_effects(subject_of(texts, X))
    assert "label_vectors" in refined.note
    np.testing.assert_allclose(refined.changes, plain.changes, atol=1e-12)
    assert refined.has_effect.all()


def test_learned_weights_are_said() -> None:
    texts, X = world()
    texts = replace(texts, prompt_index=np.tile(np.arange(4), 5))
    effects = text_effects(subject_of(texts, X, "zpe"))
    assert "zpe" in effects.note
    assert effects.has_changes.all()


def test_no_changes_where_the_score_is_no_sum() -> None:
    texts, X = world()
    effects = text_effects(subject_of(texts, X, score="tip_x"))
    assert not effects.has_changes.any()
    assert "tip_x" in effects.note
    assert effects.looked_at == 0
    assert effects.hurts[7], "the class vectors are still sums of the texts"


def test_findings() -> None:
    texts, X = world()
    subject = subject_of(texts, X)
    made, numbers = check_prompts(subject, diagnose(texts, subject.batch, subject.pipeline))
    first = made[0]
    assert (first.kind, first.level, first.count) == ("hurting_prompt", "warning", 1)
    assert first.texts == ("text 7 dog",)
    assert first.classes == ("dog",)
    assert "1 of 20 texts makes its class harder to tell, in 1 class: 'text 7 dog'" in first.what
    assert "byname prompts make" in first.next
    assert numbers["prompts"]["hurting"] == 1
    assert numbers["prompts"]["texts"] == 20


def next_of(spec: str) -> str:
    texts, X = world()
    command = f"byname diagnose photos --classes a,b --prompts {shlex.quote(spec)}"
    subject = replace(subject_of(texts, X), command=command)
    made, _ = check_prompts(subject, diagnose(texts, subject.batch, subject.pipeline))
    assert made[0].texts == ("text 7 dog",)
    return made[0].next.replace(command, "COMMAND")


def test_texts_of_a_file_are_to_be_taken_out_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my texts.json").write_text(json.dumps({"dog": ["text 7 dog"], "cat": ["x"]}))
    Path("more.json").write_text(json.dumps({"dog": ["other"], "cat": ["text 7 dog"]}))
    wanted = "# take them out of 'my texts.json', then: COMMAND"
    assert next_of("my texts.json") == wanted
    assert next_of("templates+my texts.json") == wanted
    assert next_of("templates[set=single] + more.json + my texts.json") == wanted


def test_texts_of_a_member_are_in_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("more.json").write_text(json.dumps({"dog": ["other"], "cat": ["text 7 dog"]}))
    Path("torn.json").write_text("{")
    for spec in ("templates+more.json", "more.json", "torn.json", "gone.json", "templates"):
        assert next_of(spec).startswith("byname prompts make"), spec


def test_some_of_the_texts_are_in_the_file(tmp_path: Path) -> None:
    texts, X = world()
    subject = subject_of(texts, X)
    file = tmp_path / "p.json"
    file.write_text(json.dumps({"dog": ["text 7 dog"]}))
    command = f"byname diagnose photos --classes a,b --prompts templates+{file}"
    said = prompts._next(replace(subject, command=command), [7, 8], out=True)
    assert said == f"# take the 1 of them that it holds out of {file}, then: {command}"


@pytest.mark.parametrize("recipe", ["ensemble", "mean_similarity"])
def test_agreement_without_all_that_hurt_is_that_of_refitting(recipe: str) -> None:
    texts, X = world(n=30)
    texts = replace(texts, weight=np.linspace(1, 2, len(texts.vectors)))
    subject = subject_of(texts, X, recipe)
    bad = np.flatnonzero(text_effects(subject).hurts)
    assert len(bad) == 1
    after = Pipeline(subject.pipeline.recipe).fit(without(texts, int(bad[0])))
    beside = nearest(X, 10)[0]
    now, then = (
        agreement(beside, np.asarray(p.scores(Batch(X))).argmax(axis=1), 5)
        for p in (subject.pipeline, after)
    )
    assert agreement_without(subject) == pytest.approx(then - now, abs=1e-9)
    made, _ = check_prompts(subject, diagnose(texts, subject.batch, subject.pipeline))
    assert made[0].values["agreement"] == agreement_without(subject)


def test_texts_are_not_to_be_taken_out_where_neighbours_agree_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts, X = world()
    file = tmp_path / "t.json"
    file.write_text(json.dumps({"dog": ["text 7 dog"]}))
    command = f"byname diagnose photos --classes a,b --prompts {file}"
    subject = replace(subject_of(texts, X), command=command)
    monkeypatch.setattr("byname.study.prompts.agreement_without", lambda _: -0.1)
    made, _ = check_prompts(subject, diagnose(texts, subject.batch, subject.pipeline))
    assert "neighbours would agree less" in made[0].what
    assert made[0].next.startswith("byname prompts make")


def test_a_text_that_decides() -> None:
    texts, X = world(P=2)
    T = texts.vectors.copy()
    T[[0, 1]] = unit(np.array([T[0] + T[2:].mean(axis=0), -2 * T[0] + T[1]]))
    subject = subject_of(replace(texts, vectors=T), X)
    made, numbers = check_prompts(subject, diagnose(texts, subject.batch, subject.pipeline))
    found = {one.kind: one for one in made}["deciding_prompt"]
    assert found.level == "note"
    assert found.values["changes"] == numbers["prompts"]["most_changes"] > 0.1
    assert "text 0 cat" in found.texts


def test_few_texts_and_the_same_texts() -> None:
    texts, X = world(P=4)
    keep = np.r_[0:5, 8:20]  # one text of the second class
    cut = replace(texts, vectors=texts.vectors[keep], class_index=texts.class_index[keep])
    cut = replace(cut, kind=None)
    subject = subject_of(cut, X)
    said = list(subject.sentences)
    said[9:13] = [one.upper() for one in said[5:9]]
    said[5:9] = [f" {one}" for one in said[5:9]]
    subject = replace(subject, sentences=tuple(said))
    made, _ = check_prompts(subject, diagnose(cut, subject.batch, subject.pipeline))
    found = {one.kind: one for one in made}
    assert found["few_texts"].classes == ("dog",)
    assert (
        "1 class has 1 text or fewer, half of all have 4 or more: 'dog'." in found["few_texts"].what
    )
    assert found["same_texts"].classes == ("cow", "hen")
    assert found["same_texts"].level == "warning"


def test_texts_that_are_not_known_are_compared_by_vector() -> None:
    texts, X = world(P=1)
    T = texts.vectors.copy()
    T[3] = T[0]
    subject = replace(subject_of(replace(texts, vectors=T), X), sentences=("",) * 5)
    made, _ = check_prompts(subject, diagnose(subject.texts, subject.batch, subject.pipeline))
    assert [(one.kind, one.classes) for one in made] == [("same_texts", ("cat", "hen"))]


def test_hostile_texts_stay_on_one_line() -> None:
    texts, X = world()
    subject = subject_of(texts, X)
    said = list(subject.sentences)
    said[7] = "<script>\n\x85" + "x" * 5000
    subject = replace(subject, sentences=tuple(said), command="byname diagnose 'a\nb' --classes c")
    made, _ = check_prompts(subject, diagnose(texts, subject.batch, subject.pipeline))
    assert made[0].texts == (said[7],)
    assert len(made[0].what) < 300
    assert len(made[0].what.splitlines()) == len(made[0].next.splitlines()) == 1


def test_contrast_texts_fit_one_class_and_not_the_other() -> None:
    texts, X = world()
    subject = subject_of(texts, X)
    found = contrast(subject, [(1, 2), (2, 1), (1, 2)], k=2)
    assert list(found) == [(1, 2), (2, 1)]
    assert len(found[1, 2]) == 2
    assert "text 7 dog" not in found[1, 2], "it is about the other class"
    assert all(one.endswith("cow") for one in found[2, 1])


def test_texts_of_the_pair_come_first() -> None:
    texts, X = world()
    extra = texts.vectors[[4, 8]]
    texts = replace(
        texts,
        vectors=np.concatenate([texts.vectors, extra]),
        class_index=np.append(texts.class_index, [-1, -1]),
        kind=(*texts.kind, "one-to-one", "one-to-one"),
        pairs=(("dog", "cow", (20, 21)),),
    )
    subject = subject_of(texts, X)
    known = replace(subject, sentences=(*subject.sentences[:20], "a dog barks", "a cow moos"))
    assert contrast(known, [(1, 2)]) == {(1, 2): ["a dog barks"]}
    assert "text 4 dog" in contrast(subject, [(1, 2)])[1, 2], "where they are not known"


def test_texts_of_the_kind_contrast_come_next_and_none_twice() -> None:
    texts, X = world()
    T = texts.vectors.copy()
    T[5] = T[4]
    kind = ("template",) * 4 + ("contrast",) * 3 + ("template",) * 13
    subject = subject_of(replace(texts, vectors=T, kind=kind), X)
    found = contrast(subject, [(1, 3)], k=4)[1, 3]
    assert set(found) <= {"text 4 dog", "text 5 dog", "text 6 dog"}
    assert len(found) == 2, "two of the three are one"


def test_contrast_where_no_image_is_answered_so() -> None:
    texts, X = world()
    subject = subject_of(texts, X[subject_of(texts, X).answers != 4])
    assert all(one.endswith("hen") for one in contrast(subject, [(3, 4)])[3, 4])
    assert contrast(subject, [(4, 3)])[4, 3]
    assert contrast(subject, []) == {}


def test_contrast_does_not_depend_on_the_order_of_images() -> None:
    texts, X = world(n=7)
    order = np.random.default_rng(0).permutation(len(X))
    pairs = [(0, 1), (1, 2), (3, 4)]
    assert contrast(subject_of(texts, X), pairs) == contrast(subject_of(texts, X[order]), pairs)

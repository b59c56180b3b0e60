"""The estimator: scikit-learn's manners, every form of input, and its errors."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import byname
from byname import Classifier, Embeddings, Taxonomy
from byname.answers import answer_table
from byname.encoders import PrecomputedEncoder
from byname.errors import (
    EmbeddingsError,
    EncoderError,
    PromptError,
    RecipeError,
    SourceError,
    TaxonomyError,
    UsageError,
)
from tests.helpers import FakeEncoder
from tests.marks import write_photo

NAMES = ["cat", "dog", "fox"]


@pytest.fixture
def stored() -> PrecomputedEncoder:
    vectors = np.eye(3, 5) + 0.1
    return PrecomputedEncoder.from_arrays([f"a {n}" for n in NAMES], vectors)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for i, colour in enumerate([(200, 10, 10), (10, 200, 10), (10, 10, 200), (120, 120, 0)]):
        write_photo(folder / f"{i}.png", colour)
    return folder


def test_at_most_fifteen_public_names() -> None:
    assert len(byname.__all__) <= 15
    assert all(hasattr(byname, name) for name in byname.__all__)
    assert set(byname.__all__) <= set(dir(byname))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        byname.nothing  # noqa: B018


def test_predicts_ids_in_the_order_of_rows(stored: PrecomputedEncoder) -> None:
    model = Classifier(NAMES, stored, "plain", templates=["a {}"])
    X = np.eye(3, 5)[[2, 0, 1, 0]]
    assert model.predict(X).tolist() == ["fox", "cat", "dog", "cat"]
    P = model.predict_proba(X)
    assert P.shape == (4, 3)
    np.testing.assert_allclose(P.sum(1), 1, atol=1e-6)
    assert model.classes_.tolist() == NAMES
    np.testing.assert_array_equal(model.decision_function(X).argmax(1), P.argmax(1))


def test_fit_changes_no_parameter_and_refuses_labels(stored: PrecomputedEncoder) -> None:
    model = Classifier(NAMES, stored, "plain", templates=["a {}"])
    before = model.get_params()
    assert model.fit(np.eye(3, 5)) is model
    assert all(model.get_params()[name] is value for name, value in before.items())
    assert model.pipeline_.W_.shape == (3, 5)
    with pytest.raises(UsageError, match=r"cannot fit: labels were given\. byname learns from unl"):
        model.fit(np.eye(3, 5), ["cat", "dog", "fox"])  # type: ignore[arg-type]


def test_scikit_learn_can_clone_it(stored: PrecomputedEncoder) -> None:
    sklearn = pytest.importorskip("sklearn.base", reason="needs scikit-learn")
    model = Classifier(NAMES, stored, "plain", templates=("a {}",)).fit()
    twin = sklearn.clone(model)
    assert twin.get_params().keys() == model.get_params().keys()
    assert not hasattr(twin, "pipeline_")
    assert twin.predict(np.eye(3, 5)).tolist() == NAMES


def test_scikit_learn_takes_it_for_a_classifier(stored: PrecomputedEncoder) -> None:
    pipelines = pytest.importorskip("sklearn.pipeline", reason="needs scikit-learn")
    from sklearn.base import is_classifier
    from sklearn.exceptions import NotFittedError
    from sklearn.model_selection import GridSearchCV
    from sklearn.utils.validation import check_is_fitted

    X = np.eye(3, 5)
    model = Classifier(NAMES, stored, "plain", templates=["a {}"])
    assert is_classifier(model)
    with pytest.raises(NotFittedError):
        check_is_fitted(model)
    check_is_fitted(model.fit(X))
    assert pipelines.make_pipeline("passthrough", model).fit(X).predict(X).tolist() == NAMES
    search = GridSearchCV(
        Classifier(NAMES, stored, templates=["a {}"]),
        {"weigh": ["mean", "mean_similarity"]},
        scoring=lambda m, X: float(m.predict_proba(X).max(1).mean()),
        cv=2,
    ).fit(np.vstack([X, X]))
    assert search.best_params_["weigh"] in ("mean", "mean_similarity")


def test_a_fitted_model_can_be_pickled(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = FakeEncoder()
    monkeypatch.setattr("byname.classifier.load_encoder", lambda *a, **k: encoder)
    encoder.session = lambda: None  # what cannot be pickled  # type: ignore[attr-defined]
    model = Classifier(NAMES, "fake", "plain").fit()
    twin = pickle.loads(pickle.dumps(model))
    assert not hasattr(twin, "encoder_")
    assert twin.predict(photos).tolist() == model.predict(photos).tolist()
    assert copy.deepcopy(model).predict(photos).tolist() == model.predict(photos).tolist()


def test_an_unpickled_model_refuses_another_encoder(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("byname.classifier.load_encoder", lambda *a, **k: FakeEncoder())
    twin = pickle.loads(pickle.dumps(Classifier(NAMES, "fake", "plain").fit()))
    other = FakeEncoder(weights="fake-2")
    monkeypatch.setattr("byname.classifier.load_encoder", lambda *a, **k: other)
    with pytest.raises(EncoderError, match="its texts were encoded by another encoder"):
        twin.predict(photos)
    assert twin.fit().predict(photos).shape == (4,)


def test_fit_reads_files_and_nested_classes_again(
    stored: PrecomputedEncoder, tmp_path: Path
) -> None:
    nested = {"pets": ["cat"], "wild": ["fox"]}
    model = Classifier(nested, stored, "plain", templates=["a {}"]).fit()
    nested["pets"].append("dog")
    assert model.fit().classes_.tolist() == ["pets.cat", "pets.dog", "wild.fox"]
    file = tmp_path / "names.txt"
    file.write_text("cat\n")
    model = Classifier(file, stored, "plain", templates=["a {}"]).fit()
    file.write_text("cat\ndog\n")
    assert model.fit().classes_.tolist() == ["cat", "dog"]


def test_a_changed_attribute_counts(stored: PrecomputedEncoder) -> None:
    model = Classifier(list(NAMES), stored, "plain", templates=["a {}"]).fit()
    model.classes = ["dog", "fox"]
    assert model.predict(np.eye(3, 5)[1:]).tolist() == ["dog", "fox"]
    model.classes.append("cat")
    assert model.fit().classes_.tolist() == ["dog", "fox", "cat"]
    model.batch_size = 7
    assert hasattr(model.prepare(), "pipeline_"), "this changes no answer"


def test_a_list_of_files_keeps_its_order_and_its_repetitions(photos: Path) -> None:
    model = Classifier(NAMES, FakeEncoder(), "plain")
    by_name = dict(
        zip(sorted(p.name for p in photos.iterdir()), model.predict(photos), strict=True)
    )
    files = [photos / f"{i}.png" for i in (3, 0, 2, 0, 1)]
    for X in (files, [str(f) for f in files], iter(files), np.array([str(f) for f in files])):
        assert model.predict(X).tolist() == [by_name[f.name] for f in files]
    assert model.predict_proba(files).shape == (5, 3)
    files[1].write_bytes(b"")
    with pytest.warns(UserWarning, match="could not be read"):
        answers = model.predict(files)
    assert answers.tolist() == [None if f.name == "0.png" else by_name[f.name] for f in files]


def test_grey_images_and_vectors_are_told_apart(photos: Path) -> None:
    model = Classifier(NAMES, FakeEncoder(), "plain")
    grey = np.linspace(0, 255, 40 * 48).reshape(40, 48).astype(np.uint8)
    batch = np.stack([grey, grey.T.reshape(40, 48)])
    assert model.predict(batch).shape == (2,)
    np.testing.assert_array_equal(model.predict([grey]), model.predict(batch)[:1])
    with pytest.raises(UsageError, match=r"A grey image goes into a list: \[image\]"):
        model.predict(grey)
    with pytest.raises(UsageError, match=r"they are a list of PngImageFile, str\."):
        model.predict(["a.png", Image.open(photos / "0.png")])


def test_blocks_of_rows_change_nothing(stored: PrecomputedEncoder) -> None:
    X = np.random.default_rng(0).normal(size=(50, 5))
    model = Classifier(NAMES, stored, "plain", templates=["a {}"]).fit()
    embeddings = model.embed(X)
    whole = answer_table(model.pipeline_, embeddings, k=2)
    cut = answer_table(model.pipeline_, embeddings, k=2, block=7)
    numbers = ["probability", "margin"]  # of products that may be rounded otherwise
    assert cut.drop_columns(numbers).equals(whole.drop_columns(numbers))
    for name in numbers:
        np.testing.assert_allclose(cut[name].to_numpy(), whole[name].to_numpy(), atol=1e-6)
    assert whole.num_rows == 100


def test_set_params_forgets_what_was_fitted(stored: PrecomputedEncoder) -> None:
    model = Classifier(NAMES, stored, "plain", templates=["a {}"]).fit()
    model.set_params(classes=["dog", "cat"])
    assert not hasattr(model, "pipeline_")
    assert model.fit().classes_.tolist() == ["dog", "cat"]
    with pytest.raises(UsageError, match="cannot set 'colour': Classifier has no such parameter"):
        model.set_params(colour=1)
    assert "recipe='plain'" in repr(model)
    assert "score" not in repr(model)


def test_every_form_of_images_gives_the_same_answer(photos: Path) -> None:
    model = Classifier(NAMES, FakeEncoder(), "plain")
    want = model.decision_function(photos)
    files = sorted(photos.iterdir())
    arrays = [np.asarray(Image.open(f)) for f in files]
    for X in (str(photos), f"{photos}/*.png", files, [Image.open(f) for f in files], arrays):
        np.testing.assert_allclose(model.decision_function(X), want, atol=0.05)
    embeddings = model.embed(photos)
    assert isinstance(embeddings, Embeddings)
    np.testing.assert_array_equal(model.decision_function(embeddings), want)
    np.testing.assert_allclose(model.decision_function(embeddings.vectors), want, atol=1e-4)
    np.testing.assert_allclose(model.decision_function(arrays[0]), want[:1], atol=0.05)
    np.testing.assert_allclose(model.decision_function(np.stack(arrays)), want, atol=0.05)


def test_rows_follow_the_contract(photos: Path) -> None:
    classes = {"pets": ["cat", "dog"], "wild": ["fox"]}
    model = Classifier(classes, FakeEncoder(), "plain")
    rows = model.classify(photos, k=2)
    assert [(r.file_name, r.rank) for r in rows[:3]] == [("0.png", 1), ("0.png", 2), ("1.png", 1)]
    first = rows[0]
    assert first.label in NAMES
    assert first.level == 2
    assert first.path == f"{first.path.split('/')[0]}/{first.class_id}"
    assert (
        rows[0].margin
        == rows[1].margin
        == pytest.approx(rows[0].probability - rows[1].probability, abs=1e-6)
    )
    assert first.decision == "accept"
    assert first.error is None


def test_level_answers_with_the_sum_over_the_group(photos: Path) -> None:
    classes = {"pets": ["cat", "dog"], "wild": ["fox"]}
    leaves = Classifier(classes, FakeEncoder(), "plain").predict_proba(photos)
    model = Classifier(classes, FakeEncoder(), "plain", level=1)
    rows = model.classify(photos, k=2)
    P = model.predict_proba(photos)
    assert model.classes_.tolist() == ["pets", "wild"]
    np.testing.assert_array_equal(model.classes_[P.argmax(1)], model.predict(photos))
    np.testing.assert_allclose(P[:, 0], leaves[:, :2].sum(1), rtol=1e-4)
    pets = {r.file_name: r.probability for r in rows if r.class_id == "pets"}
    np.testing.assert_allclose(
        [pets[f"{i}.png"] for i in range(4)], leaves[:, :2].sum(1), rtol=1e-4
    )
    assert {r.level for r in rows} == {1}


def test_an_unreadable_file_keeps_its_place(photos: Path) -> None:
    (photos / "1.png").write_bytes(b"")
    model = Classifier(NAMES, FakeEncoder(), "plain")
    with pytest.warns(UserWarning, match=r"1 of 4 images could not be read, the first is '1\.png'"):
        predicted = model.predict(photos)
    assert predicted[1] is None
    assert all(p in NAMES for p in predicted[[0, 2, 3]])
    with pytest.warns(UserWarning, match="could not be read"):
        P = model.predict_proba(photos)
    assert np.isnan(P[1]).all()
    assert np.isfinite(P[[0, 2, 3]]).all()
    rows = model.classify(photos, k=2)
    (bad,) = [r for r in rows if r.error]
    assert (bad.file_name, bad.rank, bad.class_id, bad.probability) == ("1.png", 1, None, None)
    assert bad.error == "empty file (0 bytes)"
    assert [r.file_name for r in rows] == sorted(r.file_name for r in rows)


def test_reject_and_prompt_files(photos: Path, tmp_path: Path) -> None:
    model = Classifier(NAMES, FakeEncoder(), "plain", decide="reject[min_probability=1.0]")
    rows = model.classify(photos)
    assert [r.decision for r in rows] == [
        "accept" if r.probability == 1 else "reject" for r in rows
    ]
    assert "reject" in {r.decision for r in rows}
    texts = {n: [{"text": f"a {n}"}, {"text": f"the {n}"}] for n in reversed(NAMES)}
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps({"format": "byname-prompts/1", "classes": texts}))
    model = Classifier(NAMES, FakeEncoder(), prompts=path).prepare()
    assert model.prompts_.texts("cat") == ["a cat", "the cat"]
    assert list(model.prompts_.classes) == NAMES, "aligned by id, not by the file's order"


def test_the_order_of_classes_changes_no_answer(photos: Path) -> None:
    one = Classifier(NAMES, FakeEncoder()).predict(photos)
    two = Classifier(NAMES[::-1], FakeEncoder()).predict(photos)
    assert one.tolist() == two.tolist()


def test_classes_of_one_name_do_not_merge(photos: Path) -> None:
    model = Classifier(["crane", "crane", "cat"], FakeEncoder(), "plain")
    assert model.prepare().classes_.tolist() == ["crane", "crane-2", "cat"]
    assert model.predict_proba(photos).shape == (4, 3)
    assert any("crane" in text for text in model.taxonomy_.warnings)


def test_text_vectors_are_cached_by_content(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BYNAME_CACHE", str(tmp_path / "cache"))
    first, second = FakeEncoder(), FakeEncoder()
    Classifier(NAMES, first).classify(photos)
    Classifier([*NAMES, "owl"], second).classify(photos)
    assert first.texts == 3 * 80
    assert second.texts == 80, "only the new class's texts"
    assert second.images == 0
    third = FakeEncoder()
    Classifier(NAMES, third, cache=False).classify(photos)
    assert (third.texts, third.images) == (3 * 80, 4)


def test_no_images_at_all(stored: PrecomputedEncoder) -> None:
    model = Classifier(NAMES, stored, "plain", templates=["a {}"])
    empty = np.zeros((0, 5), np.float32)
    assert model.predict(empty).shape == (0,)
    assert model.predict_proba(empty).shape == (0, 3)
    assert model.classify(empty) == []


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, UsageError, "cannot classify: no classes were given"),
        ({"classes": []}, TaxonomyError, "there are none"),
        ({"classes": NAMES, "recipe": "plian"}, RecipeError, "Did you mean 'plain'"),
        ({"classes": NAMES, "weigh": "cosine"}, RecipeError, "'cosine' is a score member"),
        ({"classes": NAMES, "templates": ["a photo"]}, PromptError, "holds {} 0 times"),
        ({"classes": NAMES, "templates": "a {}"}, UsageError, "templates is one string"),
        ({"classes": NAMES, "templates": ["{}"], "prompts": "templates"}, UsageError, "Choose one"),
        ({"classes": NAMES, "batch_size": 0}, UsageError, "batch_size is 0"),
        ({"classes": NAMES, "level": "genus"}, TaxonomyError, "genus"),
        ({"classes": NAMES, "prompts": "nowhere.json"}, PromptError, "nowhere.json"),
    ],
)
def test_bad_arguments_are_found_before_any_work(
    arguments: dict[str, object], error: type[Exception], message: str
) -> None:
    encoder = FakeEncoder()
    with pytest.raises(error) as caught:
        Classifier(encoder=encoder, **arguments).prepare()  # type: ignore[arg-type]
    assert message in str(caught.value)
    assert encoder.texts == 0


def test_bad_images(stored: PrecomputedEncoder, tmp_path: Path) -> None:
    model = Classifier(NAMES, stored, "plain", templates=["a {}"])
    with pytest.raises(EmbeddingsError, match=r"their width is 4, but .* has 5"):
        model.predict(np.eye(3, 4))
    with pytest.raises(EmbeddingsError, match="NaN or infinite values, the first is '00000001'"):
        model.predict(np.array([[1.0] * 5, [np.nan] * 5]))
    with pytest.raises(UsageError, match=r"they are a int\. Accepted: a folder, glob"):
        model.predict(7)
    with pytest.raises(SourceError, match="nowhere"):
        model.predict(str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="k is 0"):
        model.classify(np.eye(3, 5), k=0)
    with pytest.raises(UsageError, match=r"k is 1\.5. Give a whole number"):
        model.classify(np.eye(3, 5), k=1.5)  # type: ignore[arg-type]
    other = FakeEncoder()
    foreign = Embeddings(
        ("a",), np.ones((1, 5), np.float32), "other", other.info.image_fingerprint()
    )
    with pytest.raises(EmbeddingsError, match="made by 'other', which is not this"):
        model.predict(foreign)


def test_a_taxonomy_object_is_used_as_it_is(stored: PrecomputedEncoder) -> None:
    taxonomy = Taxonomy.from_names(NAMES)
    assert Classifier(taxonomy, stored, "plain", templates=["a {}"]).prepare().taxonomy_ is taxonomy

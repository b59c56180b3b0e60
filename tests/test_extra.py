"""The optional inputs from folders and files: what reaches the batch, and what is refused."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from byname import Classifier, Embeddings
from byname.encoders import PrecomputedEncoder
from byname.errors import BynameError, EncoderError, NeedsError, UsageError
from byname.extra import Extras
from byname.flow import Support
from byname.gathered import parse_with
from byname.images.decode import decode
from byname.images.preprocess import to_pixels
from byname.images.views import Crops, parse_rule
from byname.pipeline import Pipeline
from tests.helpers import DIM, FakeEncoder, make_photo, make_photos, unit

NAMES = ["cat", "dog"]
BAD = "broken.png"


class Other(FakeEncoder):
    """The second encoder: the first half of the vectors of the first, and other texts."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(name="other", weights="other-1", **kwargs)
        self.info = replace(self.info, dim=4, logit_scale=20.0)

    def encode_images(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return unit(super().encode_images(pixels)[:, :4])

    def encode_texts(self, texts: Any) -> NDArray[np.float32]:
        return unit(super().encode_texts([f"second {text}" for text in texts])[:, :4])


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = make_photos(tmp_path / "photos", 5)
    (folder / BAD).write_text("no image")
    return folder


def model(extra: Any, recipe: str = "plain", **kwargs: Any) -> Classifier:
    encoder = kwargs.pop("encoder", None) or FakeEncoder()
    return Classifier(NAMES, encoder, recipe, templates=["a {}"], extra=extra, **kwargs)


def pixels_of(folder: Path, keys: tuple[str, ...]) -> NDArray[np.uint8]:
    base = FakeEncoder().info.preprocess
    assert base is not None
    return np.stack([to_pixels(decode((folder / key).read_bytes()), base) for key in keys])


# -- the form KIND=VALUE


@pytest.mark.parametrize(
    "item, message",
    [
        ("second", "not of the form KIND=VALUE"),
        ("second=", "not of the form KIND=VALUE"),
        ("third=mini", "use 'third' as a further input.*Known: second: .*views: "),
    ],
)
def test_wrong_words(item: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_with([item])
    with pytest.raises(UsageError, match="'views' is given twice"):
        parse_with(["views=uniform", "views=uniform[n=2]"])


def test_without_any_there_is_no_more_work(photos: Path) -> None:
    encoder = FakeEncoder()
    plain = model(None, encoder=encoder)
    given = plain.gather(photos)
    assert [name for name, value in vars(given.batch).items() if value is not None] == ["X"]
    assert given.batch.X is given.embeddings.vectors
    assert plain.extras_.record() == {}
    assert not plain.extras_


# -- second


def test_second_brings_images_and_texts(photos: Path) -> None:
    second = Other()
    both = model({"second": second}, "encoders")
    given = both.gather(photos)
    keys = given.embeddings.keys
    assert list(given.embeddings.errors) == [BAD]
    expected = second.encode_images(pixels_of(photos, keys))
    np.testing.assert_allclose(given.batch.second, expected, atol=2e-3)
    texts = both._texts.second_texts
    assert texts is not None
    assert texts.scale == 20
    np.testing.assert_allclose(texts.vectors, second.encode_texts(["a cat", "a dog"]), atol=1e-6)
    told = both.extras_.record()["second"]
    assert (told["given"], told["encoder"]) == ("Other", "other")
    assert both.extras_.passes == 2
    read = second.images
    np.testing.assert_allclose(both.gather(photos).batch.second, given.batch.second)
    assert second.images == read  # its vectors are cached, too


def test_an_image_that_fails_in_one_is_an_error_row(photos: Path) -> None:
    class Picky(Other):
        def encode_images(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
            if (pixels == pixels_of(photos, ("0001.png",))).all((1, 2, 3)).any():
                raise EncoderError("encode it", "it is the one")
            return super().encode_images(pixels)

    rows = model({"second": Picky()}, "encoders", cache=False).classify(photos)
    assert len(rows) == 6
    errors = {row.file_name: row.error for row in rows if row.error}
    assert errors.keys() == {BAD, "0001.png"}
    assert "it is the one" in str(errors["0001.png"])
    alone = model({"second": Other()}, "encoders").classify(photos)
    same = [row for row in alone if row.file_name not in errors]
    assert [r.class_id for r in same] == [r.class_id for r in rows if not r.error]


def test_second_as_a_file_of_vectors(photos: Path, tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    keys = ("0000.png", "0001.png", "0003.png", "0004.png")  # 0002 lies in a sub-folder, unknown
    Embeddings.from_arrays(vectors, keys, encoder="dino").save(tmp_path / "d.parquet")
    given = model({"second": tmp_path / "d.parquet"}).gather(photos)
    assert given.embeddings.keys == keys
    np.testing.assert_allclose(given.batch.second, unit(vectors), atol=1e-3)
    assert given.embeddings.errors["sub/0002.png"].startswith("second: its embeddings hold no")
    alone = model({"second": tmp_path / "d.parquet"}, "encoders")
    with pytest.raises(NeedsError, match=r"no texts: 'dino', .*cannot be loaded .*second=ENCODER"):
        alone.predict(photos)
    foreign = Embeddings.from_arrays(vectors, ["w.png", "x.png", "y.png", "z.png"])
    reader = FakeEncoder()
    with pytest.raises(UsageError, match="none of the 6 images is among its 4 files"):
        model({"second": foreign}, encoder=reader).predict(photos)
    assert reader.images == 0


def test_vectors_cannot_go_through_another_encoder(photos: Path) -> None:
    vectors = model(None).embed(photos)
    for kind, value in (("second", Other()), ("views", "uniform")):
        with pytest.raises(UsageError, match=f"make '{kind}' of these images: they are vectors"):
            model({kind: value}).predict(vectors)
        with pytest.raises(UsageError, match="they are vectors already"):
            model({kind: value}).predict(np.eye(3, DIM))
    stored = PrecomputedEncoder(
        (["a cat", "a dog"], np.eye(2)), (list(vectors.keys), np.ones((5, 2)))
    )
    found = model({"second": stored}, "encoders").gather(vectors)
    np.testing.assert_allclose(found.batch.second, np.full((5, 2), 0.5**0.5), atol=1e-6)
    texts_only = PrecomputedEncoder(text_encoder=FakeEncoder())
    with pytest.raises(EncoderError, match="none of them is among its 0 image vectors"):
        model({"second": texts_only}).predict(photos)


def test_a_second_encoder_without_these_texts(photos: Path) -> None:
    class Blind(Other):
        def encode_texts(self, texts: Any) -> NDArray[np.float32]:
            raise EncoderError("encode texts with 'other'", "it has no text tower")

    with pytest.raises(NeedsError, match="encode the texts with 'other': it has no text tower"):
        model({"second": Blind()}, "encoders", cache=False).predict(photos)
    assert len(model({"second": Blind()}, cache=False).predict(photos)) == 6


# -- reference and support


def test_reference_images(photos: Path, tmp_path: Path) -> None:
    others = make_photos(tmp_path / "others", 4, first=50)
    (others / "bad.png").write_text("nothing")
    encoder = FakeEncoder()
    given = model({"reference": others}, "zpe", encoder=encoder)
    batch = given.gather(photos).batch
    np.testing.assert_allclose(batch.reference, model(None).embed(others).vectors)
    assert given.extras_.record()["reference"] == {
        "given": str(others),
        "images": 4,
        "unreadable": 1,
    }
    assert given.extras_.notes(given.recipe_) == [
        "1 images of reference could not be read: left out"
    ]
    count = encoder.images
    assert given.gather(photos).batch.reference is batch.reference
    assert encoder.images == count
    narrow = Embeddings.from_arrays(np.eye(3))
    with pytest.raises(BynameError, match="their width is 3, but 'fake' has 8"):
        model({"reference": narrow}).predict(photos)
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.png").write_text("nothing")
    with pytest.raises(BynameError, match="none of its images could be read"):
        model({"reference": tmp_path / "none"}).predict(photos)


def test_support_in_folders(photos: Path, tmp_path: Path) -> None:
    for i, name in enumerate(["cat", "DOG", "cat"]):
        (tmp_path / "s" / name).mkdir(parents=True, exist_ok=True)
        make_photo(70 + i).save(tmp_path / "s" / name / f"{i}.png")
    support = model({"support": str(tmp_path / "s")}).gather(photos).batch.support
    assert support is not None
    assert (support.class_index.tolist(), support.kind) == ([1, 0, 0], "generated")
    assert support.captions is None
    expected = model(None).embed(tmp_path / "s").vectors
    np.testing.assert_allclose(support.vectors, expected)
    for kind in ("labelled", "pseudo"):
        marked = model({"support": f"{kind}:{tmp_path / 's'}"}, "tip_x")
        assert marked.gather(photos).batch.support.kind == kind  # type: ignore[union-attr]
        told = marked.extras_.record()["support"]
        assert (told["kind"], told["classes"], told["images"]) == (kind, 2, 3)
    ready = Support(np.eye(2, DIM), np.array([0, 1]), "pseudo")
    assert model({"support": ready}).gather(photos).batch.support is ready


def test_fit_without_images_still_has_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    real = Pipeline.fit
    monkeypatch.setattr(
        Pipeline,
        "fit",
        lambda self, texts, batch=None: seen.append(batch) or real(self, texts, batch),
    )
    model({"reference": make_photos(tmp_path / "r", 2)}).fit()
    model(None).fit()
    assert (len(seen[0]), seen[0].reference.shape) == (0, (2, DIM))
    assert seen[1] is None


def test_support_in_a_table_with_captions(photos: Path, tmp_path: Path) -> None:
    make_photos(tmp_path / "s", 2, first=80)
    table = tmp_path / "s" / "t.csv"
    table.write_text("file_name,class,caption\n0080.png,dog,a brown dog\nsub/0081.png,cat,\n")
    if not (tmp_path / "s" / "sub" / "0081.png").exists():
        table.write_text("file_name,class,caption\nsub/0080.png,dog,a brown dog\n0081.png,cat,\n")
    support = model({"support": table}).gather(photos).batch.support
    assert support is not None
    rows = {k: i for i, k in enumerate(support.class_index.tolist())}
    np.testing.assert_allclose(
        support.captions[rows[1]], FakeEncoder().encode_texts(["a brown dog"])[0], atol=1e-6
    )
    assert not support.captions[rows[0]].any()


@pytest.mark.parametrize(
    "files, message",
    [
        (["cow/1.png", "cat/2.png"], "no single class is called 'cow'"),
        (["1.png", "cat/2.png"], "1 images have no class .'1.png'"),
    ],
)
def test_support_of_no_class(photos: Path, tmp_path: Path, files: Any, message: str) -> None:
    for name in files:
        (tmp_path / "s" / name).parent.mkdir(parents=True, exist_ok=True)
        make_photo(1).save(tmp_path / "s" / name)
    encoder = FakeEncoder()
    with pytest.raises(UsageError, match=message):
        model({"support": tmp_path / "s"}, encoder=encoder).predict(photos)
    assert encoder.images == 0
    with pytest.raises(UsageError, match="neither a folder nor a"):
        model({"support": tmp_path / "nowhere"}).predict(photos)


# -- captions and probabilities


@pytest.mark.parametrize("form", ["csv", "jsonl", "mapping"])
def test_captions(photos: Path, tmp_path: Path, form: str) -> None:
    said = [("0000.png", "a red thing"), ("0000.png", "on a lawn"), ("0002.png", "a tree")]
    given: Any = {name: [t for n, t in said if n == name] for name, _ in said}
    if form == "csv":
        given = tmp_path / "c.csv"
        given.write_text("file_name,caption\n" + "".join(f"{n},{t}\n" for n, t in said))
    elif form == "jsonl":
        given = tmp_path / "c.jsonl"
        lines = [json.dumps({"file_name": n, "caption": t}) for n, t in said]
        given.write_text("\n".join(lines) + "\n")
    used = model({"captions": given})
    found = used.gather(photos)
    # 0002 lies in a sub-folder: joined by its unique base name
    assert found.embeddings.keys[-1] == "sub/0002.png"
    vectors = FakeEncoder().encode_texts(["a red thing", "on a lawn", "a tree"])
    assert found.batch.captions.shape == (5, 2, DIM)
    np.testing.assert_allclose(found.batch.captions[0], vectors[:2], atol=1e-6)
    np.testing.assert_allclose(found.batch.captions[4, 0], vectors[2], atol=1e-6)
    assert not found.batch.captions[1:4].any()
    assert not found.batch.captions[4, 1].any()
    assert "3 images have no caption" in used.extras_.notes(used.recipe_)


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("c.csv", "file_name,words\na,b\n", "no column caption or text.*file_name,caption"),
        ("c.csv", "file_name,caption\na.png,\n", "there is none with a file name and a text"),
        ("c.jsonl", '{"file_name": "a"}\n', "line 1 is no object with a file_name and a caption"),
        ("c.txt", "a", "its name ends in '.txt'"),
        ("c.csv", "file_name,caption\nzzz.png,a cat\n", "none of the 6 images is among its 1 file"),
    ],
)
def test_captions_that_do_not_fit(
    photos: Path, tmp_path: Path, name: str, text: str, message: str
) -> None:
    (tmp_path / name).write_text(text)
    encoder = FakeEncoder()
    with pytest.raises(UsageError, match=message):
        model({"captions": tmp_path / name}, encoder=encoder).predict(photos)
    assert encoder.images == 0


@pytest.mark.parametrize("form", ["npz", "parquet", "tuple"])
def test_class_probs(photos: Path, tmp_path: Path, form: str) -> None:
    P = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.3, 0.4, 0.3], [1, 0, 0]], np.float32)
    files, names = ["0000.png", "0001.png", "0002.png", "0003.png"], ["tabby", "pug", "oak"]
    given: Any = (P, names, files)
    if form == "npz":
        given = tmp_path / "p.npz"
        np.savez(given, probabilities=P, names=np.array(names), file_names=np.array(files))
    elif form == "parquet":
        given = tmp_path / "p.parquet"
        pq.write_table(pa.table({"file_name": files, **dict(zip(names, P.T, strict=True))}), given)
    found = model({"class_probs": given}, "conse").gather(photos)
    assert found.embeddings.keys == ("0000.png", "0001.png", "0003.png", "sub/0002.png")
    assert found.embeddings.errors["0004.png"] == "class_probs: its file holds no row for it"
    assert found.batch.class_probs is not None
    np.testing.assert_allclose(found.batch.class_probs[0], P[[0, 1, 3, 2]])
    texts = [f"a photo of a {name}." for name in names]
    np.testing.assert_allclose(
        found.batch.class_probs[1], FakeEncoder().encode_texts(texts), atol=1e-6
    )
    assert len(model({"class_probs": given}, "conse").classify(photos)) == 6


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"probabilities": np.ones((1, 2), np.float32)}, "rows sum to at most 2"),
        ({"probabilities": np.ones((1, 3), np.float32) / 3}, "for 1 files and 2 classes"),
        ({"names": np.array([1, 2])}, "'names' has the shape .2,. and the type int64"),
        ({"file_names": None}, "it lacks file_names"),
        ({"file_names": np.array(["zzz.png"])}, "none of the 6 images is among its 1 files"),
    ],
)
def test_class_probs_that_do_not_fit(
    photos: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    arrays = {
        "probabilities": np.array([[0.5, 0.5]], np.float32),
        "names": np.array(["a", "b"]),
        "file_names": np.array(["0000.png"]),
    } | changes
    np.savez(tmp_path / "p.npz", **{k: v for k, v in arrays.items() if v is not None})
    encoder = FakeEncoder()
    with pytest.raises(UsageError, match=message):
        model({"class_probs": tmp_path / "p.npz"}, encoder=encoder).predict(photos)
    assert encoder.images == 0


# -- views


def test_views_are_vectors_of_the_crops(photos: Path) -> None:
    encoder = FakeEncoder()
    used = model({"views": "uniform[n=3]"}, encoder=encoder)
    given = used.gather(photos)
    assert given.batch.views.shape == (5, 3, DIM)
    assert encoder.info.preprocess is not None
    crops = Crops.of(encoder.info.preprocess, parse_rule("uniform[n=3]"))
    for row, key in enumerate(given.embeddings.keys):
        expected = encoder.encode_images(crops.load((photos / key).read_bytes()))
        np.testing.assert_allclose(given.batch.views[row], expected, atol=2e-3)
    np.testing.assert_allclose(np.linalg.norm(given.batch.views, axis=-1), 1, atol=1e-6)
    count = encoder.images
    again = model({"views": "uniform[n=3]"}, encoder=encoder).gather(photos)
    np.testing.assert_array_equal(again.batch.views, given.batch.views)
    assert encoder.images == count  # from the cache
    other = model({"views": "uniform[n=3,seed=1]"}, encoder=encoder).gather(photos)
    assert np.abs(other.batch.views - given.batch.views).max() > 0.01
    assert used.extras_.record()["views"]["rule"]["n"] == 3
    assert used.extras_.notes(used.recipe_) == ["the recipe 'plain' does not look at views"]


def test_views_do_not_depend_on_the_other_images(photos: Path) -> None:
    used = model({"views": "uniform[n=2]"}, cache=False)
    whole = used.gather(photos).batch.views
    one = used.gather([photos / "0003.png"]).batch.views
    np.testing.assert_array_equal(one[0], whole[2])


def test_views_of_images_in_memory() -> None:
    images = [make_photo(i) for i in range(3)]
    used = model({"views": "uniform[n=2]"})
    assert used.gather(images).batch.views.shape == (3, 2, DIM)
    assert used.predict(images).shape == (3,)


def test_attention_needs_an_encoder_that_has_it(photos: Path) -> None:
    encoder = FakeEncoder()
    with pytest.raises(UsageError, match=r"attends to\. Use uniform instead"):
        model({"views": "attention"}, encoder=encoder).predict(photos)
    assert encoder.images == 0

    class Looking(FakeEncoder):
        gives_attention = True

        def attention(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
            return pixels.mean(-1).reshape(-1, 4, 8, 4, 8).mean((2, 4)).astype(np.float32)

    views = model({"views": "attention[n=4]"}, encoder=Looking()).gather(photos).batch.views
    assert views.shape == (5, 4, DIM)
    stored = PrecomputedEncoder.from_arrays(["a cat", "a dog"], np.eye(2))
    with pytest.raises(UsageError, match="'precomputed' takes no pixels"):
        model({"views": "uniform"}, encoder=stored).predict(np.eye(2))


# -- one batch for all methods


def test_every_method_sees_the_same_batch(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    for name in ("fit", "scores", "decide"):
        real = getattr(Pipeline, name)

        def spy(self: Any, *args: Any, real: Any = real, **kwargs: Any) -> Any:
            batch = kwargs.get("batch", args[-1])
            seen.append(batch.views.shape)
            return real(self, *args, **kwargs)

        monkeypatch.setattr(Pipeline, name, spy)
    used = model({"views": "uniform[n=2]"})
    used.fit(photos).predict(photos)
    used.predict_proba(photos)
    used.table(photos)
    used.diagnose(photos)
    assert len(seen) >= 7
    assert set(seen) == {(5, 2, DIM)}


def test_what_was_gathered_is_not_read_again(photos: Path) -> None:
    encoder, second = FakeEncoder(), Other()
    used = model({"second": second}, "encoders", encoder=encoder, cache=False)
    given = used.gather(photos)
    counts = encoder.images, second.images
    used.fit_prepared(given)
    assert used.table(given).num_rows == 6
    assert used.predict(given).shape == (6,)
    assert (encoder.images, second.images) == counts


def test_other_inputs_are_noticed(photos: Path) -> None:
    used = model({"views": "uniform[n=2]"})
    used.fit(photos)
    used.set_params(extra={"views": "uniform[n=3]"})
    assert used.gather(photos).batch.views.shape == (5, 3, DIM)
    used.extra = None
    assert used.gather(photos).batch.views is None


def test_a_file_that_changed_is_read_again_by_fit(photos: Path, tmp_path: Path) -> None:
    file = tmp_path / "c.csv"
    file.write_text("file_name,caption\n0000.png,one\n")
    used = model({"captions": file})
    before = used.gather(photos).batch.captions[0, 0]
    file.write_text("file_name,caption\n0000.png,two\n")
    assert (used.fit(photos).gather(photos).batch.captions[0, 0] != before).any()


def test_it_can_be_pickled(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("byname.classifier.load_encoder", lambda *a, **k: FakeEncoder())
    monkeypatch.setattr("byname.extra.load_encoder", lambda *a, **k: Other())
    used = Classifier(NAMES, "fake", "encoders", templates=["a {}"], extra={"second": "other"})
    answers = used.fit(photos).predict(photos)
    data = pickle.dumps(used)
    assert pickle.loads(data).predict(photos).tolist() == answers.tolist()
    monkeypatch.setattr("byname.extra.load_encoder", lambda *a, **k: FakeEncoder())
    with pytest.raises(EncoderError, match="another one than when this classifier was pickled"):
        pickle.loads(data).predict(photos)


def test_unknown_kinds_and_repr() -> None:
    with pytest.raises(UsageError, match="use 'labels' as a further input"):
        model({"labels": "a.csv"}).prepare()
    assert repr(Extras({"second": "mini", "captions": {}})) == (
        "Extras({'second': 'mini', 'captions': 'dict'})"
    )

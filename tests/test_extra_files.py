"""What files say of images: whom it is said of, and what does not fit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from byname import Embeddings
from byname.errors import EncoderError, NeedsError, UsageError
from byname.extra import Extras
from byname.extrafiles import read_captions, read_class_probs, read_support
from byname.taxonomy import Taxonomy
from tests.helpers import FakeEncoder, make_photo, make_photos, unit
from tests.test_extra import Other, model


@pytest.fixture
def twins(tmp_path: Path) -> Path:
    """a/1.png, which cannot be read, and b/1.png and 2.png, which can."""
    for name in ("a/1.png", "b/1.png", "2.png"):
        (tmp_path / "twins" / name).parent.mkdir(parents=True, exist_ok=True)
        make_photo(len(name) + ord(name[0])).save(tmp_path / "twins" / name)
    (tmp_path / "twins" / "a" / "1.png").write_text("no image")
    return tmp_path / "twins"


def test_a_name_is_not_unique_because_its_twin_cannot_be_read(twins: Path) -> None:
    given = model({"captions": {"1.png": "a cat", "2.png": "a dog"}}).gather(twins)
    assert given.embeddings.keys == ("2.png", "b/1.png")
    np.testing.assert_allclose(
        given.batch.captions[0, 0], FakeEncoder().encode_texts(["a dog"])[0], atol=1e-6
    )
    assert not given.batch.captions[1].any()
    stored = model(None).embed(twins)
    assert "a/1.png" in stored.errors
    again = model({"captions": {"1.png": "a cat", "2.png": "a dog"}}).gather(stored)
    np.testing.assert_allclose(again.batch.captions, given.batch.captions)
    probs = (np.eye(2, dtype=np.float32), ["x", "y"], ["1.png", "2.png"])
    found = model({"class_probs": probs}).gather(twins)
    assert found.embeddings.keys == ("2.png",)


def test_nor_because_its_twin_in_the_file_says_nothing(twins: Path) -> None:
    said = {"x/2.png": "a cat", "y/2.png": "", "b/1.png": "a dog"}
    given = model({"captions": said}).gather(twins)
    assert not given.batch.captions[0].any()
    vectors = Embeddings(
        ("x/2.png", "b/1.png"), np.eye(2, 3, dtype=np.float32), errors={"y/2.png": "why"}
    )
    second = model({"second": vectors}).gather(twins)
    assert second.embeddings.keys == ("b/1.png",)
    whole = replace(vectors, keys=("x/1.png", "b/1.png"), errors={"2.png": "cut off"})
    assert model({"second": whole}).gather(twins).embeddings.errors["2.png"] == "cut off"


def test_what_joins_with_unreadable_images_alone_is_no_error(twins: Path) -> None:
    given = model({"captions": {"a/1.png": "a cat"}}).gather(twins)
    assert len(given.embeddings) == 2
    assert not given.batch.captions.any()


def test_images_in_memory_are_joined_before_they_are_encoded() -> None:
    encoder = FakeEncoder()
    photos = [make_photo(1), make_photo(2)]
    with pytest.raises(UsageError, match="none of the 2 images is among its 1 files"):
        model({"captions": {"x.png": "a cat"}}, encoder=encoder).predict(photos)
    assert encoder.images == 0
    given = model({"captions": {"00000001": "a cat"}}, encoder=encoder).gather(photos)
    assert given.batch.captions.any((1, 2)).tolist() == [False, True]


def test_texts_for_stored_vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos, asked, other = make_photos(tmp_path / "p", 4), [], Other()

    def load(spec: str, **_: Any) -> Any:
        asked.append(spec)
        return other

    monkeypatch.setattr("byname.extra.load_encoder", load)
    stored = model(None, encoder=other).embed(photos)
    stored.save(tmp_path / "s.parquet")
    used = model({"second": tmp_path / "s.parquet"}, "encoders")
    answers = used.fit(photos).predict(photos)
    assert asked == ["other"]
    texts = used._texts.second_texts
    assert texts is not None
    assert texts.scale == 20
    np.testing.assert_allclose(texts.vectors, other.encode_texts(["a cat", "a dog"]), atol=1e-6)
    direct = model({"second": other}, "encoders").fit(photos)
    monkeypatch.setattr("byname.extra.load_encoder", lambda spec, **_: spec)
    assert direct.predict(photos).tolist() == answers.tolist()
    asked.clear()
    model({"second": tmp_path / "s.parquet"}).predict(photos)
    assert asked == []  # nobody looks at texts


@pytest.mark.parametrize("kind", ["unnamed", "absent", "another", "wider"])
def test_no_texts_for_stored_vectors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    def load(spec: str, **_: Any) -> Any:
        if kind == "absent":
            raise EncoderError("use it", "no folder of that name")
        return Other()

    monkeypatch.setattr("byname.extra.load_encoder", lambda s, **k: load(s) if s == "other" else s)
    photos, encoder = make_photos(tmp_path / "p", 2), FakeEncoder()
    width = 3 if kind == "wider" else 4
    stored = Embeddings(
        ("0000.png", "0001.png"),
        unit(np.ones((2, width), np.float32)),
        "" if kind == "unnamed" else "other",
        "0" if kind == "another" else "",
    )
    why = {"unnamed": "names no encoder", "absent": "cannot be loaded .no folder of that name"}
    message = why.get(kind, "another 'other' than is here")
    with pytest.raises(NeedsError, match=f"no texts: .*{message}.*second=ENCODER, with the images"):
        model({"second": stored}, "encoders", encoder=encoder).predict(photos)
    assert encoder.images == 0
    assert len(model({"second": stored}, encoder=encoder).predict(photos)) == 2


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85"])
def test_lines_of_jsonl_end_at_line_feeds_alone(tmp_path: Path, mark: str) -> None:
    one = json.dumps({"file_name": "a.jpg", "caption": f"a cat{mark}on a mat"}, ensure_ascii=False)
    two = json.dumps({"file_name": "b.jpg", "caption": "a dog"})
    (tmp_path / "c.jsonl").write_bytes(f"{one}\r\n\n{two}\n".encode())
    found = read_captions(tmp_path / "c.jsonl")
    assert found.keys() == {"a.jpg", "b.jpg"}
    assert found["a.jpg"][0].split() == ["a", "cat", "on", "a", "mat"]
    (tmp_path / "c.jsonl").write_bytes(f"{one}\n[]\n".encode())
    with pytest.raises(UsageError, match="line 2 is no object"):
        read_captions(tmp_path / "c.jsonl")


@pytest.mark.parametrize("form", ["dots", "absolute", "link"])
def test_one_support_image_has_one_class(tmp_path: Path, form: str) -> None:
    (tmp_path / "s").mkdir()
    make_photo(1).save(tmp_path / "s" / "1.png")
    second = {"dots": "../s/1.png", "absolute": str(tmp_path / "s" / "1.png"), "link": "2.png"}
    (tmp_path / "s" / "2.png").symlink_to(tmp_path / "s" / "1.png")
    table, classes = tmp_path / "s" / "t.csv", Taxonomy.from_names(["cat", "dog"])
    table.write_text(f"file_name,class\n1.png,cat\n{second[form]},dog\n")
    with pytest.raises(UsageError, match="stands there twice"):
        read_support(table, classes)
    table.write_text(f"file_name,class\n1.png,cat\n{second[form]},cat\n")
    assert len(read_support(table, classes).rows) == 1


@pytest.mark.parametrize(
    "value", [([[0.5, 0.5], [1.0]], ["a", "b"], ["x", "y"]), ([[1.0]], None, ["x"])]
)
def test_probabilities_that_are_no_array(value: Any) -> None:
    with pytest.raises(UsageError, match=r"use the class probabilities.*Write probabilities"):
        read_class_probs(value)


def test_what_was_given_is_ready_for_json(tmp_path: Path) -> None:
    used = model({"second": Other(), "views": "uniform[n=2]", "captions": tmp_path / "c.csv"})
    said = Extras(used.extra).parameters()
    assert said["second"] == "Other"
    assert json.loads(json.dumps(said)) == said

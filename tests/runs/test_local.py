"""Too many vectors for memory stay in the parts of the run that made them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from byname import Classifier, embeddings
from byname.cache import clear_cache
from byname.embeddings import Embeddings
from byname.images.sources import open_source
from byname.runs import embed_source
from byname.runs.local import kept_until_written
from byname.stored import StoredVectors
from tests.helpers import FakeEncoder, make_photos

N = 23


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BYNAME_CACHE", str(tmp_path / "cache"))
    folder = make_photos(tmp_path / "photos", N)
    (folder / "0002a.jpg").write_text("no image")
    return folder


@pytest.fixture
def held(photos: Path, monkeypatch: pytest.MonkeyPatch) -> Embeddings:
    """The same in memory; from then on, nothing goes there."""
    found = embed(photos, cache=False)
    assert isinstance(found.vectors, np.ndarray)
    monkeypatch.setattr(embeddings, "IN_MEMORY", 0)
    return found


def embed(photos: Path, encoder: FakeEncoder | None = None, *, cache: bool = True) -> Embeddings:
    source = open_source(photos)
    return embed_source(source, encoder or FakeEncoder(), shard_size=10, cache=cache)


def same(a: Embeddings, b: Embeddings) -> bool:
    assert isinstance(a.vectors, StoredVectors)
    return (
        list(a.keys) == list(b.keys)
        and np.array_equal(a.vectors.load(), b.vectors)
        and a.errors == b.errors
        and (a.encoder, a.fingerprint, a.root) == (b.encoder, b.fingerprint, b.root)
    )


def test_the_same_vectors(photos: Path, held: Embeddings) -> None:
    assert list(held.errors) == ["0002a.jpg"]
    for _ in range(2):
        assert same(embed(photos), held)
    # as they were asked for now, not as whoever made the parts called them
    assert embed(photos, FakeEncoder(name="another")).encoder == "another"


def test_without_the_cache_they_stay_until_all_is_written(photos: Path, held: Embeddings) -> None:
    assert isinstance(embed(photos, cache=False).vectors, np.ndarray)  # nobody keeps the parts
    with kept_until_written():
        found = embed(photos, cache=False)
        assert same(found, held)
    assert not [path for path in (photos.parent / "cache" / "runs").iterdir() if path.is_dir()]


class Clearing(FakeEncoder):
    """Somebody clears the cache while it works."""

    def encode_images(self, pixels: np.ndarray) -> np.ndarray:
        if self.batches == 1:
            clear_cache()
        return super().encode_images(pixels)


def test_a_cache_cleared_meanwhile_costs_only_time(photos: Path, held: Embeddings) -> None:
    found = embed(photos, Clearing())
    assert list(found.keys) == list(held.keys)
    assert np.array_equal(np.asarray(found.vectors), held.vectors)


def test_another_process_that_tries_errors_again_disturbs_no_reader(
    photos: Path, held: Embeddings
) -> None:
    found = embed(photos)
    parts = sorted((photos.parent / "cache" / "runs").glob("*/part-*"))
    before = [(path.name, path.stat().st_ino, path.stat().st_mtime_ns) for path in parts]
    embed(photos)  # in vain
    parts = sorted((photos.parent / "cache" / "runs").glob("*/part-*"))
    assert before == [(path.name, path.stat().st_ino, path.stat().st_mtime_ns) for path in parts]
    assert same(found, held)


@pytest.mark.parametrize("recipe", ["ensemble", "zlap", "cpe"])
def test_a_folder_is_classified_alike(
    photos: Path, monkeypatch: pytest.MonkeyPatch, recipe: str
) -> None:
    model = Classifier(["red", "green", "blue"], encoder=FakeEncoder(), recipe=recipe)
    wanted = model.classify(photos, k=2)
    monkeypatch.setattr(embeddings, "IN_MEMORY", 0)
    assert isinstance(embed(photos).vectors, StoredVectors)
    assert model.classify(photos, k=2) == wanted

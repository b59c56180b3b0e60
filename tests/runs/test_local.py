"""Too many vectors for memory go to a file of the command's own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from byname import Classifier, embeddings
from byname.cache import clear_cache
from byname.embeddings import Embeddings
from byname.images.sources import open_source
from byname.runs import embed_source, local
from byname.runs.local import kept_until_written
from byname.stored import StoredVectors
from tests.commands import Run
from tests.helpers import FakeEncoder, make_photo, make_photos

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
    source, how = open_source(photos), {"shard_size": 10, "cache": cache, "on_disk": True}
    return embed_source(source, encoder or FakeEncoder(), **how)  # type: ignore[arg-type]


@pytest.fixture
def command() -> Iterator[None]:
    """As within a command."""
    with kept_until_written():
        yield


def same(a: Embeddings, b: Embeddings) -> bool:
    assert isinstance(a.vectors, StoredVectors)
    return (
        list(a.keys) == list(b.keys)
        and np.array_equal(a.vectors.load(), b.vectors)
        and a.errors == b.errors
        and (a.encoder, a.fingerprint, a.root) == (b.encoder, b.fingerprint, b.root)
    )


@pytest.mark.usefixtures("command")
def test_the_same_vectors(photos: Path, held: Embeddings) -> None:
    assert list(held.errors) == ["0002a.jpg"]
    for _ in range(2):
        assert same(embed(photos), held)
    # as they were asked for now, not as whoever made the parts called them
    assert embed(photos, FakeEncoder(name="another")).encoder == "another"


def test_in_python_they_come_into_memory(photos: Path, held: Embeddings) -> None:
    assert isinstance(embed(photos).vectors, np.ndarray)
    assert np.array_equal(embed(photos).vectors, held.vectors)


@pytest.mark.usefixtures("command")
def test_what_others_do_to_the_cache_changes_nothing(photos: Path, held: Embeddings) -> None:
    found = embed(photos)
    make_photo(7).save(photos / "0002a.jpg")  # what was an error is none any more
    embed(photos)
    assert same(found, held)
    clear_cache()
    assert same(found, held)


@pytest.mark.usefixtures("command")
def test_two_commands_at_once_without_the_cache(photos: Path, held: Embeddings) -> None:
    done: list[int] = []

    def other() -> Embeddings:
        source = open_source(photos)
        with kept_until_written():
            return embed_source(
                source,
                FakeEncoder(),
                cache=False,
                on_disk=True,
                progress=lambda n, new: done.append(n),
            )

    with ThreadPoolExecutor(2) as pool:
        found = [job.result() for job in [pool.submit(other) for _ in range(2)]]
    assert all(same(one, held) for one in found)
    assert sum(done) == 2 * (N + 1)


class Clearing(FakeEncoder):
    """Somebody clears the cache while it works."""

    def encode_images(self, pixels: np.ndarray) -> np.ndarray:
        if self.batches == 1:
            clear_cache()
        return super().encode_images(pixels)


@pytest.mark.usefixtures("command")
def test_a_cache_cleared_meanwhile_costs_only_time(photos: Path, held: Embeddings) -> None:
    assert same(embed(photos, Clearing()), held)


def test_errors_tried_again_in_vain_write_no_part_anew(photos: Path) -> None:
    """Others may be reading it."""
    embed(photos)
    parts = sorted((photos.parent / "cache" / "runs").glob("*/part-*"))
    before = [(path.name, path.stat().st_ino, path.stat().st_mtime_ns) for path in parts]
    embed(photos)  # in vain
    parts = sorted((photos.parent / "cache" / "runs").glob("*/part-*"))
    assert before == [(path.name, path.stat().st_ino, path.stat().st_mtime_ns) for path in parts]


@pytest.mark.parametrize("how", [(), ("--no-cache",), ("--recipe", "zlap"), ("--recipe", "cpe")])
def test_the_commands_give_the_same(
    photos: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, run: Run, how: tuple[str, ...]
) -> None:
    monkeypatch.setattr("byname.classifier.load_encoder", lambda *a, **k: FakeEncoder())
    monkeypatch.setattr("byname.commands.load_encoder", lambda *a, **k: FakeEncoder())
    seen: list[bool] = []
    asked = local.stay_on_disk

    def told(rows: int, width: int) -> bool:
        seen.append(asked(rows, width))
        return seen[-1]

    monkeypatch.setattr(local, "stay_on_disk", told)
    found = []
    for limit in (2**28, 0):
        monkeypatch.setattr(embeddings, "IN_MEMORY", limit)
        rows, report = tmp_path / f"{limit}.csv", tmp_path / f"{limit}.json"
        given = (photos, "--classes", "red,green,blue", *how)
        assert run("classify", *given, "-k", 2, "-o", rows).code == 0
        assert run("diagnose", *given, "-o", report).code == 0
        made = json.loads(report.read_text())
        found.append((rows.read_text(), made["classes"], made["expected_accuracy"]))
    assert seen == [False, False, True, True]
    assert found[0] == found[1]


def test_embed_gives_the_same(
    photos: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, run: Run
) -> None:
    monkeypatch.setattr("byname.commands.load_encoder", lambda *a, **k: FakeEncoder())
    found = []
    for limit in (2**28, 0):
        monkeypatch.setattr(embeddings, "IN_MEMORY", limit)
        assert run("embed", photos, "--no-cache", "-o", tmp_path / f"{limit}.parquet").code == 0
        found.append((tmp_path / f"{limit}.parquet").read_bytes())
    assert found[0] == found[1]


def test_stored_vectors_are_images(photos: Path, held: Embeddings, tmp_path: Path) -> None:
    held.save(tmp_path / "v.parquet")
    model = Classifier(["red", "green", "blue"], encoder=FakeEncoder())
    stored = Embeddings.load(tmp_path / "v.parquet").vectors
    assert isinstance(stored, StoredVectors)
    assert np.allclose(model.predict_proba(stored), model.predict_proba(held.vectors), atol=1e-3)

"""Runs over a folder of photos: reuse, kills, damage, two processes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from byname.cache import clear_cache
from byname.embeddings import Embeddings
from byname.errors import CacheError, EncoderError, ImageError
from byname.images.load import load_pixels
from byname.images.sources import open_source
from byname.runs import embed_source, local, make_plan, parts, shard
from byname.runs.reuse import ReuseIndex
from tests.helpers import DIM, FakeEncoder, make_photo, make_photos

N = 23
BATCH = 4


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BYNAME_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def photos(base: Path, tmp_path: Path) -> Path:
    return make_photos(tmp_path / "photos", N)


def embed(
    photos: Path,
    encoder: FakeEncoder | None = None,
    *,
    batch_size: int = BATCH,
    shard_size: int = 10,
    cache: bool = True,
) -> Embeddings:
    return embed_source(
        open_source(photos),
        encoder or FakeEncoder(),
        batch_size=batch_size,
        shard_size=shard_size,
        cache=cache,
    )


def fresh(photos: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> Embeddings:
    """What an undisturbed run gives."""
    with monkeypatch.context() as context:
        context.setenv("BYNAME_CACHE", str(base) + "-fresh")
        found = embed(photos)
        clear_cache()
    return found


def same(a: Embeddings, b: Embeddings) -> bool:
    return (
        a.keys == b.keys
        and np.array_equal(a.vectors, b.vectors)
        and a.errors == b.errors
        and (a.encoder, a.fingerprint, a.root) == (b.encoder, b.fingerprint, b.root)
    )


def encoded(photos: Path) -> int:
    """Images that a run encodes now."""
    encoder = FakeEncoder()
    embed(photos, encoder)
    return encoder.images


def files(base: Path, pattern: str) -> list[Path]:
    return sorted((base / "runs").glob(f"*/{pattern}"))


# The plain case


def test_vectors_are_those_of_the_encoder(photos: Path) -> None:
    encoder = FakeEncoder()
    found = embed(photos, encoder)
    assert found.keys == tuple(r.key for r in open_source(photos).refs)
    assert (found.encoder, found.fingerprint) == ("fake", encoder.info.image_fingerprint())
    assert found.root == str(photos)
    assert encoder.images == N
    assert encoder.batches == 3 + 3 + 1
    paths = [photos / key for key in found.keys]
    pixels = np.stack([load_pixels(p.read_bytes(), encoder.info.preprocess) for p in paths])  # type: ignore[arg-type]
    assert np.allclose(found.vectors, encoder.encode_images(pixels), atol=1e-3)


@pytest.mark.parametrize("mode", ["same name", "other name", "relative", "list"])
def test_a_second_run_encodes_nothing(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    first, encoder = embed(photos), FakeEncoder(name="another" if mode == "other name" else "fake")
    source = open_source(photos)
    if mode == "relative":
        monkeypatch.chdir(tmp_path)
        source = open_source("photos")
    elif mode == "list":
        source = open_source([photos / key for key in first.keys])
    second = embed_source(source, encoder, batch_size=7, shard_size=10)
    assert encoder.images == 0
    assert len(second) == N
    by_name = dict(zip((Path(k).name for k in second.keys), second.vectors, strict=True))
    wanted = dict(zip((Path(k).name for k in first.keys), first.vectors, strict=True))
    assert all(np.array_equal(by_name[k], wanted[k]) for k in wanted)


def test_progress_tells_encoded_from_known(photos: Path) -> None:
    (photos / "bad.jpg").write_bytes(b"")

    def run() -> tuple[int, int]:
        counts = [0, 0]

        def progress(done: int, encoded: bool) -> None:
            counts[encoded] += done

        embed_source(open_source(photos), FakeEncoder(), batch_size=BATCH, progress=progress)
        return counts[1], counts[0]

    assert run() == (N, 1)
    assert run() == (0, N + 1)
    make_photo(99).save(photos / "new.png")
    assert run() == (1, N + 1)


@pytest.mark.parametrize("batch_size", [1, 2, 7, 100])
def test_the_batch_size_changes_nothing(
    photos: Path, base: Path, monkeypatch: pytest.MonkeyPatch, batch_size: int
) -> None:
    wanted = fresh(photos, base, monkeypatch)
    assert np.abs(embed(photos, batch_size=batch_size).vectors - wanted.vectors).max() <= 1e-6


def test_the_shard_size_makes_another_run_and_the_same_vectors(photos: Path) -> None:
    first, encoder = embed(photos), FakeEncoder()
    assert same(embed(photos, encoder, shard_size=4), first)
    assert encoder.images == 0


def test_other_weights_or_pixels_share_nothing(photos: Path) -> None:
    embed(photos)
    encoder = FakeEncoder(weights="fake-2")
    embed(photos, encoder)
    assert encoder.images == N


def test_a_tar_gives_the_same_vectors(photos: Path, tmp_path: Path) -> None:
    first = embed(photos, cache=False)
    with tarfile.open(tmp_path / "p.tar", "w") as tar:
        for key in first.keys:
            tar.add(photos / key, key)
    encoder = FakeEncoder()
    found = embed(tmp_path / "p.tar", encoder)
    assert encoder.images == N
    assert found.keys == first.keys
    assert np.array_equal(found.vectors, first.vectors)
    assert encoded(photos) == 0


# Changes between runs


def test_added_renamed_and_moved_photos(photos: Path, tmp_path: Path) -> None:
    embed(photos)
    make_photo(100).save(photos / "0000a.png")
    assert encoded(photos) == 1
    (photos / "0003.png").rename(photos / "sub" / "zzz.png")
    assert encoded(photos) == 0
    photos.rename(tmp_path / "elsewhere")
    assert encoded(tmp_path / "elsewhere") == 0
    (tmp_path / "elsewhere" / "0001.png").unlink()
    assert encoded(tmp_path / "elsewhere") == 0


@pytest.mark.parametrize("same_size", [False, True])
def test_a_photo_changed_in_place(photos: Path, same_size: bool) -> None:
    first = embed(photos)
    path = photos / "0004.png"
    before = path.stat()
    if same_size:
        make_photo(500).save(path.with_suffix(".bmp"))
        path.write_bytes(path.with_suffix(".bmp").read_bytes())
        path.with_suffix(".bmp").unlink()
        embed(photos)
        before = path.stat()
        make_photo(501).save(path, "BMP")
        assert path.stat().st_size == before.st_size
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    else:
        make_photo(501, (50, 50)).save(path)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert path.stat().st_size != before.st_size
    encoder = FakeEncoder()
    second = embed(photos, encoder)
    assert encoder.images == 1
    changed = (first.vectors != second.vectors).any(axis=1)
    assert [k for k, c in zip(first.keys, changed, strict=True) if c] == ["0004.png"]


def test_folders_of_the_same_relative_name_size_and_time_are_not_mixed_up(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for seed, name in enumerate(("one", "two")):
        (tmp_path / name / "photos").mkdir(parents=True)
        path = tmp_path / name / "photos" / "a.bmp"
        make_photo(seed).save(path)
        os.utime(path, (0, 0))
        monkeypatch.chdir(tmp_path / name)
        found.append(embed(Path("photos")).vectors)
    assert not np.allclose(found[0], found[1])


# Bad files


def test_a_bad_file_is_an_error_tried_again_and_mended(photos: Path) -> None:
    for name, data in {
        "0002a.jpg": b"",
        "zero.png": bytes(100),
        "cut.jpg": b"\xff\xd8\xff",
    }.items():
        (photos / name).write_bytes(data)
    (photos / "gone.png").symlink_to("nowhere.png")
    first = embed(photos)
    assert len(first) == N
    assert sorted(first.errors) == ["0002a.jpg", "cut.jpg", "gone.png", "zero.png"]
    assert first.errors["0002a.jpg"] == "empty file (0 bytes)"
    assert first.errors["gone.png"] == "it is a link to a file that does not exist"
    assert all(text and "None" not in text for text in first.errors.values())
    assert encoded(photos) == 0
    make_photo(7777).save(photos / "nowhere.png")
    (photos / "nowhere.png").rename(photos.parent / "nowhere.png")
    (photos / "gone.png").unlink()
    (photos / "gone.png").symlink_to("../nowhere.png")
    encoder = FakeEncoder()
    second = embed(photos, encoder)
    assert encoder.images == 1
    assert "gone.png" in second.keys
    assert len(second) == N + 1


def test_errors_of_a_complete_part_are_tried_again(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a permission was mended: same size, same time, so the same run."""

    def refuse(data: bytes, preprocess: object) -> np.ndarray:
        raise ImageError("read the image", "no permission to read the file")

    with monkeypatch.context() as context:
        context.setattr(shard, "load_pixels", refuse)
        broken = embed(photos)
    assert (len(broken), len(broken.errors)) == (0, N)
    # The second try is killed; what it finished is kept although the part was complete.
    encoder = FakeEncoder(stop_after=4)
    with pytest.raises(KeyboardInterrupt):
        embed(photos, encoder)
    again = FakeEncoder()
    assert len(embed(photos, again)) == N
    assert encoder.images + again.images == N


def test_all_images_bad(base: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for i in range(5):
        (tmp_path / "photos" / f"{i}.jpg").write_text("no image")
    for _ in range(2):
        found = embed(tmp_path / "photos")
        assert found.vectors.shape == (0, DIM)
        assert len(found.errors) == 5


def test_an_encoder_that_refuses_one_image_costs_only_that(photos: Path) -> None:
    Image.new("RGB", (40, 40), (255, 0, 0)).save(photos / "0003a.png")
    encoder = FakeEncoder()
    found = embed(photos, encoder)
    assert found.errors == {"0003a.png": "the encoder failed on it: it is all red"}
    assert len(found) == N
    assert encoder.images == N


class Nan(FakeEncoder):
    """Gives NaN for the second image of each batch."""

    def encode_images(self, pixels: np.ndarray) -> np.ndarray:
        vectors = super().encode_images(pixels)
        vectors[1:2] = np.nan
        return vectors


def test_nan_from_the_encoder_costs_only_that_image(photos: Path) -> None:
    found = embed(photos, Nan())
    assert len(found.errors) == 7
    assert set(found.errors.values()) == {"the encoder gave NaN or infinite numbers for it"}
    assert np.isfinite(found.vectors).all()
    assert encoded(photos) == 7


class Wide(FakeEncoder):
    def encode_images(self, pixels: np.ndarray) -> np.ndarray:
        return np.ones((len(pixels), 1), np.float32)


def test_an_encoder_of_another_width_than_it_says(photos: Path) -> None:
    with pytest.raises(EncoderError) as caught:
        embed(photos, Wide())
    assert str(caught.value) == (
        "cannot embed images with 'fake': it gave vectors of shape (4, 1) for 4 images. "
        "Its card says that they have 8 numbers each."
    )


def test_an_encoder_without_pixels(photos: Path) -> None:
    encoder = FakeEncoder()
    encoder.info = type(encoder.info)("ready", DIM, None, weights_sha256="x")
    with pytest.raises(EncoderError, match="it takes no pixels: it holds ready vectors"):
        embed(photos, encoder)


# Kills


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("stop_after", range(0, 7, 2))
def test_an_interrupted_run_goes_on(
    photos: Path, base: Path, monkeypatch: pytest.MonkeyPatch, stop_after: int, cache: bool
) -> None:
    (photos / "0001a.jpg").write_bytes(b"")
    wanted = fresh(photos, base, monkeypatch)
    first, second = FakeEncoder(stop_after=stop_after), FakeEncoder()
    with pytest.raises(KeyboardInterrupt):
        embed(photos, first, cache=cache)
    found = embed(photos, second, cache=cache)
    assert same(found, wanted)
    assert first.images + second.images == N
    assert first.images > 0 or stop_after == 0


def test_a_run_interrupted_again_and_again_ends(
    photos: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, total = fresh(photos, base, monkeypatch), 0
    for _ in range(20):
        encoder = FakeEncoder(stop_after=1)
        try:
            found = embed(photos, encoder)
        except KeyboardInterrupt:
            continue
        finally:
            total += encoder.images
        break
    assert same(found, wanted)
    assert total == N


KILLED = """
import sys, time
from pathlib import Path
from byname.images.sources import open_source
from byname.runs import embed_source
from tests.helpers import FakeEncoder

class Slow(FakeEncoder):
    def encode_images(self, pixels):
        if self.batches == int(sys.argv[2]):
            Path(sys.argv[3]).touch()
            time.sleep(60)
        return super().encode_images(pixels)

cache = len(sys.argv) < 5
embed_source(open_source(sys.argv[1]), Slow(), batch_size=4, shard_size=10, cache=cache)
"""


@pytest.mark.parametrize("cache", [True, False])
def test_a_killed_process_goes_on(
    photos: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: bool
) -> None:
    wanted, batches, sign = fresh(photos, base, monkeypatch), 4, tmp_path / "sign"
    arguments = [str(photos), str(batches), str(sign), *([] if cache else ["no cache"])]
    process = subprocess.Popen([sys.executable, "-c", KILLED, *arguments])
    for _ in range(400):
        if sign.exists() or process.poll() is not None:
            break
        time.sleep(0.05)
    assert sign.exists()
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    encoder = FakeEncoder()
    assert same(embed(photos, encoder, cache=cache), wanted)
    # Shards of 10 hold batches of 4, 4 and 2: four whole batches are 14 images.
    assert encoder.images == N - 14


# Files of one content


def make_copies(photos: Path, many: int = 5) -> int:
    """Copies and links of some photos, near each other and far apart; how many were added."""
    for i in range(many):
        for name in ("0000", "0004"):
            (photos / f"{name}-{i}.png").symlink_to(f"{name}.png")
        (photos / "sub" / f"9{i}.png").write_bytes((photos / "0000.png").read_bytes())
    return 3 * many


def test_files_of_one_content_are_encoded_once(photos: Path) -> None:
    added, counts = make_copies(photos), [0, 0]
    encoder = FakeEncoder()

    def progress(done: int, fresh: bool) -> None:
        counts[fresh] += done

    found = embed_source(
        open_source(photos), encoder, batch_size=BATCH, shard_size=10, progress=progress
    )
    assert (encoder.images, counts, len(found)) == (N, [added, N], N + added)
    vectors = dict(zip(found.keys, found.vectors, strict=True))
    for i in range(5):
        assert np.array_equal(vectors[f"0004-{i}.png"], vectors["0004.png"])
        assert np.array_equal(vectors[f"sub/9{i}.png"], vectors["0000.png"])
    # Each on its own, each image gets the same vector.
    single = FakeEncoder()
    assert same(embed(photos, single, cache=False), found)
    assert single.images == N + added


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_copies_change_no_vector(photos: Path, batch_size: int) -> None:
    make_copies(photos)
    encoder = FakeEncoder()
    found = embed(photos, encoder, batch_size=batch_size)
    assert encoder.images == N
    assert same(embed(photos, cache=False), found)


def test_a_copy_of_an_image_that_fails_fails_alike(photos: Path) -> None:
    for name in ("0000r.png", "0000s.png", "zr.png"):
        Image.new("RGB", (40, 40), (255, 0, 0)).save(photos / name)
    found = embed(photos)
    assert found.errors == dict.fromkeys(
        ["0000r.png", "0000s.png", "zr.png"], "the encoder failed on it: it is all red"
    )
    assert len(found) == N


class Mixing(FakeEncoder):
    """A vector depends on its batch in the last bits, as it does with a real graph."""

    def encode_images(self, pixels: np.ndarray) -> np.ndarray:
        vectors = super().encode_images(pixels)
        return vectors + 0.01 * len(pixels) + 0.01 * vectors.mean()


@pytest.mark.parametrize("stop_after", range(0, 7))
def test_an_interrupted_run_with_copies_goes_on_to_the_same_bits(
    photos: Path, base: Path, monkeypatch: pytest.MonkeyPatch, stop_after: int
) -> None:
    make_copies(photos)
    with monkeypatch.context() as context:
        context.setenv("BYNAME_CACHE", str(base) + "-fresh")
        wanted = embed(photos, Mixing())
    first, second = Mixing(stop_after=stop_after), Mixing()
    with pytest.raises(KeyboardInterrupt):
        embed(photos, first)
    assert same(embed(photos, second), wanted)
    assert first.images + second.images == N


def test_what_is_learnt_is_bounded_and_the_same_after_a_kill(
    photos: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_copies(photos)
    monkeypatch.setattr(local, "ReuseIndex", partial(ReuseIndex, learn_most=3))
    with monkeypatch.context() as context:
        context.setenv("BYNAME_CACHE", str(base) + "-fresh")
        once = Mixing()
        wanted = embed(photos, once)
    assert N < once.images < N + 15
    first, second = Mixing(stop_after=5), Mixing()
    with pytest.raises(KeyboardInterrupt):
        embed(photos, first)
    assert same(embed(photos, second), wanted)
    assert first.images + second.images == once.images


def test_the_index_forgets_the_oldest_between_shards(photos: Path, base: Path) -> None:
    plan = make_plan(open_source(photos), FakeEncoder(), base)
    index = ReuseIndex(plan, learn_most=2)
    rows = np.arange(3 * DIM, dtype=np.float16).reshape(3, DIM)
    for key, vector in zip((b"a", b"b", b"c"), rows, strict=True):
        index.learn(key * 16, vector)
    index.learn(b"a" * 16, rows[2])
    assert np.array_equal(index.find(b"a" * 16), rows[0])  # type: ignore[arg-type]
    index.trim()
    assert index.find(b"a" * 16) is None
    assert np.array_equal(index.find(b"c" * 16), rows[2])  # type: ignore[arg-type]
    wide = replace(plan, settings=replace(plan.settings, dim=1024))
    assert ReuseIndex(wide)._learn_most == 64 * 2**20 // (2048 + 256)


# Damage


def journal_of(photos: Path, base: Path) -> tuple[Path, bytes, FakeEncoder]:
    encoder = FakeEncoder(stop_after=2)
    with pytest.raises(KeyboardInterrupt):
        embed(photos, encoder)
    (path,) = files(base, "*.journal")
    return path, path.read_bytes(), encoder


def test_a_journal_cut_or_changed_anywhere(
    photos: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = fresh(photos, base, monkeypatch)
    path, data, _ = journal_of(photos, base)
    source, rng, counts = open_source(photos), random.Random(0), []
    (part,) = {p.parent for p in files(base, "*.journal")}

    def check(damaged: bytes) -> int:
        for old in part.glob("part-*"):
            old.unlink()
        path.write_bytes(damaged)
        encoder = FakeEncoder()
        found = embed_source(source, encoder, batch_size=BATCH, shard_size=10)
        assert same(found, wanted)
        return encoder.images

    counts = [check(data[:end]) for end in range(0, len(data), 100)]
    assert counts == sorted(counts, reverse=True)
    assert (counts[0], check(data)) == (N, N - 8)
    for _ in range(25):
        changed = bytearray(data)
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        assert check(bytes(changed)) in (N, N - 4, N - 8)
    assert check(data + bytes(5000)) == N - 8
    assert check(data + b"\xff" * 5000) == N - 8


def damage(part: Path, kind: str) -> None:
    parquet, mark = part.with_suffix(".parquet"), part.with_suffix(".json")
    data = bytearray(parquet.read_bytes())
    told = json.loads(mark.read_text())
    if kind == "json missing":
        mark.unlink()
    elif kind == "json damaged":
        mark.write_text("{")
    elif kind == "json deep":
        mark.write_text("[" * 200_000)
    elif kind == "json not utf-8":
        mark.write_bytes(b"\xff\xfe")
    elif kind == "json foreign":
        mark.write_text("[1]")
    elif kind == "json of another format":
        mark.write_text(json.dumps(told | {"format": "byname-part/1"}))
    elif kind == "parquet missing":
        parquet.unlink()
    elif kind == "both missing":
        parquet.unlink()
        mark.unlink()
    elif kind == "parquet cut":
        parquet.write_bytes(data[:-100])
    elif kind in ("parquet changed", "parquet changed without json"):
        half = slice(0, len(data) // 2)  # pages, no footer
        data[half] = bytes(x ^ 255 for x in data[half])
        parquet.write_bytes(data)
        if kind.endswith("json"):
            mark.unlink()
    elif kind == "parquet foreign":
        pq.write_table(pa.table({"a": [1]}), parquet)
        mark.unlink()
    else:
        table = pq.read_table(parquet)
        names = pa.array([f"x{k}" for k in table["file_name"].to_pylist()])
        pq.write_table(table.set_column(1, "file_name", names), parquet)
        mark.unlink()


@pytest.mark.parametrize(
    ("kind", "redone"),
    [
        ("json missing", 0),
        ("json damaged", 10),
        ("json not utf-8", 10),
        ("json deep", 10),
        ("json foreign", 10),
        ("json of another format", 10),
        ("parquet missing", 10),
        ("both missing", 10),
        ("parquet cut", 10),
        ("parquet changed", 10),
        ("parquet changed without json", 10),
        ("parquet foreign", 10),
        ("parquet of other names", 10),
    ],
)
def test_a_damaged_part_is_made_again(photos: Path, base: Path, kind: str, redone: int) -> None:
    wanted = embed(photos)
    damage(files(base, "part-00001.parquet")[0], kind)
    encoder = FakeEncoder()
    assert same(embed(photos, encoder), wanted)
    assert encoder.images == redone
    assert encoded(photos) == 0
    assert not files(base, "*.journal*")


@pytest.mark.parametrize(
    "kind", ["json missing", "parquet cut", "parquet changed", "parquet missing"]
)
def test_a_damaged_part_is_not_reused_by_another_run(photos: Path, base: Path, kind: str) -> None:
    first = embed(photos)
    damage(files(base, "part-00001.parquet")[0], kind)
    make_photo(100).save(photos / "z.png")
    encoder = FakeEncoder()
    found = embed(photos, encoder)
    assert encoder.images == 11
    assert np.array_equal(found.vectors[:-1], first.vectors)


@pytest.mark.parametrize("offset", range(0, 100, 5))
def test_no_changed_byte_of_a_part_yields_another_vector(
    photos: Path, base: Path, offset: int
) -> None:
    first = embed(photos)
    part = files(base, "part-00000.parquet")[0]
    data = bytearray(part.read_bytes())
    data[len(data) * offset // 100] ^= 0x55
    part.write_bytes(data)
    (photos / "z.jpg").write_bytes(b"")  # another run, which looks into this one
    assert np.array_equal(embed(photos).vectors, first.vectors)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"settings": null}', "\x00", '{"settings": 3}', "[" * 200_000]
)
def test_a_damaged_plan_is_passed_over(photos: Path, base: Path, text: str) -> None:
    embed(photos)
    (plan,) = files(base, "plan.json")
    plan.write_text(text)
    assert encoded(photos) == 0
    make_photo(100).save(photos / "z.png")
    assert encoded(photos) == N + 1


def test_a_retry_killed_while_the_mark_was_away(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """write_part drops the mark, writes the part, then the mark: killed at each of the steps."""
    for step in (1, 2):
        calls = []
        real = parts.atomic_path

        def stop(path: Path) -> object:
            calls.append(path)  # noqa: B023 - used within this turn
            if len(calls) == step:  # noqa: B023
                raise KeyboardInterrupt
            return real(path)  # noqa: B023

        with monkeypatch.context() as context:
            context.setattr(parts, "atomic_path", stop)
            with pytest.raises(KeyboardInterrupt):
                embed(photos)
    encoder = FakeEncoder()
    assert len(embed(photos, encoder)) == N
    assert encoder.images == N - 10


# The cache as a whole


def test_no_cache_leaves_nothing_and_uses_nothing(photos: Path, base: Path) -> None:
    first = embed(photos)
    before = sorted(base.rglob("*"))
    for _ in range(2):
        encoder = FakeEncoder()
        assert same(embed(photos, encoder, cache=False), first)
        assert encoder.images == N
        assert sorted(base.rglob("*")) == before


def test_an_unfinished_private_run_is_used_by_nobody_else(photos: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        embed(photos, FakeEncoder(stop_after=5), cache=False)
    assert encoded(photos) == N


def test_an_encoder_without_a_hash_of_its_weights_is_not_cached(photos: Path, base: Path) -> None:
    for _ in range(2):
        encoder = FakeEncoder(weights="")
        embed(photos, encoder)
        assert encoder.images == N
    assert not list((base / "runs").iterdir())


def test_a_cleared_cache_costs_only_time(photos: Path) -> None:
    first = embed(photos)
    clear_cache()
    encoder = FakeEncoder()
    assert same(embed(photos, encoder), first)
    assert encoder.images == N


class Clearing(FakeEncoder):
    """Somebody clears the cache while it works."""

    def encode_images(self, pixels: np.ndarray) -> np.ndarray:
        if self.batches in (1, 4):
            clear_cache()
        return super().encode_images(pixels)


def test_a_cache_cleared_in_the_middle(
    photos: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = fresh(photos, base, monkeypatch)
    assert same(embed(photos, Clearing()), wanted)


def test_a_full_disk_is_said(photos: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(parts.pq, "write_table", full)
    with pytest.raises(CacheError) as caught:
        embed(photos)
    assert str(caught.value) == (
        f"cannot keep the vectors in '{base}': No space left on device. "
        "Make room there, or set BYNAME_CACHE to another folder; then start the run again."
    )


def test_a_file_where_the_runs_should_be(photos: Path, base: Path) -> None:
    base.mkdir()
    (base / "runs").write_text("a file")
    with pytest.raises(CacheError, match="cannot keep the vectors in"):
        embed(photos)


def test_a_cache_that_cannot_be_used_is_a_warning(photos: Path, base: Path) -> None:
    base.write_text("a file")
    with pytest.warns(UserWarning, match="Going on without a cache"):
        assert len(embed(photos)) == N


TOGETHER = """
import sys, time
from byname.embeddings import Embeddings
from byname.images.sources import open_source
from byname.runs import embed_source
from tests.helpers import FakeEncoder

class Slow(FakeEncoder):
    def encode_images(self, pixels):
        time.sleep(0.05)
        return super().encode_images(pixels)

encoder = Slow()
cache = sys.argv[3] == "True"
found = embed_source(open_source(sys.argv[1]), encoder, batch_size=4, shard_size=10, cache=cache)
found.save(sys.argv[2])
print(encoder.images)
"""


@pytest.mark.parametrize("cache", [True, False])
def test_two_processes_at_once(photos: Path, tmp_path: Path, base: Path, cache: bool) -> None:
    outputs = [tmp_path / f"{i}.parquet" for i in range(3)]
    running = [
        subprocess.Popen(
            [sys.executable, "-c", TOGETHER, str(photos), str(output), str(cache)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for output in outputs
    ]
    counts = [int(process.communicate(timeout=60)[0]) for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    assert sum(counts) == (N if cache else 3 * N)
    first, *others = [Embeddings.load(output) for output in outputs]
    assert all(same(first, other) for other in others)
    assert len(first) == N
    assert cache or not list((base / "runs").iterdir())


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_no_file_stays_open(photos: Path) -> None:
    embed(photos)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for i in range(5):
        make_photo(200 + i).save(photos / "z.png")
        with pytest.raises(KeyboardInterrupt):
            embed(photos, FakeEncoder(stop_after=0), cache=i % 2 == 0)
        embed(photos)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before

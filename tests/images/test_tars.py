"""Images inside tars: whole, damaged and hostile ones."""

from __future__ import annotations

import random
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byname.errors import ImageError, SourceError
from byname.images.refs import ImageRef
from byname.images.sources import open_source

from .samples import encoded, keys, photo, put, refusal, write_tar

JPEG = encoded(photo(20, 10))


FILES = {
    "000002.jpg": JPEG,
    "000002.json": b"{}",
    "000002.cls": b"1",
    "./000001.png": b"png",
    "sub/3.JPG": b"three",
    "._000002.jpg": b"fork",
    "__MACOSX/4.jpg": b"mac",
}


def test_a_tar(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", FILES)
    source = open_source(path)
    assert keys(source) == ["000001.png", "000002.jpg", "sub/3.JPG"]
    assert (source.kind, source.root, source.warnings) == ("tar", str(path), ())
    assert [ref.read() for ref in source.refs] == [b"png", JPEG, b"three"]
    here = path.stat()
    assert {(r.size, r.mtime_ns) for r in source.refs} == {(here.st_size, here.st_mtime_ns)}
    with pytest.raises(ImageError, match="the file has 3 bytes, more than the limit of 2"):
        source.refs[0].read(limit=2)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tar_formats_links_and_long_names(tmp_path: Path, form: int) -> None:
    path, long = tmp_path / "s.tar", "d" * 60 + "/" + "n" * 90 + ".jpg"
    (tmp_path / "real.jpg").write_bytes(b"real")
    (tmp_path / "long.jpg").write_bytes(b"long")
    with tarfile.open(path, "w", format=form) as tar:
        tar.add(tmp_path / "real.jpg", "real.jpg")
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "real.jpg"
        tar.addfile(link)
        tar.add(tmp_path / "long.jpg", long)
    source = open_source(path)
    assert keys(source) == [long, "real.jpg"]
    assert [ref.read() for ref in source.refs] == [b"long", b"real"]


def test_several_tars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shards").mkdir()
    for number in range(3):
        write_tar(tmp_path / "shards" / f"s-{number:03d}.tar", {"1.jpg": b"%d" % number})
    monkeypatch.chdir(tmp_path)
    expected = ["s-000.tar/1.jpg", "s-001.tar/1.jpg", "s-002.tar/1.jpg"]
    for spec in ("shards", "shards/*.tar", "shards/s-{000..002}.tar", "shards/s-{000,001,002}.tar"):
        source = open_source(spec)
        assert (keys(source), source.kind) == (expected, "tar"), spec
        assert [ref.read() for ref in source.refs] == [b"0", b"1", b"2"]
    assert keys(open_source("**/*.tar")) == [f"shards/{key}" for key in expected]
    assert "'shards/s-003.tar' does not exist. Check the numbers in the braces" in (
        refusal("shards/s-{000..003}.tar")
    )
    put(tmp_path, "shards/s-000.tar", data=b"damaged")
    source = open_source("shards")
    assert keys(source) == expected[1:]
    assert source.warnings[0].startswith("the tar 's-000.tar' was left out: it is not a tar")


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_compressed_tars_are_refused(tmp_path: Path, mode: str) -> None:
    for name in (f"s.tar.{mode[2:]}", "s.tar"):
        text = refusal(write_tar(tmp_path / name, FILES, mode))
        assert "it is compressed, so its images cannot be read one by one. Decompress it" in text


def test_files_that_are_no_tar_or_hold_no_image(tmp_path: Path) -> None:
    put(tmp_path, "a.tar", data=b"hello" * 300)
    put(tmp_path, "b.tar", data=b"")
    assert "it is not a tar" in refusal(tmp_path / "a.tar")
    assert "it is not a tar" in refusal(tmp_path / "b.tar")
    text = refusal(write_tar(tmp_path / "c.tar", {"a.txt": b"1", "b.json": b"2"}))
    assert "no image is inside, only 2 other files" in text


def test_damaged_tars_keep_the_images_before_the_damage(tmp_path: Path) -> None:
    data = write_tar(
        tmp_path / "s.tar", {f"{i}.jpg": bytes([65 + i]) * 2000 for i in range(5)}
    ).read_bytes()
    step = 512 + 2048
    cut = tmp_path / "cut.tar"

    def outcome(raw: bytes) -> tuple[int, str]:
        cut.write_bytes(raw)
        source = open_source(cut)
        for place, ref in enumerate(source.refs):
            assert ref.read() == bytes([65 + place]) * 2000
        return len(source), " ".join(source.warnings)

    assert outcome(data) == (5, "")
    count, warning = outcome(data[: 2 * step + 512 + 1000])  # in the third image
    assert count == 2
    assert "is truncated after 2 whole files" in warning
    count, warning = outcome(data[: 2 * step + 100])  # in the third header
    assert (count, "is damaged at byte 5,120" in warning) == (2, True)
    count, warning = outcome(data[: 3 * step])  # between two images
    assert (count, "without its end mark" in warning) == (3, True)
    broken = bytearray(data)
    broken[2 * step : 2 * step + 512] = bytes(range(256)) * 2
    count, warning = outcome(bytes(broken))
    assert (count, "is damaged at byte 5,120" in warning) == (2, True)


def test_a_tar_that_is_cut_after_it_was_listed(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", {"a.jpg": bytes(5000)})
    ref = open_source(path).refs[0]
    path.write_bytes(path.read_bytes()[:1512])
    with pytest.raises(
        ImageError, match="its tar is truncated: 1,000 of its 5,000 bytes are there"
    ):
        ref.read()


def test_a_tar_that_is_replaced_after_it_was_listed(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", {"a.jpg": b"first", "b.jpg": b"second"})
    first, second = open_source(path).refs
    assert first.read() == b"first"
    write_tar(path, {"b.jpg": b"a longer one", "a.jpg": b"first", "c.jpg": bytes(5000)})
    for ref in (first, second):
        with pytest.raises(ImageError, match="its tar has changed since it was listed"):
            ref.read()
    # a reference that knows neither size nor time reads what is there
    assert ImageRef("a.jpg", str(path), 512, 5).read() == b"a lon"


def test_a_negative_size_does_not_go_round_in_circles(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", {"a.jpg": b"a", "b.jpg": b"b"})
    raw = bytearray(path.read_bytes())
    second = raw[1024:1536]
    second[124:136] = (2**96 - 1024).to_bytes(12, "big")  # base-256 for a negative number
    second[124] = 0xFF
    second[148:156] = b" " * 8
    second[148:156] = b"%06o\0 " % sum(second)
    raw[1024:1536] = second
    path.write_bytes(raw)
    source = open_source(path)
    assert keys(source) == ["a.jpg"]
    assert "is damaged" in source.warnings[0]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), cut=st.booleans())
def test_random_damage_raises_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, seed: int, cut: bool
) -> None:
    rng = random.Random(seed)
    path = write_tar(tmp_path_factory.mktemp("tar") / "s.tar", FILES)
    raw = bytearray(path.read_bytes())
    for _ in range(rng.randint(1, 20)):
        raw[rng.randrange(512 * 6)] = rng.randrange(256)
    path.write_bytes(raw[: rng.randrange(len(raw))] if cut else raw)
    try:
        source = open_source(path)
    except SourceError as error:
        assert "list" in str(error)  # noqa: PT017 - both outcomes are right
        return
    assert all(len(ref.read()) == ref.length for ref in source.refs)

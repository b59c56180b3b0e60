"""Listing: folders, files, globs, sequences; and reading what was listed."""

from __future__ import annotations

import itertools
import os
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from byname.errors import ImageError, SourceError
from byname.images.gather import finish
from byname.images.refs import key_of, name_of
from byname.images.sources import IMAGE_EXTENSIONS, ImageRef, open_source

from .samples import as_nobody, encoded, keys, open_folder, photo, put, refusal

JPEG = encoded(photo(20, 10))
posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX file names")


# Folders


def test_a_folder_is_listed_in_depth_and_in_order(tmp_path: Path) -> None:
    put(tmp_path, "b.JPG", "a/z.png", "a/B.jpeg", "a/c/d.TIFF", "Z.webp", "notes.txt", "a/é.gif")
    put(tmp_path, ".hidden.jpg", ".thumbs/a.jpg", "__MACOSX/a.jpg", "a/._z.png", "a/metadata.csv")
    (tmp_path / "folder.jpg").mkdir()
    put(tmp_path, "folder.jpg/in.bmp")
    source = open_source(tmp_path)
    assert keys(source) == [
        *("Z.webp", "a/B.jpeg", "a/c/d.TIFF", "a/z.png", "a/é.gif", "b.JPG", "folder.jpg/in.bmp")
    ]
    assert (source.kind, source.root, source.warnings, len(source)) == (
        "folder",
        str(tmp_path),
        (),
        7,
    )
    here = (tmp_path / "b.JPG").stat()
    ref = source.refs[5]
    assert (ref.size, ref.mtime_ns, ref.offset) == (1, here.st_mtime_ns, -1)
    assert ref.read() == b"x"


def test_every_extension_is_listed_in_any_case(tmp_path: Path) -> None:
    put(
        tmp_path,
        *(f"{e[1:]}{e}" for e in IMAGE_EXTENSIONS),
        *(f"X{e.upper()}" for e in IMAGE_EXTENSIONS),
    )
    assert len(open_source(tmp_path)) == 2 * len(IMAGE_EXTENSIONS)


def test_a_relative_folder_and_a_trailing_slash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(put(tmp_path, "photos/a.jpg").resolve())
    for spec in ("photos", "photos/", "./photos", Path("photos")):
        source = open_source(spec)
        assert (keys(source), source.root) == (["a.jpg"], str(Path.cwd() / "photos"))
    assert keys(open_source(".")) == ["photos/a.jpg"]


def test_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(put(tmp_path, "photos/a.jpg")))
    assert keys(open_source("~/photos")) == ["a.jpg"]


@posix
def test_links_are_followed_and_loops_are_not(tmp_path: Path) -> None:
    root = put(tmp_path, "root/a/1.jpg", "elsewhere/2.jpg") / "root"
    (root / "loop").symlink_to(root)
    (root / "a" / "up").symlink_to("..")
    (root / "self.jpg").symlink_to("self.jpg")
    (root / "selfdir").symlink_to("selfdir")
    (root / "other").symlink_to(tmp_path / "elsewhere")
    (root / "again").symlink_to(tmp_path / "elsewhere")
    (root / "one.jpg").symlink_to(root / "a" / "1.jpg")
    (root / "gone.jpg").symlink_to("nowhere.jpg")
    source = open_source(root)
    assert keys(source) == [
        *("a/1.jpg", "again/2.jpg", "gone.jpg", "one.jpg", "other/2.jpg", "self.jpg")
    ]
    assert keys(open_source(f"{root}/**/*.jpg")) == keys(source)
    reasons = {}
    for ref in source.refs:
        try:
            ref.read()
        except ImageError as error:
            reasons[ref.key] = str(error)
    assert reasons == {
        "gone.jpg": "it is a link to a file that does not exist",
        "self.jpg": "it is a link that leads back to itself",
    }


@posix
def test_names_that_are_not_utf8_or_hold_newlines(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path)
    try:
        for name in (
            *(b"caf\xe9.jpg", b"caf\\xe9.jpg", b"new\nline.jpg", b"back\\slash.jpg"),
            b"d\xff/x.jpg",
        ):
            path = os.path.join(folder, name)  # noqa: PTH118 - bytes
            os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
            with open(path, "wb") as stream:  # noqa: PTH123
                stream.write(JPEG)
    except OSError:
        pytest.skip("the file system takes only UTF-8 names")
    source = open_source(tmp_path)
    assert keys(source) == [
        *("back\\slash.jpg", "caf\\x5cxe9.jpg", "caf\\xe9.jpg", "d\\xff/x.jpg", "new\nline.jpg")
    ]
    assert source.warnings == ()
    listed = tmp_path / "l.txt"
    listed.write_text("\n".join(["caf\\xe9.jpg", "caf\\x5cxe9.jpg", "d\\xff/x.jpg"]))
    again = open_source(listed)
    # An entry that is a file's own name comes before one that is a key.
    assert keys(again) == ["caf\\x5cxe9.jpg", "d\\xff/x.jpg"]
    listed.unlink()
    for ref in source.refs:
        ref.key.encode("utf-8")
        assert ref.read() == JPEG
    assert keys(open_source(f"{tmp_path}/**/*.jpg")) == keys(source)
    given = open_source([ref.path for ref in source.refs])
    assert [ref.read() for ref in given.refs] == [JPEG] * 5


@posix
@given(st.binary(max_size=12).filter(lambda name: b"\0" not in name))
@example(b"a\\x5cxe9")
@example(b"\\\xe9\\x\xe9\\xe9")
@example(b"\\ud800")
def test_a_key_leads_back_to_its_name(raw: bytes) -> None:
    name = os.fsdecode(raw)
    key = key_of(name)
    assert name_of(key) == name
    assert key.encode("utf-8").decode() == key
    assert key.count("/") == name.count("/")


@posix
@given(st.text("\\xu5ce9d80" + chr(0xDCE9) + chr(0xD800), max_size=9))
def test_two_names_never_share_a_key(name: str) -> None:
    assert name_of(key_of(name)) == name


def test_which_of_two_stays_does_not_depend_on_their_order() -> None:
    refs = [ImageRef("a", f"/{p}", o) for p in "xyz" for o in (5, 0)]
    for order in itertools.permutations(refs):
        source = finish(list(order), "/", "tar")
        assert source.refs == (ImageRef("a", "/x", 0),)
    assert source.warnings == (
        "5 entries repeat the name of an earlier one and were left out (first: 'a')",
    )


@posix
def test_a_pipe_never_blocks(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    os.mkfifo(tmp_path / "list.txt")
    source = open_source(tmp_path)
    assert keys(source) == ["a.jpg", "pipe.jpg"]
    for ref in (source.refs[1], open_source(tmp_path / "pipe.jpg").refs[0]):
        with pytest.raises(ImageError, match=r"^not a regular file but a pipe \(FIFO\)$"):
            ref.read()
    assert "it is a pipe (FIFO) with the extension '.txt'" in refusal(tmp_path / "list.txt")
    with pytest.raises(ImageError, match="not a regular file but a device"):
        ImageRef("zero", "/dev/zero").read()
    with pytest.raises(ImageError, match="not a regular file but a folder"):
        ImageRef("folder", str(tmp_path)).read()


@posix
def test_what_an_ordinary_user_may_not_read() -> None:
    with open_folder() as root:
        put(root, "photos/a.jpg", "photos/closed.jpg", "photos/shut/b.jpg", "shut/c.jpg")
        put(root, "list.csv")
        (root / "photos" / "closed.jpg").chmod(0)
        (root / "photos" / "shut").chmod(0)
        (root / "shut").chmod(0)
        (root / "list.csv").chmod(0)

        def look() -> str:
            source = open_source(root / "photos")
            lines = [repr(keys(source)), *source.warnings]
            for ref in source.refs:
                try:
                    lines.append(ref.read().decode())
                except ImageError as error:
                    lines.append(str(error))
            for spec in (root / "shut", root / "shut" / "c.jpg", root / "list.csv"):
                try:
                    open_source(spec)
                except SourceError as error:
                    lines.append(str(error).replace(str(root), "ROOT"))
            return "\n".join(lines)

        assert as_nobody(look).split("\n") == [
            "['a.jpg', 'closed.jpg']",
            "the folder 'shut' was left out: Permission denied",
            "x",
            "no permission to read the file",
            "cannot list the images in 'ROOT/shut': Permission denied. "
            "Check the folder's permissions.",
            "cannot list the images in 'ROOT/shut/c.jpg': Permission denied. "
            "Check the path and its permissions.",
            "cannot read the list of images 'ROOT/list.csv': Permission denied. "
            "Check its permissions.",
        ]


def test_folders_without_images(tmp_path: Path) -> None:
    assert f"cannot list the images in '{tmp_path}': no file is there. Give a folder" in refusal(
        tmp_path
    )
    put(tmp_path, "a.txt", "b.TXT", "c/d.txt", "e.json", "README")
    text = refusal(tmp_path)
    assert "no image is there, only 5 other files (3 .txt, 1 .json, 1 without extension)" in (
        text.replace("1 without extension, 1 .json", "1 .json, 1 without extension")
    )
    assert "Images end in .apng .avif" in text
    put(tmp_path / "packed", "a.zip")
    assert "Unpack the archives first" in refusal(tmp_path / "packed")


def test_photos_of_kinds_that_are_not_read_are_a_warning(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", "b.HEIC", "c.heic", "d.svg", "e.txt", "s.tar")
    assert open_source(tmp_path).warnings == (
        "left out, as no kind that can be read: 2 .heic, 1 .svg; export as JPEG",
        "tars beside the images were not read: 1",
    )


def test_paths_that_lead_nowhere(tmp_path: Path) -> None:
    put(tmp_path, "photos/a.jpg", "data.xyz", "noext")
    text = refusal(tmp_path / "phtos")
    assert text == (
        f"cannot list the images in '{tmp_path}/phtos': it does not exist. Check the path. "
        f"Did you mean '{tmp_path}/photos'?"
    )
    assert f"nor does the folder '{tmp_path}/no/such'" in refusal(tmp_path / "no" / "such" / "x")
    assert "it does not exist" in refusal(tmp_path / "data.xyz" / "x")
    assert "it does not exist" in refusal("")
    assert "it does not exist" in refusal("a\0b")
    assert "URLs of the kind ftp:// are not read" in refusal("ftp://example.org/a.jpg")
    assert "it is a file with the extension '.xyz'. Give a folder, an image" in (
        refusal(tmp_path / "data.xyz")
    )
    assert "it is a file without extension" in refusal(tmp_path / "noext")


def test_one_image_file(tmp_path: Path) -> None:
    source = open_source(put(tmp_path, "in/A.Jpg") / "in" / "A.Jpg")
    assert (keys(source), source.kind) == (["A.Jpg"], "file")
    assert source.refs[0].read() == b"x"
    assert "has no columns" in refusal(tmp_path / "in" / "A.Jpg", image_column="image")
    assert "has no columns. Leave the column out" in refusal(tmp_path / "in", image_column="image")


# Globs


def test_globs(tmp_path: Path) -> None:
    put(
        tmp_path, "p/a.jpg", "p/b.png", "p/q/c.jpg", "p/q/r/d.jpg", "p/.h/e.jpg", "x.jpg", "p/n.txt"
    )
    base = f"{tmp_path}/"

    def found(pattern: str) -> list[str]:
        source = open_source(base + pattern)
        assert source.kind == "glob"
        assert all(ref.size == 1 for ref in source.refs)
        return keys(source)

    assert found("p/*") == ["a.jpg", "b.png"]
    assert found("p/*.jpg") == ["a.jpg"]
    assert found("p/**/*.jpg") == ["a.jpg", "q/c.jpg", "q/r/d.jpg"]
    assert found("**/[cd].jpg") == ["p/q/c.jpg", "p/q/r/d.jpg"]
    assert found("p/**") == ["a.jpg", "b.png", "q/c.jpg", "q/r/d.jpg"]
    assert found("**/q/**/*.jpg") == ["p/q/c.jpg", "p/q/r/d.jpg"]
    assert found("?/**/d.*") == ["p/q/r/d.jpg"]
    assert found("p/{a,b}.{jpg,png}".replace("{jpg,png}", "*")) == ["a.jpg", "b.png"]
    assert "no file matches the pattern" in refusal(base + "*.gif")
    assert "no file matches the pattern" in refusal(base + "none/**/*.jpg")
    assert "it matches folders only (1). Write '**/*.jpg'" in refusal(base + "p*")
    assert "no image is there, only 1 other file (1 .txt)" in refusal(base + "p/*.txt")


def test_globs_relative_to_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(put(tmp_path, "p/a.jpg", "b.jpg"))
    assert keys(open_source("**/*.jpg")) == ["b.jpg", "p/a.jpg"]
    assert keys(open_source("*.jpg")) == ["b.jpg"]
    assert keys(open_source("p/*.jpg")) == ["a.jpg"]
    assert [ref.read() for ref in open_source("**/*.jpg").refs] == [b"x", b"x"]


def test_an_existing_path_with_magic_characters_is_that_path(tmp_path: Path) -> None:
    put(tmp_path, "photos [2024]/a*.jpg", "{a,b}/c.jpg")
    assert keys(open_source(tmp_path / "photos [2024]")) == ["a*.jpg"]
    assert keys(open_source(tmp_path / "{a,b}")) == ["c.jpg"]


# Sequences


def test_sequences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(put(tmp_path, "a.jpg", "in/b.bin"))
    source = open_source(["in/b.bin", Path("a.jpg"), "./a.jpg", "gone.png"])
    assert keys(source) == ["a.jpg", "gone.png", "in/b.bin"]
    assert (source.kind, source.root) == ("list", "4 paths given")
    assert len(source.warnings) == 2
    assert source.refs[2].read() == b"x"
    assert "it is empty. Give at least one path" in refusal([])
    assert "item 1 is a int. Each item is the path of one image" in refusal(["a.jpg", 3])
    assert "it is a int. Give a path or a sequence of paths" in refusal(3)
    assert "it is a bytes" in refusal(b"a.jpg")
    assert "has no columns" in refusal(["a.jpg"], image_column="x")


# Reading and size


def test_reading_respects_the_limit(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", data=bytes(1000))
    ref = open_source(tmp_path).refs[0]
    assert len(ref.read(limit=1000)) == 1000
    with pytest.raises(ImageError, match="the file has 1,000 bytes, more than the limit of 999"):
        ref.read(limit=999)
    with pytest.raises(ImageError, match="its name holds a NUL character"):
        ImageRef("a", "a\0b").read()
    with pytest.raises(ImageError, match="the file cannot be read") as caught:
        ImageRef("a", str(tmp_path / ("n" * 300))).read()
    assert str(tmp_path) not in str(caught.value)


def test_order_does_not_depend_on_the_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, *(f"{i % 7}/{i}.jpg" for i in range(60)))
    expected = open_source(tmp_path)
    real = os.scandir

    class Shuffled(list[os.DirEntry[str]]):
        def __enter__(self) -> Shuffled:
            return self

        def __exit__(self, *_: object) -> None:
            self.clear()

    def scandir(path: str) -> Shuffled:
        with real(path) as entries:
            return Shuffled(sorted(entries, key=lambda e: hash(e.name) % 13))

    monkeypatch.setattr(os, "scandir", scandir)
    assert open_source(tmp_path) == expected


def test_a_reference_is_small() -> None:
    tracemalloc.start()
    refs = [ImageRef(f"{i}.jpg", f"/photos/{i}.jpg", -1, -1, i, i) for i in range(2000)]
    size = tracemalloc.get_traced_memory()[0] / len(refs)
    tracemalloc.stop()
    assert not hasattr(refs[0], "__dict__")
    assert size < 400  # a million: less than 0.4 GB


def test_real_photos(shared: Path) -> None:
    source = open_source(shared / "grocery" / "images")
    assert len(source) == 648
    assert source.refs[0].read(limit=10**7)[:2] == b"\xff\xd8"

"""Photos into class folders."""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, replace
from pathlib import Path

import pyarrow as pa
import pytest

import byname.sorter
from byname.errors import OutputError, SourceError, UsageError
from byname.images.sources import ImageRef, Source, open_source
from byname.rows import SCHEMA, Row, write_rows
from byname.sorter import MANIFEST, sort_photos
from tests.images.samples import put, write_tar


def row(name: str, label: str, class_id: str | None = None, decision: str = "accept") -> Row:
    return Row(name, 1, class_id or label, label, 0.5, 0.2, 1, label, decision, None)  # type: ignore[arg-type]


def output(tmp_path: Path, rows: list[Row], *, root: object = "photos", files: bool = True) -> Path:
    photos = tmp_path / "photos"
    photos.mkdir(exist_ok=True)
    for r in rows if files else []:
        place = photos / r.file_name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(r.file_name)
    path = tmp_path / "o.parquet"
    table = pa.Table.from_pylist([asdict(r) for r in rows], schema=SCHEMA)
    record = {"images": {"root": str(photos) if root == "photos" else root}}
    write_rows(table, path, record)
    return path


def placed(into: Path) -> list[str]:
    files = (p for p in into.rglob("*") if not p.is_dir() and p.name != MANIFEST)
    return sorted(p.relative_to(into).as_posix() for p in files)


ROWS = [
    row("a.jpg", "cat"),
    replace(row("a.jpg", "dog"), rank=2),
    row("sub/deep/b.jpg", "dog"),
    row("c.jpg", "cat", decision="reject"),
    row("d.jpg", "animal", decision="backoff"),
]
WANTED = ["_rejected/c.jpg", "animal/d.jpg", "cat/a.jpg", "dog/sub/deep/b.jpg"]


@pytest.mark.parametrize("how", ["link", "hardlink", "copy"])
def test_each_way(tmp_path: Path, how: byname.sorter.How) -> None:
    rows, into = output(tmp_path, ROWS), tmp_path / "new" / "sorted"
    assert sort_photos(rows, into, how=how) == {"placed": 4}
    assert placed(into) == WANTED
    source, target = tmp_path / "photos" / "a.jpg", into / "cat" / "a.jpg"
    assert target.read_text() == "a.jpg"
    assert target.is_symlink() == (how == "link")
    assert (target.stat().st_ino == source.stat().st_ino) == (how != "copy")
    if how == "link":
        assert target.readlink().is_absolute()
    # A second time nothing is touched.
    assert sort_photos(rows, into, how=how) == {"exists": 4}
    assert placed(into) == WANTED


def test_existing_files_and_dead_links_are_left_alone(tmp_path: Path) -> None:
    rows, into = output(tmp_path, ROWS[:3]), tmp_path / "sorted"
    (into / "cat").mkdir(parents=True)
    (into / "cat" / "a.jpg").write_text("mine")
    (into / "dog" / "sub" / "deep").mkdir(parents=True)
    (into / "dog" / "sub" / "deep" / "b.jpg").symlink_to("nowhere")
    assert sort_photos(rows, into, how="copy") == {"exists": 2}
    assert (into / "cat" / "a.jpg").read_text() == "mine"


def test_unreadable_and_missing_photos_are_counted(tmp_path: Path) -> None:
    bad = Row("bad.jpg", 1, *[None] * 7, "empty file (0 bytes)")
    rows = output(tmp_path, [*ROWS, bad])
    (tmp_path / "photos" / "a.jpg").unlink()
    (tmp_path / "photos" / "d.jpg").unlink()
    (tmp_path / "photos" / "d.jpg").mkdir()
    assert sort_photos(rows, tmp_path / "s") == {"unreadable": 1, "missing": 2, "placed": 2}


def test_labels_that_are_no_folder_names(tmp_path: Path) -> None:
    labels = {
        "1": "a/b", "2": "..", "3": "", "4": ".hidden", "5": "x" * 300, "6": "é" * 200,
        "7": "C:\\x", "8": "tail. ", "9": "line\nbreak", "10": "/etc/passwd",
    }  # fmt: skip
    rows = output(tmp_path, [row(f"{i}.jpg", label, i) for i, label in labels.items()])
    into = tmp_path / "s"
    assert sort_photos(rows, into) == {"placed": len(labels)}
    folders = {p.rsplit("/", 1)[1]: p.rsplit("/", 1)[0] for p in placed(into)}
    assert folders["1.jpg"] == "a_b"
    assert folders["4.jpg"] == "hidden"
    assert folders["5.jpg"] == "x" * 120
    assert folders["6.jpg"] == "é" * 60
    assert folders["7.jpg"] == "C_x"
    assert folders["8.jpg"] == "tail"
    assert folders["9.jpg"] == "line_break"
    assert folders["10.jpg"] == "_etc_passwd"
    assert sorted([folders["2.jpg"], folders["3.jpg"]]) == ["_ (2)", "_ (3)"]
    assert all(f.count("/") == 0 and f not in ("", ".", "..") for f in folders.values())


def test_two_classes_never_share_a_folder(tmp_path: Path) -> None:
    classes = [
        ("Cat", "1"), ("cat", "2"), ("Bat", "a/b"), ("Bat", "a:b"), ("_rejected", "9"),
        ("Cat (1)", "5"), ("y" * 200, "7"), ("y" * 201, "8"),
    ]  # fmt: skip
    rows = [row(f"{i}.jpg", label, k) for i, (label, k) in enumerate(classes)]
    rows.append(row("r.jpg", "Cat", "1", "reject"))
    into = tmp_path / "s"
    assert sort_photos(output(tmp_path, rows), into)["placed"] == len(rows)
    names = [p.name for p in into.iterdir() if p.is_dir()]
    assert len({n.casefold() for n in names}) == len(classes) + 1
    assert {"Cat (1)", "cat (2)", "Bat (a_b)", "Bat (a_b) 2", "_rejected", "_rejected (9)"} <= set(
        names
    )


def test_by_id(tmp_path: Path) -> None:
    rows = output(tmp_path, [row("a.jpg", "cat", "animal/cat"), row("b.jpg", "cat", "pet/cat")])
    sort_photos(rows, tmp_path / "s", by="id")
    assert placed(tmp_path / "s") == ["animal_cat/a.jpg", "pet_cat/b.jpg"]


@pytest.mark.parametrize("name", ["../../out.jpg", "/{}/out.jpg", "sub/../../../out.jpg"])
@pytest.mark.parametrize("how", ["link", "copy"])
def test_a_file_name_cannot_lead_out_of_the_target(
    tmp_path: Path, name: str, how: byname.sorter.How
) -> None:
    base = tmp_path / "a" / "b"
    (base / "photos" / "sub").mkdir(parents=True)
    name = name.replace("{}", str(tmp_path).strip("/"))
    target = (base / "photos" / name).resolve()
    target.write_text("photo")
    rows = output(base, [row(name, "cat")], files=False)
    before = set(tmp_path.rglob("*"))
    assert sort_photos(rows, base / "s", how=how) == {"placed": 1}
    fresh = set(tmp_path.rglob("*")) - before
    assert fresh
    fresh -= {base / "s", base / "s" / MANIFEST}
    assert all(base / "s" / "cat" in (p, *p.parents) for p in fresh)


@pytest.mark.parametrize("record", [None, "", "[]", "{}", '{"images": {"root": ""}}', "\x00"])
def test_without_a_record_the_folder_must_be_given(tmp_path: Path, record: str | None) -> None:
    rows = output(tmp_path, ROWS)
    beside = tmp_path / "o.parquet.run.json"
    beside.unlink() if record is None else beside.write_text(record)
    with pytest.raises(SourceError) as caught:
        sort_photos(rows, tmp_path / "s")
    assert str(caught.value) == (
        f"cannot sort the photos of '{rows}': 'o.parquet.run.json' does not name their folder. "
        "Give it with --images FOLDER."
    )
    assert sort_photos(rows, tmp_path / "s", images=tmp_path / "photos")["placed"] == 4


def test_a_photo_folder_that_is_gone(tmp_path: Path) -> None:
    rows = output(tmp_path, ROWS, root=str(tmp_path / "gone"))
    with pytest.raises(SourceError, match=r"gone' is no folder\. Use --images\."):
        sort_photos(rows, tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_a_file_in_the_targets_place(tmp_path: Path) -> None:
    rows = output(tmp_path, ROWS)
    (tmp_path / "s").write_text("a file")
    with pytest.raises(OutputError) as caught:
        sort_photos(rows, tmp_path / "s")
    text = str(caught.value)
    assert text.startswith(f"cannot put 'a.jpg' into '{tmp_path / 's' / 'cat'}': ")
    assert text.endswith("Choose another folder, or --how copy where links are not possible.")


def test_a_failed_copy_leaves_no_half_a_photo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, target: Path) -> None:
        target.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(byname.sorter.shutil, "copy2", full)
    with pytest.raises(OutputError, match="No space left on device"):
        sort_photos(output(tmp_path, ROWS), tmp_path / "s", how="copy")
    assert placed(tmp_path / "s") == []


def test_an_output_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="there is no such file"):
        sort_photos(tmp_path / "o.csv", tmp_path / "s")


# Sources of every kind


def classified(source: Source, into: Path, label: str = "cat", folder: str = "") -> Path:
    """An output of classify for a source, with all images of one class."""
    rows = [row(ref.key, label) for ref in source.refs]
    table = pa.Table.from_pylist([asdict(r) for r in rows], schema=SCHEMA)
    path = into / "out.csv"
    write_rows(
        table, path, {"images": {"root": source.root, "kind": source.kind}, "folder": folder}
    )
    return path


@pytest.mark.parametrize("how", ["link", "hardlink", "copy"])
def test_one_image(tmp_path: Path, how: byname.sorter.How) -> None:
    put(tmp_path, "in/a.jpg", "in/b.jpg")
    rows = classified(open_source(tmp_path / "in" / "a.jpg"), tmp_path)
    assert sort_photos(rows, tmp_path / "s", how=how) == {"placed": 1}
    assert placed(tmp_path / "s") == ["cat/a.jpg"]


def test_a_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the list, else in the folder of that time, else by its own path."""
    put(tmp_path, "lists/in/a.jpg", data=b"beside")
    put(tmp_path, "cwd/in/a.jpg", "cwd/in/b.jpg", data=b"cwd")
    put(tmp_path, "far/c.jpg", "far/d.jpg", "off/d.jpg", data=b"far")
    outside = [str(tmp_path / name) for name in ("far/c.jpg", "far/d.jpg", "off/d.jpg")]
    path = tmp_path / "lists" / "l.txt"
    path.write_text("\n".join(["in/a.jpg", "in/b.jpg", "gone.jpg", *outside]))
    monkeypatch.chdir(tmp_path / "cwd")
    rows = classified(open_source(path), tmp_path, folder=str(tmp_path / "cwd"))
    monkeypatch.chdir(tmp_path)
    assert sort_photos(rows, tmp_path / "s", how="copy") == {"placed": 5, "missing": 1}
    found = placed(tmp_path / "s")
    assert found[0] == "cat/c.jpg"
    assert found[3:] == ["cat/in/a.jpg", "cat/in/b.jpg"]
    assert all(re.fullmatch(r"cat/d-[0-9a-f]{8}\.jpg", name) for name in found[1:3])
    assert (tmp_path / "s" / "cat" / "in" / "a.jpg").read_bytes() == b"beside"
    assert sort_photos(rows, tmp_path / "s", how="copy") == {"exists": 5, "missing": 1}


@pytest.mark.parametrize("spec", ["x.tar", "{x,y}.tar", "folder"])
def test_tars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str) -> None:
    files = {"a.jpg": b"first", "sub/b.jpg": b"second"}
    (tmp_path / "folder").mkdir()
    for path in ("x.tar", "y.tar", "folder/x.tar"):
        write_tar(tmp_path / path, files)
    monkeypatch.chdir(tmp_path)
    source = open_source(spec)
    rows = classified(source, tmp_path, folder=str(tmp_path))
    monkeypatch.chdir("/")
    for how in ("link", "hardlink"):
        with pytest.raises(UsageError) as caught:
            sort_photos(rows, tmp_path / "s", how=how)  # type: ignore[arg-type]
        assert str(caught.value) == (
            f"cannot sort the photos of '{rows}' by {how}: they lie inside a file (tar, Parquet) "
            "or behind a URL, where no link can lead. Use --how copy."
        )
    assert not (tmp_path / "s").exists()
    assert sort_photos(rows, tmp_path / "s", how="copy") == {"placed": len(source)}
    assert placed(tmp_path / "s") == [f"cat/{ref.key}" for ref in source.refs]
    for ref in source.refs:
        assert (tmp_path / "s" / "cat" / ref.key).read_bytes() == files[
            "sub/b.jpg" if ref.key.endswith("b.jpg") else "a.jpg"
        ]
    rows = classified(source, tmp_path, "dog", folder=str(tmp_path))
    assert sort_photos(rows, tmp_path / "s", how="copy") == {"moved": len(source)}
    assert placed(tmp_path / "s") == [f"dog/{ref.key}" for ref in source.refs]


def test_a_tar_given_by_hand(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "x.tar", {"a.jpg": b"first"})
    rows = classified(open_source(tar), tmp_path)
    tar.rename(tmp_path / "y.tar")
    with pytest.raises(SourceError, match=r": '.*x\.tar': it does not exist\. Use --images\."):
        sort_photos(rows, tmp_path / "s", how="copy")
    counts = sort_photos(rows, tmp_path / "s", how="copy", images=tmp_path / "y.tar")
    assert counts == {"placed": 1}


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX file names")
@pytest.mark.parametrize("how", ["link", "copy"])
def test_names_that_are_not_utf8(tmp_path: Path, how: byname.sorter.How) -> None:
    names = {b"caf\xe9.jpg": "cat/caf\\xe9.jpg", b"caf\\xe9.jpg": "cat/caf\\x5cxe9.jpg"}
    names |= {b"d\xff/x.jpg": "cat/d\\xff/x.jpg", b"back\\slash.jpg": "cat/back\\slash.jpg"}
    photos = tmp_path / "ph\udcf6tos"
    try:
        for name in names:
            path = photos / os.fsdecode(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(name)
    except OSError:
        pytest.skip("the file system takes only UTF-8 names")
    source = open_source(photos)
    assert source.warnings == ()
    rows = classified(source, tmp_path)
    assert sort_photos(rows, tmp_path / "s", how=how) == {"placed": 4}
    assert placed(tmp_path / "s") == sorted(names.values())
    for name, target in names.items():
        assert (tmp_path / "s" / target).read_bytes() == name


# Sorting again


@pytest.mark.parametrize("how", ["link", "hardlink", "copy"])
def test_a_changed_answer_moves_the_photo(tmp_path: Path, how: byname.sorter.How) -> None:
    into = tmp_path / "s"
    assert sort_photos(output(tmp_path, ROWS), into, how=how) == {"placed": 4}
    changed = [replace(ROWS[0], label="dog", class_id="dog"), *ROWS[2:4], row("new.jpg", "dog")]
    rows = output(tmp_path, changed)
    assert sort_photos(rows, into, how=how) == {"moved": 1, "exists": 2, "placed": 1}
    # d.jpg is no more among the rows: where it belongs nobody said.
    assert placed(into) == [
        "_rejected/c.jpg", "animal/d.jpg", "dog/a.jpg", "dog/new.jpg", "dog/sub/deep/b.jpg",
    ]  # fmt: skip
    assert (into / "dog" / "a.jpg").read_text() == "a.jpg"
    assert sort_photos(output(tmp_path, ROWS), into, how=how) == {"moved": 1, "exists": 3}
    assert (into / "cat" / "a.jpg").read_text() == "a.jpg"
    assert not (into / "dog" / "a.jpg").exists()
    told = json.loads((into / MANIFEST).read_text())
    assert told["format"] == "byname-sorted/1"
    assert sorted(told["files"]) == placed(into)
    assert told["files"]["cat/a.jpg"]["source"] == str(tmp_path / "photos" / "a.jpg")


def test_another_way_of_placing_moves_too(tmp_path: Path) -> None:
    into = tmp_path / "s"
    for label, how in (("a", "link"), ("b", "copy"), ("c", "hardlink"), ("d", "link")):
        counts = sort_photos(output(tmp_path, [row("x.jpg", label)]), into, how=how)  # type: ignore[arg-type]
        assert counts == {"placed" if label == "a" else "moved": 1}
        assert placed(into) == [f"{label}/x.jpg"]
    assert (tmp_path / "photos" / "x.jpg").read_text() == "x.jpg"


def changed_target(into: Path, photos: Path, how: str) -> Path:
    """What somebody else put in place of the photo that byname placed."""
    target = into / "cat" / "a.jpg"
    if how == "link":
        target.unlink()
        target.symlink_to(photos / "sub" / "deep" / "b.jpg")
    elif how == "hardlink":
        (photos / "a.jpg").unlink()
        (photos / "a.jpg").write_text("another")  # so the old one is the last of its kind
    else:
        target.write_text("edited by hand")
    return target


@pytest.mark.parametrize("how", ["link", "hardlink", "copy"])
def test_what_was_changed_since_is_left_alone(tmp_path: Path, how: byname.sorter.How) -> None:
    into = tmp_path / "s"
    sort_photos(output(tmp_path, ROWS), into, how=how)
    rows = output(tmp_path, [row("a.jpg", "dog")])
    target = changed_target(into, tmp_path / "photos", how)
    before = target.read_text()
    assert sort_photos(rows, into, how=how) == {"placed": 1}
    assert target.read_text() == before
    assert (into / "dog" / "a.jpg").is_file()


@pytest.mark.parametrize("how", ["link", "hardlink", "copy"])
def test_a_class_folder_that_leads_to_the_photos(tmp_path: Path, how: byname.sorter.How) -> None:
    into, photos = tmp_path / "s", tmp_path / "photos"
    sort_photos(output(tmp_path, [row("a.jpg", "cat")]), into, how=how)
    (into / "cat" / "a.jpg").unlink()
    (into / "cat").rmdir()
    (into / "cat").symlink_to(photos)
    assert sort_photos(output(tmp_path, [row("a.jpg", "dog")]), into, how=how) == {"placed": 1}
    assert (photos / "a.jpg").read_text() == "a.jpg"


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "[" * 200_000, '{"format": "byname-sorted/1", "files": [1]}']
)
def test_a_damaged_manifest_removes_nothing(tmp_path: Path, text: str) -> None:
    into = tmp_path / "s"
    sort_photos(output(tmp_path, ROWS[:1]), into)
    (into / MANIFEST).write_text(text)
    assert sort_photos(output(tmp_path, [row("a.jpg", "dog")]), into) == {"placed": 1}
    assert placed(into) == ["cat/a.jpg", "dog/a.jpg"]


def test_a_manifest_cannot_lead_out_of_the_folder(tmp_path: Path) -> None:
    into, source = tmp_path / "s", tmp_path / "photos" / "a.jpg"
    rows = output(tmp_path, ROWS[:1])
    into.mkdir()
    link = tmp_path / "mine.jpg"
    link.symlink_to(source)
    entry = {"source": str(source), "how": "link", "link": str(source)}
    files = dict.fromkeys(("../mine.jpg", str(link), "cat/../../mine.jpg"), entry)
    (into / MANIFEST).write_text(json.dumps({"format": "byname-sorted/1", "files": files}))
    assert sort_photos(rows, into) == {"placed": 1}
    assert link.is_symlink()


def test_what_was_placed_before_an_error_is_known_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    into, rows = tmp_path / "s", output(tmp_path, ROWS)
    real = byname.sorter._place

    def stop(ref: ImageRef, target: Path, how: byname.sorter.How) -> None:
        if target.name == "c.jpg":
            raise KeyboardInterrupt
        real(ref, target, how)

    with monkeypatch.context() as context:
        context.setattr(byname.sorter, "_place", stop)
        with pytest.raises(KeyboardInterrupt):
            sort_photos(rows, into)
    assert placed(into) == ["cat/a.jpg", "dog/sub/deep/b.jpg"]
    assert sort_photos(output(tmp_path, [row("a.jpg", "dog")]), into) == {"moved": 1}
    assert placed(into) == ["dog/a.jpg", "dog/sub/deep/b.jpg"]


def test_one_photo_under_two_keys_is_placed_twice(tmp_path: Path) -> None:
    put(tmp_path, "photos/a.jpg")
    (tmp_path / "l.txt").write_text(f"photos/a.jpg\n{tmp_path}/photos/a.jpg\n")
    rows = classified(open_source(tmp_path / "l.txt"), tmp_path)
    for wanted in ({"placed": 2}, {"exists": 2}):
        assert sort_photos(rows, tmp_path / "s") == wanted
        assert placed(tmp_path / "s") == ["cat/a.jpg", "cat/photos/a.jpg"]


@pytest.mark.parametrize("how", ["link", "hardlink", "copy"])
def test_another_photo_of_the_same_name_is_placed_beside(
    tmp_path: Path, how: byname.sorter.How
) -> None:
    outputs = []
    for folder in ("pa", "pb"):
        put(tmp_path, f"{folder}/1.jpg", data=folder.encode())
        (tmp_path / f"of {folder}").mkdir()
        source = open_source(tmp_path / folder)
        outputs.append(classified(source, tmp_path / f"of {folder}", folder=str(tmp_path / folder)))
    into = tmp_path / "both"
    for wanted in ({"placed": 1}, {"exists": 1}):
        for rows in outputs:
            assert sort_photos(rows, into, how=how) == wanted
    kept = {(into / name).read_bytes(): name for name in placed(into)}
    assert set(kept) == {b"pa", b"pb"}
    assert kept[b"pa"] == "cat/1.jpg"
    assert re.fullmatch(r"cat/1-[0-9a-f]{8}\.jpg", kept[b"pb"])
    # A changed answer moves it, whatever its name has become.
    table = byname.sorter.read_rows(outputs[1]).to_pylist()
    rows = [replace(Row(**r), class_id="dog", label="dog") for r in table]
    record = json.loads((outputs[1].parent / (outputs[1].name + ".run.json")).read_text())
    write_rows(pa.Table.from_pylist([asdict(r) for r in rows], SCHEMA), outputs[1], record)
    assert sort_photos(outputs[1], into, how=how) == {"moved": 1}
    assert placed(into) == ["cat/1.jpg", "dog/1.jpg"]


def test_photos_that_were_moved_are_not_placed_again(tmp_path: Path) -> None:
    rows, into = output(tmp_path, ROWS[:1]), tmp_path / "s"
    assert sort_photos(rows, into, how="copy") == {"placed": 1}
    (tmp_path / "photos").rename(tmp_path / "elsewhere")
    again = sort_photos(rows, into, how="copy", images=tmp_path / "elsewhere")
    assert again == {"exists": 1}

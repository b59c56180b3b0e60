"""Photos into class folders."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pyarrow as pa
import pytest

import byname.sorter
from byname.errors import OutputError, SourceError
from byname.rows import SCHEMA, Row, write_rows
from byname.sorter import sort_photos


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
    return sorted(p.relative_to(into).as_posix() for p in into.rglob("*") if not p.is_dir())


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
    names = [p.name for p in into.iterdir()]
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
    assert all(p == base / "s" or base / "s" / "cat" in (p, *p.parents) for p in fresh)


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

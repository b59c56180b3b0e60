"""The command line as a user meets it: outputs, exit codes, and every error's words."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import zlib
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from byname.rows import SCHEMA
from tests.commands import Run
from tests.marks import needs_mini, write_photo


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Photos of their own for each test, so that no cache knows them."""
    folder = tmp_path / "photos"
    own = zlib.crc32(str(tmp_path).encode()) % 200
    for i, colour in enumerate([(255, 10, own), (own, 255, 10), (10, own, 255)]):
        write_photo(folder / f"{i}.png", colour)
    return folder


def test_version_without_loading_anything_heavy(run: Run) -> None:
    import byname

    assert run("--version") == (0, f"byname {byname.__version__}\n", "")


def test_help_names_every_verb(run: Run) -> None:
    out = run("--help").out
    for verb in ["classify", "embed", "demo", "list", "cache", "doctor", "taxonomy", "sort"]:
        assert verb in out


@needs_mini
def test_classify_writes_rows_and_the_record(run: Run, photos: Path, tmp_path: Path) -> None:
    (photos / "broken.jpg").write_text("this is text")
    output = tmp_path / "out.csv"
    arguments = ("classify", photos, "-c", "apple,sky", "-e", "mini", "-r", "plain", "-k", 2)
    first = run(*arguments, "-o", output)
    assert first.code == 0, first.err
    rows = list(csv.DictReader(output.open()))
    assert list(rows[0]) == SCHEMA.names
    assert [(r["file_name"], r["rank"]) for r in rows] == [
        ("0.png", "1"),
        ("0.png", "2"),
        ("1.png", "1"),
        ("1.png", "2"),
        ("2.png", "1"),
        ("2.png", "2"),
        ("broken.jpg", "1"),
    ]
    assert rows[-1]["error"].startswith("not an image")
    assert rows[-1]["class_id"] == ""
    record = json.loads((tmp_path / "out.csv.run.json").read_text())
    assert record["counts"]["encoded"] == 3
    assert record["counts"]["errors"] == 1
    assert record["encoder"]["id"] == "mini"
    assert record["recipe"]["stages"]["weigh"] == "mean"
    assert "1 could not be read" in first.err
    before = output.read_bytes()
    second = run(*arguments, "-o", output)
    assert second.code == 0
    assert output.read_bytes() == before
    record = json.loads((tmp_path / "out.csv.run.json").read_text())
    assert record["counts"]["from_cache"] == 3
    third = run(*arguments, "-o", "-", "-q")
    assert third.out == before.decode()
    assert third.err == ""


@needs_mini
def test_embeddings_file_in_place_of_images(run: Run, photos: Path, tmp_path: Path) -> None:
    vectors = tmp_path / "v.parquet"
    assert run("embed", photos, "-o", vectors, "-e", "mini", "-q").code == 0
    direct = run("classify", photos, "-c", "apple,sky", "-e", "mini", "-o", "-", "-q")
    stored = run("classify", vectors, "-c", "apple,sky", "-e", "mini", "-o", "-", "-q")
    assert stored.code == 0, stored.err
    assert stored.out == direct.out
    again = run("embed", vectors, "-o", tmp_path / "w.parquet", "-e", "mini")
    assert (again.code, "it holds vectors already" in again.err) == (2, True)


@needs_mini
def test_levels_lineage_templates_and_reject(run: Run, photos: Path, tmp_path: Path) -> None:
    classes = tmp_path / "classes.csv"
    classes.write_text("group,name\nfruit,apple\nfruit,pear\nworld,sky\nworld,sea\n")
    output = tmp_path / "out.parquet"
    told = run(
        "classify",
        photos,
        "-c",
        classes,
        "-e",
        "mini",
        "--lineage",
        "group,name",
        "--level",
        "group",
        "--template",
        "{}",
        "--template",
        "a {}",
        "--decide",
        "reject[min_probability=0.999]",
        "-o",
        output,
    )
    assert told.code == 0, told.err
    rows = pq.read_table(output).to_pylist()
    assert {r["class_id"] for r in rows} <= {"fruit", "world"}
    assert {r["level"] for r in rows} == {1}
    assert {r["decision"] for r in rows} == {"reject"}
    sorted_ = run("sort", output, "--into", tmp_path / "sorted", "--how", "copy")
    assert (sorted_.code, sorted_.out) == (0, "3 placed\n")
    assert len(list((tmp_path / "sorted" / "_rejected").iterdir())) == 3


@needs_mini
def test_a_table_is_shown_without_an_output(run: Run, photos: Path) -> None:
    told = run("classify", photos, "-c", "apple,[bold]sky\x1b[31m", "-e", "mini")
    assert told.code == 0, told.err
    assert "0.png" in told.out
    assert "\x1b" not in told.out + told.err, "class names are inert on the terminal"


@needs_mini
def test_all_images_unreadable_is_a_failure_but_the_rows_are_written(
    run: Run, tmp_path: Path
) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "a.jpg").write_bytes(b"")
    told = run("classify", tmp_path / "p", "-c", "a,b", "-e", "mini", "-o", tmp_path / "o.csv")
    assert told.code == 2
    assert "none of the 1 could be read" in told.err
    assert "empty file (0 bytes)" in (tmp_path / "o.csv").read_text()


@needs_mini
def test_lists(run: Run) -> None:
    names = {row["id"]: row for row in json.loads(run("list", "encoders", "--json").out)}
    assert names["mini"]["offline"] is True
    assert {"licence", "size_mb", "input_size"} <= set(names["mini"])
    recipes = [row["name"] for row in json.loads(run("list", "recipes", "--json").out)]
    assert {"plain", "ensemble", "mean_similarity"} <= set(recipes)
    assert "reject" in run("list", "members").out
    told = run("list", "colours")
    assert (told.code, "there is no such list" in told.err) == (2, True)


def test_encoders_by_pattern(run: Run) -> None:
    told = run("list", "encoders", "NOTHING")
    assert (told.code, told.out) == (0, "")
    assert "no encoder matches 'NOTHING': give a name or a part of it with stars" in told.err
    assert json.loads(run("list", "encoders", "NOTHING", "--json").out) == []
    told = run("list", "encoders", "BMC-clip")
    assert "?" in told.out
    assert "? = not known" in told.err


@needs_mini
def test_cache_and_doctor(run: Run, photos: Path) -> None:
    run("classify", photos, "-c", "a,b", "-e", "mini", "-q", "-o", "-")
    assert "runs" in run("cache").out
    told = run("cache", "--clear", "--kind", "runs")
    assert (told.code, told.out.startswith("freed ")) == (0, True)
    assert "runs" not in run("cache").out
    assert "the cache holds no such part" in run("cache", "--clear", "--kind", "runs").err
    report = json.loads(run("doctor", "--json", "--no-network").out)
    assert "mini" in report["encoders_offline"]
    assert report["speed"]["matrix_gflops"] > 0
    assert "pip install" in run("doctor", "--no-network").out


def test_taxonomy_verbs(run: Run, tmp_path: Path) -> None:
    tree = tmp_path / "tree.json"
    tree.write_text('{"name": "all", "children": [{"name": "x", "children": [{"name": "a"}]}]}')
    told = run("taxonomy", "check", tree)
    assert told.code == 0
    assert "warning:" in told.out
    assert "1 classes, height 2: usable" in told.out
    stats = json.loads(run("taxonomy", "stats", tree, "--json").out)
    assert stats["leaves"] == 1
    assert stats["lca_height_histogram"] == {"0": 1}
    assert run("taxonomy", "convert", tree, tmp_path / "t.csv").code == 0
    again = json.loads(run("taxonomy", "stats", tmp_path / "t.csv", "--json").out)
    assert again["lca_height_histogram"] == {"0": 1}


BAD: list[tuple[str, tuple[str, ...], str]] = [
    ("missing folder", ("classify", "nowhere/", "-c", "a,b"), "nowhere"),
    ("folder without images", ("classify", "empty", "-c", "a,b"), "no file is there"),
    ("names not UTF-8", ("classify", "photos", "-c", "latin.txt"), "UTF-8"),
    ("empty classes", ("classify", "photos", "-c", "void.txt"), "void.txt"),
    ("duplicate ids", ("classify", "photos", "-c", "twice.csv"), "'7'"),
    ("cycle", ("classify", "photos", "-c", "cycle.csv"), "cycle"),
    ("classes file missing", ("classify", "photos", "-c", "names.txt"), "names.txt"),
    ("unknown encoder", ("classify", "photos", "-c", "a,b", "-e", "minni"), "Did you mean mini"),
    ("incomplete encoder", ("classify", "photos", "-c", "a,b", "-e", "onnx:half"), "textual.onnx"),
    ("no output folder", ("classify", "photos", "-c", "a,b", "-o", "no/o.csv"), "does not exist"),
    ("unknown ending", ("classify", "photos", "-c", "a,b", "-o", "o.xlsx"), "'.xlsx'"),
    ("unknown recipe", ("classify", "photos", "-c", "a,b", "-e", "mini", "-r", "x"), "Known"),
    ("k of zero", ("classify", "photos", "-c", "a,b", "-k", "0"), "--help"),
    ("no classes", ("classify", "photos"), "--classes"),
    ("glob without quotes", ("classify", "a.png", "b.png", "-c", "a"), "Put a glob in quotes."),
    ("classes of the web", ("classify", "photos", "-c", "https://a.org/c.csv"), "it is a URL"),
    ("unknown verb", ("clasify",), "clasify"),
    ("unknown option", ("classify", "photos", "-c", "a,b", "--colour"), "--colour"),
]


@pytest.mark.parametrize(("arguments", "words"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_bad_arguments_are_one_line_and_exit_code_2(
    arguments: tuple[str, ...],
    words: str,
    run: Run,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("latin.txt").write_bytes("caf\xe9\n".encode("latin-1"))
    Path("void.txt").write_text("\n")
    Path("twice.csv").write_text("id,name\n7,a\n7,b\n")
    Path("cycle.csv").write_text("id,name,parent\na,a,b\nb,b,a\n")
    Path("half").mkdir()
    (Path("half") / "visual.onnx").write_bytes(b"")
    told = run(*arguments)
    assert told.code == 2
    lines = told.err.strip().splitlines()
    assert lines[-1].startswith("error: ")
    assert words in lines[-1]
    assert "Traceback" not in told.err


def test_read_only_output_folder(run: Run, photos: Path, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere; tests/test_rows.py checks it as another user")
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    told = run("classify", photos, "-c", "a,b", "-o", folder / "o.csv")
    assert (told.code, "cannot be written to" in told.err) == (2, True)


def test_the_default_encoder_is_never_replaced_silently(run: Run, photos: Path) -> None:
    told = run("classify", photos, "-c", "a,b")
    assert told.code == 2
    assert "--encoder mini" in told.err
    assert "hf download" in told.err


def test_a_closed_pipe_is_no_error(photos: Path) -> None:
    command = f"{sys.executable} -m byname.cli taxonomy stats a,b --json | head -c 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr

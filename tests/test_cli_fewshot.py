"""``byname fewshot``: every method on photos and stored vectors, its record, what it refuses."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from byname.ops import unit
from byname.rows import SCHEMA
from tests.commands import Run
from tests.helpers import make_photos

NAMES = ("cat", "dog", "owl")
COUNT = 60


class Made(NamedTuple):
    photos: Path
    encoder: Path
    keys: list[str]
    truth: dict[str, str]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Photos of three classes, and an encoder that takes about half of the dogs for cats."""
    photos = make_photos(tmp_path / "photos", COUNT)
    keys = sorted(p.relative_to(photos).as_posix() for p in photos.rglob("*.png"))
    rng = np.random.default_rng(0)
    E = np.eye(8)
    y = np.arange(COUNT) % 3
    images = unit(E[y] + 0.05 * rng.standard_normal((COUNT, 8)))
    words = unit(np.stack([E[0] + E[1], E[1] + E[3], E[2]]))
    folder = tmp_path / "encoder"
    folder.mkdir()
    np.save(folder / "texts.npy", words.astype(np.float32))
    (folder / "texts.json").write_text(json.dumps([f"a {name}" for name in NAMES]))
    np.save(folder / "images.npy", images.astype(np.float32))
    (folder / "images.json").write_text(json.dumps(keys))
    return Made(photos, folder, keys, {key: NAMES[k] for key, k in zip(keys, y, strict=True)})


def labels(made: Made, tmp_path: Path, shots: int, header: str = "file_name,label") -> Path:
    path = tmp_path / f"labels{shots}.csv"
    mine = [
        key for name in NAMES for key in [k for k in made.keys if made.truth[k] == name][:shots]
    ]
    path.write_text("\n".join([header, *(f"{key},{made.truth[key]}" for key in mine)]) + "\n")
    return path


def command(made: Made, support: object, *more: object) -> list[object]:
    options = ["--classes", ",".join(NAMES), "-e", f"precomputed:{made.encoder}"]
    return ["fewshot", made.photos, *options, "--template", "a {}", "--support", support, *more]


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def right(rows: list[dict[str, str]], made: Made) -> float:
    return float(np.mean([row["label"] == made.truth[row["file_name"]] for row in rows]))


@pytest.mark.parametrize("method", ["gaussian", "linear", "transclip", "tip-adapter", "coder"])
def test_every_method(tmp_path: Path, run: Run, made: Made, method: str) -> None:
    support, output = labels(made, tmp_path, 4), tmp_path / "out.csv"
    done = run(*command(made, support, "--method", method, "-o", output))
    assert (done.code, done.out) == (0, "")
    rows = read(output)
    assert list(rows[0]) == list(SCHEMA.names)
    mine = {row["file_name"] for row in read(support)}
    assert [row["file_name"] for row in rows] == [key for key in made.keys if key not in mine]
    assert right(rows, made) > (0.8 if method == "transclip" else 0.95)
    assert f"48 images by {method} (" in done.err
    assert "from 12 labelled ones of 3 classes -> " in done.err
    record = json.loads((tmp_path / "out.csv.run.json").read_text())
    told = record["fewshot"]
    assert (told["method"], told["support"]) == (method, str(support))
    assert told["labelled"] == {"cat": 4, "dog": 4, "owl": 4}
    counts = {"images": 48, "errors": 0, "labelled": 12, "encoded": 0, "rows": 48}
    assert record["counts"] | {"encoded": 0} == counts
    chosen = {"tip-adapter": "alpha", "coder": "alpha", "transclip": "gamma"}
    assert told[chosen.get(method, "strength")] > 0
    pairs = sorted([row["file_name"], row["label"]] for row in read(support))
    assert told["labels_sha256"] == hashlib.sha256(json.dumps(pairs).encode()).hexdigest()


def test_it_is_better_than_the_names_alone(tmp_path: Path, run: Run, made: Made) -> None:
    plain = tmp_path / "plain.csv"
    done = run("classify", made.photos, "--classes", ",".join(NAMES), "--template", "a {}",
               "-e", f"precomputed:{made.encoder}", "-o", plain)  # fmt: skip
    assert done.code == 0
    few = tmp_path / "few.csv"
    run(*command(made, labels(made, tmp_path, 4), "-o", few))
    assert right(read(few), made) > right(read(plain), made) + 0.05


def test_one_image_a_class(tmp_path: Path, run: Run, made: Made) -> None:
    support, output = labels(made, tmp_path, 1), tmp_path / "out.jsonl"
    done = run(*command(made, support, "-o", output))
    assert done.code == 2
    assert "fewer than two classes have two of them" in done.err
    assert "--method transclip" in done.err
    assert not output.exists()
    assert run(*command(made, support, "--strength", "0.5", "-o", output)).code == 0
    for method, said in (
        ("transclip", "gamma is 0.02: fewer than two classes have 3"),
        ("tip-adapter", "alpha is 1 and beta 5.5, Tip-Adapter's: fewer than two classes have 3"),
    ):
        done = run(*command(made, support, "-m", method, "-o", output))
        assert done.code == 0
        assert said in done.err
        record = json.loads((tmp_path / "out.jsonl.run.json").read_text())
        assert any(said in text for text in record["warnings"])
        assert "fewer than two" in record["fewshot"]["unchosen"]
    assert len(output.read_text().splitlines()) == COUNT - 3


def test_given_settings_are_used(tmp_path: Path, run: Run, made: Made) -> None:
    support, output = labels(made, tmp_path, 4), tmp_path / "out.csv"
    for method, options, told in (
        ("tip-adapter", ("--strength", "0"), {"alpha": 0.0, "beta": 5.5}),
        ("coder", ("--strength", "2", "--beta", "50"), {"alpha": 2.0, "beta": 50.0}),
        ("transclip", ("--strength", "0.3"), {"gamma": 0.3}),
        ("linear", ("--strength", "0.1"), {"strength": 0.1}),
    ):
        done = run(*command(made, support, "-m", method, *options, "-o", output, "-k", "2"))
        assert done.code == 0
        found = json.loads((tmp_path / "out.csv.run.json").read_text())["fewshot"]
        assert told.items() <= found.items()
    assert [row["rank"] for row in read(output)] == ["1", "2"] * 48


@pytest.mark.parametrize("method", ["tip-adapter", "coder"])
def test_what_is_not_given_is_searched(tmp_path: Path, run: Run, made: Made, method: str) -> None:
    support, output = labels(made, tmp_path, 4), tmp_path / "out.csv"

    def found(*options: str) -> dict[str, Any]:
        done = run(*command(made, support, "-m", method, *options, "-o", output))
        assert done.code == 0, done.err
        told: dict[str, Any] = json.loads((tmp_path / "out.csv.run.json").read_text())["fewshot"]
        return told

    held = found("--beta", "3")
    assert (held["beta"], held["tried"], held["unchosen"]) == (3.0, 150, None)
    assert held["alpha"] != 1.0
    assert held["accuracy"] > 0.9
    held = found("--strength", "3")
    assert (held["alpha"], held["tried"], held["unchosen"]) == (3.0, 1500, None)
    assert held["beta"] != 5.5
    assert "tried" not in found("--strength", "3", "--beta", "3")
    done = run(*command(made, labels(made, tmp_path, 1), "-m", method, "--beta", "3"))
    assert "note: alpha is 1, Tip-Adapter's: fewer than two classes have 3" in done.err
    done = run(*command(made, support, "-m", method, "--strength", "0"))
    assert "note: beta is 5.5, Tip-Adapter's: at strength 0 it makes no difference" in done.err


def test_one_of_each_is_written_as_one(tmp_path: Path, run: Run, made: Made) -> None:
    few = tmp_path / "few.csv"
    rest = {key: name for key, name in made.truth.items() if key != made.keys[0]}
    few.write_text("file_name,label\n" + "".join(f"{k},{v}\n" for k, v in rest.items()))
    done = run(*command(made, few, "-o", tmp_path / "out.csv"))
    assert "1 image by gaussian" in done.err
    few.write_text(f"file_name,label\n{made.keys[0]},{made.truth[made.keys[0]]}\n")
    done = run(*command(made, few, "-m", "transclip", "-o", tmp_path / "out.csv"))
    assert "from 1 labelled one of 1 class -> " in done.err


def test_folders_that_name_no_class_hold_the_unlabelled(
    tmp_path: Path, run: Run, made: Made
) -> None:
    sorted_, names = tmp_path / "sorted", []
    for i, key in enumerate(made.keys):
        place = sorted_ / (made.truth[key] if i < 12 else "unsorted" if i < 50 else "later")
        place.mkdir(parents=True, exist_ok=True)
        (made.photos / key).rename(place / f"{i:02d}.png")
        names.append((place / f"{i:02d}.png").relative_to(sorted_).as_posix())
    (made.encoder / "images.json").write_text(json.dumps(names))
    output, moved = tmp_path / "out.csv", made._replace(photos=sorted_)
    done = run(*command(moved, "folder", "-o", output))
    assert done.code == 0, done.err
    seen = "48 images lie in folders that name no class, so without a label: 'later', 'unsorted'"
    assert f"note: {seen}" in done.err
    assert {row["file_name"] for row in read(output)} == set(names[12:])
    assert seen in json.loads((tmp_path / "out.csv.run.json").read_text())["warnings"]
    done = run("evaluate", sorted_, "--labels", "folder", *command(made, "x")[2:8])
    assert done.code == 2
    assert "48 of 60 name no class: " in done.err
    for name in NAMES:
        (sorted_ / name).rename(sorted_ / f"my {name}")
    done = run(*command(moved, "folder"))
    assert done.code == 2
    assert "none of them names a class: " in done.err
    done = run(*command(made._replace(photos=sorted_ / "later"), "folder"))
    assert "give --support FILE.csv" in done.err


def test_folders_of_their_class_and_stored_vectors(tmp_path: Path, run: Run, made: Made) -> None:
    """Photos that lie in a folder of their class are the support; a .parquet does as well."""
    sorted_ = tmp_path / "sorted"
    names = {}
    for i, key in enumerate(made.keys):
        place = sorted_ / made.truth[key] if i < 12 else sorted_
        place.mkdir(parents=True, exist_ok=True)
        (made.photos / key).rename(place / f"{i:02d}.png")
        names[key] = (place / f"{i:02d}.png").relative_to(sorted_).as_posix()
    (made.encoder / "images.json").write_text(json.dumps([names[key] for key in made.keys]))
    moved = made._replace(photos=sorted_, truth={names[k]: v for k, v in made.truth.items()})
    output, stored = tmp_path / "out.csv", tmp_path / "vectors.parquet"
    done = run(*command(moved, "folder", "-o", output))
    assert done.code == 0, done.err
    assert len(read(output)) == 48
    assert right(read(output), moved) > 0.9
    assert run("embed", sorted_, "-e", f"precomputed:{made.encoder}", "-o", stored).code == 0
    again = tmp_path / "again.csv"
    assert run(*command(moved._replace(photos=stored), "folder", "-o", again)).code == 0
    assert [row["label"] for row in read(again)] == [row["label"] for row in read(output)]


def test_unreadable_images(tmp_path: Path, run: Run, made: Made) -> None:
    support, output = labels(made, tmp_path, 4), tmp_path / "out.csv"
    mine = [row["file_name"] for row in read(support)]
    rest = [key for key in made.keys if key not in mine]
    known = json.loads((made.encoder / "images.json").read_text())
    gone = {mine[0], rest[0]}
    vectors = np.load(made.encoder / "images.npy")
    kept = [i for i, key in enumerate(known) if key not in gone]
    np.save(made.encoder / "images.npy", vectors[kept])
    (made.encoder / "images.json").write_text(json.dumps([known[i] for i in kept]))
    done = run(*command(made, support, "-o", output))
    assert done.code == 0
    assert f"1 labelled image could not be read: '{mine[0]}'" in done.err
    assert "1 could not be read (see the column 'error')" in done.err
    rows = read(output)
    assert [row["file_name"] for row in rows] == rest
    assert [bool(row["error"]) for row in rows] == [True] + [False] * 47


def test_without_output_it_shows_rows(tmp_path: Path, run: Run, made: Made) -> None:
    support = labels(made, tmp_path, 18)
    done = run(*command(made, support, "-q"))
    assert done.code == 0
    assert done.out.count(".png") == 6
    assert "labelled ones" not in done.err


@pytest.mark.parametrize(
    ("more", "seen"),
    [
        (("-m", "svm"), "cannot use --method svm: there is no such method. Known: gaussian"),
        (("--beta", "2"), "cannot use --method gaussian: it has no beta"),
        (("--strength", "0"), "--strength is 0.0. Give a number above 0"),
        (("-m", "coder", "--beta", "-1"), "--beta is -1.0. Give a number 0 or more"),
        (("-o", "out.txt"), "its ending is '.txt'"),
    ],
)
def test_wrong_options(tmp_path: Path, run: Run, made: Made, more: Any, seen: str) -> None:
    done = run(*command(made, labels(made, tmp_path, 4), *more))
    assert done.code == 2
    assert seen in done.err
    assert "Traceback" not in done.err


def test_wrong_labels(tmp_path: Path, run: Run, made: Made) -> None:
    path = tmp_path / "l.csv"

    def said(text: str) -> str:
        path.write_text(text)
        done = run(*command(made, path))
        assert done.code == 2
        assert "Traceback" not in done.err
        return done.err

    key, other = made.keys[:2]
    assert "it has no column" in said(f"a,b\n{key},cat\n")
    assert "1 of 1 name no class: 'cow'" in said(f"file_name,label\n{key},cow\n")
    assert "none of the 60 images is among the 1 labels" in said("file_name,label\nx.png,cat\n")
    assert f"'{key}' is 'cat' and 'dog'" in said(f"file_name,label\n{key},cat\n{key},dog\n")
    every = "".join(f"{k},{v}\n" for k, v in made.truth.items())
    assert "all 60 images have one" in said("file_name,label\n" + every)
    assert "Leave images out of --support" in said("file_name,label\n" + every)
    done = run(*command(made, tmp_path / "none.csv"))
    assert done.code == 2
    assert "Check the path" in done.err
    path.write_text(f"file_name,label\n{key},cat\n{other},{made.truth[other]}\ngone.png,cat\n")
    done = run(*command(made, path, "-m", "transclip", "-o", tmp_path / "o.csv"))
    assert done.code == 0
    assert "note: 1 of 3 labels are of no image here" in done.err

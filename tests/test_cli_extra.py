"""``--with`` on the command line: classify, evaluate and diagnose."""

from __future__ import annotations

import csv
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.commands import Run, call
from tests.helpers import FakeEncoder, make_photo, make_photos
from tests.test_extra import Other


class Machine:
    """The two encoders, which count what they read."""

    def __init__(self) -> None:
        self.main, self.other = FakeEncoder(), Other()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()

    def load(spec: Any = None, **_: Any) -> Any:
        return spec if isinstance(spec, FakeEncoder) else made.main

    monkeypatch.setattr("byname.classifier.load_encoder", load)
    monkeypatch.setattr("byname.commands_evaluate.load_encoder", load)
    monkeypatch.setattr("byname.extra.load_encoder", lambda *a, **k: made.other)
    return made


@pytest.fixture
def run(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, machine: Machine
) -> Run:
    return partial(call, capfd, monkeypatch)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Six photos of two classes in folders, and one that is broken."""
    folder = tmp_path / "photos"
    for i in range(6):
        place = folder / ("cat" if i % 2 else "dog")
        place.mkdir(parents=True, exist_ok=True)
        make_photo(i + len(str(tmp_path))).save(place / f"{i}.png")
    (folder / "dog" / "broken.png").write_text("no image")
    return folder


def test_classify_reads_images_once_and_keeps_the_record(
    run: Run, machine: Machine, photos: Path, tmp_path: Path
) -> None:
    said = tmp_path / "said.csv"
    said.write_text("file_name,caption\n0.png,a dog\n1.png,a cat\n")
    output = tmp_path / "out.csv"
    words = ("classify", photos, "-c", "cat,dog", "-r", "encoders", "--no-cache")
    further = ("--with", "second=other", "--with", f"captions={said}")
    found = run(*words, *further, "--with", "views=uniform[n=2]", "-o", output)
    assert found.code == 0, found.err
    assert (machine.main.images, machine.other.images) == (6 + 12, 6)
    rows = list(csv.DictReader(output.open()))
    assert len(rows) == 7
    assert [row["error"] != "" for row in rows].count(True) == 1
    record = json.loads(Path(f"{output}.run.json").read_text())
    assert record["extra"].keys() == {"second", "captions", "views"}
    given = {"second": "other", "captions": str(said), "views": "uniform[n=2]"}
    assert record["parameters"]["extra"] == given
    assert record["extra"]["second"]["encoder"] == "other"
    assert record["extra"]["captions"]["images_without"] == 4
    assert record["counts"]["encoded"] == 6
    assert "note: 4 images have no caption" in found.err
    assert "note: the recipe 'encoders' does not look at views" in found.err
    assert "does not look at second" not in found.err


@pytest.mark.parametrize(
    "item, message",
    [
        ("second", "it is not of the form KIND=VALUE"),
        ("third=x", "there is no input of that kind. Known: second: an encoder"),
        ("captions=no.csv", "read the captions in 'no.csv': No such file"),
        ("class_probs=no.npz", "there is no such file"),
        ("reference=no-such-folder", "it does not exist"),
        ("support=no-such-folder", "it is neither a folder nor a .csv"),
        ("views=corners", "there is no rule 'corners'"),
        ("views=attention", "does not say what it attends to. Use uniform instead"),
    ],
)
def test_errors_come_before_any_image_is_read(
    run: Run, machine: Machine, photos: Path, item: str, message: str
) -> None:
    found = run("classify", photos, "-c", "cat,dog", "--with", item)
    assert found.code == 2
    assert message in found.err
    assert "Traceback" not in found.err
    assert machine.main.images == 0


def test_without_with_nothing_changes(run: Run, photos: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    assert run("classify", photos, "-c", "cat,dog", "-r", "plain", "-o", output).code == 0
    record = json.loads(Path(f"{output}.run.json").read_text())
    assert "extra" not in record
    assert "extra" not in record["parameters"]


def test_evaluate_gathers_once_for_all_recipes(
    run: Run, machine: Machine, photos: Path, tmp_path: Path
) -> None:
    output = tmp_path / "t.json"
    words = ("evaluate", photos, "-c", "cat,dog", "--labels", "folder", "--draws", 0, "--no-cache")
    recipes = ("-r", "plain,encoders,encoders[weight=0.9],conse", "-o", output)
    found = run(*words, "--with", "second=other", *recipes)
    assert found.code == 0, found.err
    table = json.loads(output.read_text())
    assert "class_probs" in table["conse"]["skipped"]
    assert "value" in table["encoders"]["top1"]
    assert (machine.main.images, machine.other.images) == (6, 6)
    record = json.loads(Path(f"{output}.run.json").read_text())
    assert record["extra"]["second"]["encoder"] == "other"
    assert record["left_out"]["unreadable"] == 1


def test_diagnose_takes_them(run: Run, machine: Machine, photos: Path, tmp_path: Path) -> None:
    refs = make_photos(tmp_path / "refs", 3)
    words = ("diagnose", photos, "-c", "cat,dog", "-r", "zpe", "--json")
    found = run(*words, "--with", f"reference={refs}", "--with", "second=other")
    assert found.code == 0, found.err
    assert json.loads(found.out)["n_images"] == 6
    assert machine.other.images == 6
    again = [c["next"] for c in json.loads(found.out)["classes"].values() if c["next"]]
    assert all(f"--with reference={refs}" in text or "--with" not in text for text in again)


@pytest.fixture
def tasks(tmp_path: Path) -> tuple[Path, Path]:
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 3
    paths = []
    for name, width in (("a", 8), ("b", 5)):
        texts = rng.normal(size=(2, 3, width))
        np.savez(
            tmp_path / f"{name}.npz",
            images=texts[0, labels] + rng.normal(size=(40, width)) * 0.7,
            texts=texts,
            labels=labels,
            classes=np.array(["cat", "dog", "kiwi"]),
            templates=np.array(["a photo of a {}.", "the {}."]),
        )
        paths.append(tmp_path / f"{name}.npz")
    return paths[0], paths[1]


def test_a_second_task(run: Run, tasks: tuple[Path, Path], tmp_path: Path) -> None:
    one, two = tasks
    output = tmp_path / "t.json"
    words = ("evaluate", "--task", one, "-r", "plain,encoders", "--draws", 0)
    alone = run(*words, "-o", output)
    assert alone.code == 0, alone.err
    assert "second" in json.loads(output.read_text())["encoders"]["skipped"]
    found = run(*words, "--with", f"second={two}", "-o", output)
    assert found.code == 0, found.err
    assert json.loads(output.read_text())["encoders"]["top1"]["value"] > 0.3
    diagnosed = run("diagnose", "--task", one, "-r", "encoders", "--with", f"second={two}")
    assert diagnosed.code == 0, diagnosed.err
    for item in ("second=mini", f"reference={two}"):
        refused = run(*words, "--with", item)
        assert refused.code == 2
        assert f"--with {item} was given. With --task there is second=OTHER.npz" in refused.err

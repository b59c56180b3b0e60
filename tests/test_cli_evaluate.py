"""``byname evaluate`` as a user meets it."""

from __future__ import annotations

import csv
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from byname import commands_evaluate
from byname.embeddings import Embeddings
from byname.scoring import METRICS
from tests.commands import Run, call
from tests.helpers import FakeEncoder, make_photo

SHARED_RECIPES = "plain,ensemble,cpe"


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(commands_evaluate, "load_encoder", lambda *a, **k: FakeEncoder())

    return partial(call, capfd, monkeypatch, "evaluate")


@pytest.fixture
def task(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    texts = rng.normal(size=(3, 4, 8))
    labels = np.arange(40) % 4
    path = tmp_path / "t.npz"
    np.savez(
        path,
        images=(texts[0, labels] + rng.normal(size=(40, 8)) * 0.7).astype(np.float16),
        texts=texts.astype(np.float16),
        labels=labels,
        classes=np.array(["cat", "dog", "kiwi", "plum"]),
        templates=np.array(["a photo of a {}.", "the {}.", "one {}."]),
    )
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Six photos of two classes in folders, one without a class, one that is broken."""
    folder = tmp_path / "photos"
    for i in range(6):
        place = folder / ("cat" if i % 2 else "dog")
        place.mkdir(parents=True, exist_ok=True)
        make_photo(i).save(place / f"{i}.png")
    make_photo(9).save(folder / "9.png")
    (folder / "dog" / "broken.png").write_text("no image")
    return folder


def test_a_task_to_json(run: Run, task: Path, tmp_path: Path) -> None:
    output = tmp_path / "table.json"
    found = run("--task", task, "--recipes", "plain,ensemble,haprompts", "-o", output)
    assert found.code == 0, found.err
    table = json.loads(output.read_text())
    assert list(table) == ["plain", "ensemble", "haprompts"]
    assert list(table["plain"]) == list(METRICS)
    assert table["plain"]["top1"].keys() == {"value", "low", "high"}
    assert "task" in table["haprompts"]["skipped"]
    record = json.loads((tmp_path / "table.json.run.json").read_text())
    assert record["format"] == "byname-evaluation/1"
    assert (record["images"], record["classes"], record["baseline"]) == (40, 4, "plain")
    assert record["floor"]["hm"] == "a_k >= 1/(2 n_k)"
    assert record["recipes"]["plain"]["stages"]["weigh"] == "mean"
    again = tmp_path / "again.json"
    run("--task", task, "--recipes", "plain,ensemble,haprompts", "-o", again)
    assert again.read_bytes() == output.read_bytes()


def test_a_task_to_csv_and_markdown(run: Run, task: Path, tmp_path: Path) -> None:
    arguments = (
        "--task",
        task,
        "-r",
        "ensemble,reject[min_probability=0.9,min_margin=0.1],haprompts",
    )
    arguments += ("--metrics", "top1,severity,coverage", "--differences", "--draws", 50)
    assert run(*arguments, "-o", tmp_path / "o.csv").code == 0
    rows = list(csv.DictReader((tmp_path / "o.csv").open()))
    assert [r["recipe"] for r in rows] == [
        "ensemble",
        "reject[min_probability=0.9,min_margin=0.1]",
        "haprompts",
    ]
    assert 0 < float(rows[0]["top1"]) < 1
    assert rows[0]["top1_difference"] == ""
    assert float(rows[1]["top1_difference"]) == 0
    assert rows[2]["top1"] == ""
    assert "task" in rows[2]["skipped"]
    assert run(*arguments, "-o", tmp_path / "o.md").code == 0
    lines = (tmp_path / "o.md").read_text().splitlines()
    assert lines[0] == "| recipe | top1 % | severity (levels) | coverage % |"
    assert lines[3].startswith("| reject[min_probability=0.9,min_margin=0.1] | ")
    assert "; +0.00 [+0.00, +0.00]" in lines[3]
    assert lines[4].startswith("| haprompts | skipped: ")
    assert all(line.count(" | ") == 3 for line in lines[2:5])
    assert "40 images, 4 classes, baseline ensemble" in lines[6]
    shown = run(*arguments, "-o", "-", "-q")
    assert shown.out == (tmp_path / "o.csv").read_text()
    assert shown.err == ""


def test_without_output_a_table_is_shown(run: Run, task: Path) -> None:
    found = run("--task", task, "-r", "ensemble,haprompts", "--metrics", "top1,hm")
    assert found.code == 0
    assert "ensemble" in found.out
    assert "top1 %" in found.out
    assert "haprompts was skipped: " in found.err


def test_a_baseline_of_ones_own(run: Run, task: Path, tmp_path: Path) -> None:
    output = tmp_path / "o.json"
    arguments = ("--task", task, "-r", "plain,ensemble,haprompts", "--differences", "-o", output)
    found = run(*arguments, "--baseline", "ensemble", "--metrics", "top1", "--draws", 20)
    assert found.code == 0, found.err
    assert "baseline ensemble" in found.err
    table = json.loads(output.read_text())
    assert "difference" in table["plain"]["top1"]
    assert "difference" not in table["ensemble"]["top1"]
    assert json.loads((tmp_path / "o.json.run.json").read_text())["baseline"] == "ensemble"
    assert "'cpe': it is none of the recipes 'plain', " in bad(run, *arguments, "--baseline", "cpe")
    refused = run(*arguments, "--baseline", "haprompts", "-q")
    assert refused.code == 2
    assert "cannot compare with the baseline 'haprompts': it was skipped: " in refused.err


def test_every_metric_has_a_name(run: Run, task: Path, tmp_path: Path) -> None:
    output = tmp_path / "o.json"
    names = ["hprecision", "hrecall", "hf1", "hd1", "hd3", "worst_two", "top2"]
    arguments = ("--task", task, "-r", "plain", "-o", output, "--draws", 20)
    found = run(*arguments, "--metrics", ",".join(names))
    assert found.code == 0, found.err
    row = json.loads(output.read_text())["plain"]
    assert list(row) == names
    assert all(0 <= e["low"] <= e["high"] for e in row.values())
    assert row["hprecision"]["value"] == row["hrecall"]["value"] == row["hf1"]["value"]  # flat


def test_a_tree_and_a_level(run: Run, task: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree.csv"
    tree.write_text(
        "id,name,parent\npet,pet,\nfruit,fruit,\ncat,cat,pet\ndog,dog,pet\n"
        "kiwi,kiwi,fruit\nplum,plum,fruit\n"
    )
    output = tmp_path / "o.json"
    arguments = ("--task", task, "--taxonomy", tree, "-r", "plain,crm", "-o", output)
    assert run(*arguments, "--metrics", "severity,top1").code == 0
    table = json.loads(output.read_text())
    assert 1 <= table["crm"]["severity"]["value"] <= 2
    assert run(*arguments, "--metrics", "top1", "--level", 1).code == 0
    coarse = json.loads(output.read_text())
    assert coarse["plain"]["top1"]["value"] >= table["plain"]["top1"]["value"]
    record = json.loads((tmp_path / "o.json.run.json").read_text())
    assert record["classes"] == 2


def test_images_with_a_table_of_labels(run: Run, photos: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text(
        "file_name,class_id\n"
        + "".join(f"{i}.png,{'cat' if i % 2 else 'dog'}\n" for i in range(5))
        + "dog/broken.png,dog\n"
    )
    output = tmp_path / "o.json"
    found = run(
        photos, "-c", "cat,dog,cow", "--labels", labels, "-r", "plain,ensemble", "-o", output
    )
    assert found.code == 0, found.err
    assert "5 images, 3 classes, 1 unreadable left out, 2 unlabelled left out" in found.err
    record = json.loads((tmp_path / "o.json.run.json").read_text())
    assert record["left_out"] == {"unreadable": 1, "unlabelled": 2}
    assert record["encoder"] == "fake"


def test_images_with_folders_as_labels(run: Run, photos: Path, tmp_path: Path) -> None:
    output = tmp_path / "o.csv"
    found = run(photos, "-c", "cat,dog", "--labels", "folder", "--template", "a {}", "-o", output)
    assert found.code == 0, found.err
    assert "6 images, 2 classes, 1 unreadable left out, 1 unlabelled left out" in found.err
    plain, ensemble = csv.DictReader(output.open())
    assert plain["top1"] == ensemble["top1"]  # one template for all


def test_stored_vectors(run: Run, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(8, FakeEncoder().info.dim))
    file = tmp_path / "e.parquet"
    Embeddings.from_arrays(rows, [f"{'cat' if i % 2 else 'dog'}/{i}" for i in range(8)]).save(file)
    found = run(file, "-c", "cat,dog", "--labels", "folder", "--metrics", "top1")
    assert found.code == 0, found.err
    assert "8 images" in found.err


def bad(run: Run, *arguments: object) -> str:
    found = run(*arguments)
    assert found.code == 2, found
    assert found.out == ""
    assert found.err.startswith("error: cannot ")
    assert found.err.count("\n") == 1
    return found.err


def test_wrong_arguments(run: Run, task: Path, photos: Path, tmp_path: Path) -> None:
    both = "neither images nor --task were given"
    assert both in bad(run)
    assert "both images and --task were given" in bad(run, photos, "--task", task)
    assert "--labels, --classes cannot be used with --task" in bad(
        run, "--task", task, "--labels", "x", "-c", "a,b"
    )
    assert "--classes and --labels is missing" in bad(run, photos)
    assert "--labels is missing" in bad(run, photos, "-c", "cat,dog")
    assert "--taxonomy belongs to --task" in bad(run, photos, "--taxonomy", "x.csv")
    assert "there is no recipe 'ensmble'. Did you mean 'ensemble'?" in bad(
        run, "--task", task, "-r", "ensmble"
    )
    assert "cannot compute 'f1'" in bad(run, "--task", task, "--metrics", "f1")
    assert "there is no such file" in bad(run, "--task", tmp_path / "none.npz")
    assert "Use one of .json, .csv, .md." in bad(run, "--task", task, "-o", tmp_path / "t.xlsx")
    assert "would be read with it as its taxonomy" in bad(
        run, "--task", task, "-o", tmp_path / "t.json"
    )
    assert "does not exist" in bad(run, "--task", task, "-o", tmp_path / "no" / "t.json")
    assert "there is no such level" in bad(run, "--task", task, "--level", "species")


def test_wrong_labels_are_found_before_any_image_is_encoded(
    run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        commands_evaluate, "load_encoder", lambda *a, **k: pytest.fail("an encoder was loaded")
    )
    labels = tmp_path / "l.csv"
    for text, message in (
        ("file,klass\n1.png,cat\n", "it has no column class_id or label or name or class or id"),
        ("file,label\n1.png,lion\n", "1 of 1 name no class: 'lion'"),
        ("file,class_id,label\n1.png,cat,DOG\n", "'class_id' and 'label' name different classes"),
        ("file,label\nx.png,cat\n", "none of the 8 images is among the 1 labels"),
    ):
        labels.write_text(text)
        assert message in bad(run, photos, "-c", "cat,dog", "--labels", labels)
    assert "7 of 7 name no class: " in bad(run, photos, "-c", "bird", "--labels", "folder")
    assert "No such file" in bad(run, photos, "-c", "cat,dog", "--labels", tmp_path / "none.csv")


@pytest.mark.parametrize("name", ["clip-rn50", "clip-vit-b-32", "clip-vit-l-14"])
def test_one_command_compares_recipes_on_a_real_task(
    run: Run, shared: Path, tmp_path: Path, name: str
) -> None:
    output = tmp_path / "table.json"
    found = run(
        "--task", shared / "rs19" / f"{name}.npz", "--recipes", SHARED_RECIPES, "-o", output
    )
    assert found.code == 0, found.err
    table = json.loads(output.read_text())
    expected = {"clip-rn50": 0.7154, "clip-vit-b-32": 0.8129, "clip-vit-l-14": 0.8547}[name]
    assert table["ensemble"]["top1"]["value"] == pytest.approx(expected, abs=1e-4)
    assert set(table) == set(SHARED_RECIPES.split(","))
    assert all("value" in row["top1"] for row in table.values())

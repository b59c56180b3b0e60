"""The diagnosis: what it holds, that it sees no label, and that the command line shows it."""

from __future__ import annotations

import json
import shlex
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from byname import Classifier, cli
from byname.advice import advice
from byname.diagnose import diagnose
from byname.embeddings import Embeddings
from byname.encoders import PrecomputedEncoder
from byname.errors import UsageError
from byname.margins import cmm, pseudo_labels
from byname.ops import unit
from byname.recipes import get_recipe
from byname.stage import ClassTexts
from byname.study.subject import Subject
from byname.taskfile import Task
from byname.taxonomy import Node, Taxonomy

NAMES = ("cat", "dog", "cow", "hen")


def world(seed: int = 0, n: int = 30) -> tuple[ClassTexts, Any, Any]:
    """Class 3 does not occur; the text of class 2 stands between it and class 1."""
    rng = np.random.default_rng(seed)
    centres = unit(rng.standard_normal((4, 16)))
    truth = np.repeat(np.arange(3), n)
    X = unit(centres[truth] + 0.15 * rng.standard_normal((3 * n, 16)))
    T = centres.copy()
    T[2] = unit(centres[2] + 1.1 * centres[1])
    texts = ClassTexts(T, np.arange(4), Taxonomy(Node(name, name) for name in NAMES))
    return texts, X, truth


def test_keys_and_order() -> None:
    texts, X, _ = world()
    found = diagnose(texts, X, "plain").to_dict()
    assert {"recipe", "n_images", "expected_accuracy", "worst", "classes"} < set(found)
    assert set(found) - {"recipe", "n_images", "expected_accuracy", "worst", "classes"} == {
        "interval",
        "notes",
        "members",
    }
    assert found["recipe"] == "plain"
    assert found["n_images"] == 90
    assert 0 < found["interval"][0] < found["expected_accuracy"] < found["interval"][1] <= 1
    assert list(found["classes"]) == list(NAMES)
    assert found["worst"][0] == "hen"
    assert sorted(found["worst"]) == sorted(NAMES)
    keys = {"cmm", "n", "predicted_share", "expected_accuracy", "interval", "confusions"}
    assert keys | {"name", "flag", "next"} == set(found["classes"]["cat"])
    shares = [one["predicted_share"] for one in found["classes"].values()]
    assert sum(shares) == pytest.approx(1)
    text = json.dumps(found, allow_nan=False)
    assert json.loads(text) == found


def test_numbers_are_those_of_the_margins() -> None:
    texts, X, _ = world()
    found = diagnose(texts, X, "plain")
    values, counts = cmm((X, texts.vectors), pseudo_labels(X, texts.vectors))
    for k, one in enumerate(found.classes.values()):
        assert one.n == counts[k]
        assert one.cmm == (pytest.approx(values[k]) if counts[k] else None)


def test_a_class_that_is_never_predicted() -> None:
    texts, X, _ = world()
    one = diagnose(texts, X, "plain").classes["hen"]
    assert (one.n, one.cmm, one.expected_accuracy, one.flag) == (0, None, 0.0, "never predicted")
    assert one.interval is None
    assert one.next.startswith("byname prompts make --style haprompts --classes CLASSES --emit ")
    assert sum(c.share for c in one.confusions) <= 1 + 1e-9


def test_confusions_of_a_class_that_is_never_second_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The winners of the ten images in which it is least behind."""
    texts = ClassTexts(unit(np.array([[1.0, 0, 0], [0.9, 0.5, 0], [0.2, 0.1, -1]])),
                       np.arange(3), Taxonomy(Node(n, n) for n in NAMES[:3]))  # fmt: skip
    rng = np.random.default_rng(0)
    X = unit(np.array([[1, 0.1, 0], [0.3, 1, 0]])[np.arange(40) % 2] + 0.1 * rng.random((40, 3)))
    S = X @ texts.vectors.T
    assert set(S.argmax(1)) == {0, 1}
    assert (S.argmin(1) == 2).all(), "never second"
    expected = S.argmax(1)[np.argsort(S.max(1) - S[:, 2])[:10]]
    near = diagnose(texts, X, "plain").classes["cow"].confusions
    assert sum(c.share for c in near) == pytest.approx(1)
    share = {c.id: c.share for c in near}
    for k, name in enumerate(NAMES[:2]):
        assert share.get(name, 0) == pytest.approx((expected == k).mean())
    whole = diagnose(texts, X, "plain").classes
    monkeypatch.setattr(
        "byname.ops.blocks", lambda n, size: [slice(i, min(i + 7, n)) for i in range(0, n, 7)]
    )
    again = diagnose(texts, X, "plain").classes
    assert {i: one.confusions for i, one in again.items()} == {
        i: one.confusions for i, one in whole.items()
    }


def test_notes_say_what_must_not_be_compared_and_when_images_are_few() -> None:
    texts, X, _ = world()
    (note,) = diagnose(texts, X, "plain").notes
    assert "do not compare those of different recipes" in note
    assert len(X) >= 40
    few, again = diagnose(texts, X[:39], "plain").notes
    assert few.startswith("39 images for 4 classes are fewer than 10 a class")
    assert again == note


def test_what_the_members_learned() -> None:
    texts, X, _ = world()
    shared = ClassTexts(
        unit(np.vstack([texts.vectors, texts.vectors + 0.1])),
        np.tile(np.arange(4), 2),
        texts.taxonomy,
        np.repeat([0, 1], 4),
    )
    recipe = get_recipe("cpe", decide="backoff")
    told = json.loads(json.dumps(diagnose(shared, X, recipe).to_dict()))["members"]
    assert set(told) == {"cpe", "backoff"}
    assert 1 <= told["cpe"]["effective_prompts"] <= told["cpe"]["prompts"] == 2
    assert told["cpe"]["worst"] == [{"id": "hen", "cmm": None, "cmm_after": None}]
    assert told["backoff"]["temperature"] >= 1
    assert diagnose(texts, X, "plain").members == {}


# -- what to do


LINE = "byname diagnose 'my photos' --classes 'c l.csv' --lineage group,name"


def pasted(line: str) -> list[str]:
    return shlex.split(line, comments=True)


def test_advice_is_better_texts_and_keeps_the_options() -> None:
    for recipe in ("ensemble", "cpe"):
        line = advice("weak", "a b", LINE + " --allow-missing", get_recipe(recipe))
        assert pasted(line) == ["byname", "prompts", "make", "--style", "haprompts", "--classes",
                                "c l.csv", "--lineage", "group,name", "--emit",
                                "queries.jsonl"]  # fmt: skip
        assert "'a b'" in line
        assert line.endswith(f"then: {LINE} --allow-missing --prompts templates+FILE.json")
    assert "cpe[" not in line
    held = advice("weak", "a", LINE + " --prompts p.json --recipe cpe", get_recipe("cpe"))
    assert held.endswith(f"{LINE} --recipe cpe --prompts p.json+FILE.json")
    twice = advice("weak", "a", LINE + " --prompts templates+FILE.json", get_recipe("cpe"))
    assert twice.endswith("--prompts templates+FILE.json+MORE.json")
    assert "write the answers into MORE.json" in twice
    own = advice("weak", "a", LINE + " --template 'a {}' --template 'b {}'", get_recipe("cpe"))
    assert f"{LINE} --prompts templates+FILE.json, where --template has no place" in own
    assert "take a out of the classes" in advice("never predicted", "a", LINE, get_recipe("cpe"))
    assert advice("", "a", LINE, get_recipe("cpe")) == ""


def test_advice_about_names() -> None:
    cpe = get_recipe("cpe")
    found = advice("ambiguous name", "a", LINE, cpe)
    assert found == "# give 'a' and its namesakes different names or aliases in 'c l.csv'"
    line = "byname diagnose --task t.npz"
    assert advice("ambiguous name", "a", line, cpe).startswith("# write the task t.npz again")
    known = advice("ambiguous name", "a", f"{line} --taxonomy t.csv", cpe)
    assert known == "# give 'a' and its namesakes different names or aliases in t.csv"
    assert advice("weak", "a", line, cpe).startswith("# write the task again, with more texts")


def test_a_line_break_in_a_name_stays_in_the_comment() -> None:
    for flag in ("weak", "never predicted"):
        line = advice(flag, "a\nrm -r b", LINE, get_recipe("cpe"))
        assert "\n" not in line


def test_classes_of_one_name_are_flagged() -> None:
    texts, X, _ = world()
    nodes = [Node("a", "crane"), Node("b", "dog"), Node("c", "cow", aliases=("Crane",))]
    taxonomy = Taxonomy([*nodes, Node("d", "hen")])
    found = diagnose(ClassTexts(texts.vectors, texts.class_index, taxonomy), X, "plain")
    flags = {i: one.flag for i, one in found.classes.items()}
    assert flags["a"] == flags["c"] == "ambiguous name"
    assert flags["b"] != "ambiguous name"


def test_confusions_name_the_nearest_classes() -> None:
    texts, X, _ = world()
    near = diagnose(texts, X, "plain").classes["dog"].confusions
    assert near[0].id == "cow"
    assert near[0].share > 0.8
    assert all(a.share >= b.share for a, b in pairwise(near))


def test_the_order_of_images_does_not_matter() -> None:
    texts, X, _ = world()
    order = np.random.default_rng(1).permutation(len(X))
    a, b = (diagnose(texts, Y, "plain").to_dict() for Y in (X, X[order]))
    for one, two in zip(a["classes"].values(), b["classes"].values(), strict=True):
        assert one["expected_accuracy"] == pytest.approx(two["expected_accuracy"], abs=1e-9)


@pytest.mark.parametrize("n", [1, 2])
def test_few_images(n: int) -> None:
    texts, X, _ = world()
    found = diagnose(texts, X[:n], "plain")
    assert found.n_images == n
    assert np.isfinite(found.expected_accuracy)


def test_one_class_and_no_images() -> None:
    one = ClassTexts(np.eye(3)[:1], np.zeros(1, int), Taxonomy.from_names(["cat"]))
    found = diagnose(one, np.eye(3), "plain")
    assert found.worst == ()
    assert found.expected_accuracy is None
    assert found.interval is None
    assert found.to_dict()["classes"]["cat"]["interval"] is None
    assert found.classes["cat"].expected_accuracy is None
    assert found.classes["cat"].confusions == ()
    assert found.classes["cat"].flag == ""
    assert "no accuracy can be expected" in found.notes[0]
    with pytest.raises(UsageError, match="there are no images"):
        diagnose(one, np.zeros((0, 3)), "plain")


def test_the_classifier_diagnoses() -> None:
    texts, X, _ = world()
    encoder = PrecomputedEncoder.from_arrays([f"a {n}" for n in NAMES], texts.vectors)
    model = Classifier(list(NAMES), encoder, "plain", templates=["a {}"])
    found, expected = model.diagnose(X), diagnose(texts, X, "plain")
    assert found.worst == expected.worst
    assert found.expected_accuracy == pytest.approx(expected.expected_accuracy, abs=1e-4)


def test_real_vectors(shared: Path) -> None:
    """Constants were fixed on made-up tasks (benchmarks/diagnose_synthetic.py)."""
    margin, combined, hits = [], [], []
    for name in ("clip-rn50", "clip-vit-b-32", "clip-vit-l-14"):
        task = Task.load(shared / "rs19" / f"{name}.npz")
        found = diagnose(task.texts_for("templates"), task.images)
        y = pseudo_labels(task.images, unit(unit(task.texts).mean(axis=0)))
        truth = np.array([(y == task.labels)[task.labels == k].mean() for k in range(19)])
        classes = found.classes.values()
        margin.append(spearmanr([one.cmm for one in classes], truth)[0])
        combined.append(spearmanr([one.expected_accuracy for one in classes], truth)[0])
        three = {task.taxonomy.class_ids[k] for k in np.argsort(truth)[:3]}
        hits.append(len(three & set(found.worst[:5])))
        right = (y == task.labels).mean()
        assert found.expected_accuracy == pytest.approx(right, abs=0.05)
        assert found.interval is not None
        assert found.interval[0] < right < found.interval[1]
    np.testing.assert_allclose(margin, [0.82, 0.82, 0.71], atol=0.011)
    assert (np.array(combined) >= np.array(margin)).all()
    assert np.mean(combined) > 0.94
    assert np.mean(hits) == 3


# -- the command line


@pytest.fixture
def task_file(tmp_path: Path) -> Path:
    texts, X, truth = world()
    path = tmp_path / "task.npz"
    rng = np.random.default_rng(0)
    T = unit(texts.vectors + 0.02 * rng.standard_normal((3, 4, 16)))
    np.savez(
        path,
        images=X.astype("f2"),
        texts=T.astype("f2"),
        labels=truth,
        classes=np.array(NAMES),
        templates=np.array(["a {}", "the {}", "one {}"]),
    )
    return path


def run(capfd: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    capfd.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["byname", "diagnose", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
    out, err = capfd.readouterr()
    return int(stopped.value.code or 0), out, err


def test_json_of_a_task(task_file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capfd, "--task", task_file, "--recipe", "cpe", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["recipe"] == "cpe"
    assert found["classes"]["hen"]["flag"] == "never predicted"


def test_the_command_is_that_of_the_run(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every option but those of the output; quoted."""
    texts, X, _ = world()
    np.save(tmp_path / "texts.npy", texts.vectors)
    (tmp_path / "texts.txt").write_text("".join(f"a {name}\n" for name in NAMES))
    images = tmp_path / "my images.parquet"
    Embeddings.from_arrays(X).save(images)
    (tmp_path / "c l.csv").write_text(
        "id,name,group\n" + "".join(f"{n},{n},animal\n" for n in NAMES)
    )
    (tmp_path / "p.json").write_text(json.dumps({n: [f"a {n}"] for n in NAMES}))
    seen = []
    plain = Subject.of_classifier

    def kept(*args: Any, command: str, **more: Any) -> Any:
        seen.append(command)
        return plain(*args, command=command, **more)

    monkeypatch.setattr(Subject, "of_classifier", kept)
    given = [str(images), "--classes", str(tmp_path / "c l.csv"), "--lineage", "group,name",
             "--encoder", f"precomputed:{tmp_path}", "--recipe", "mean_similarity",
             "--prompts", str(tmp_path / "p.json"), "--allow-missing", "--score", "cosine",
             "--batch-size", "7", "--no-cache"]  # fmt: skip
    code, _, err = run(capfd, *given, "--json", "-q")
    assert code == 0, err
    assert shlex.split(seen[0])[:2] == ["byname", "diagnose"]
    assert sorted(shlex.split(seen[0])[2:]) == sorted(given)
    code, _, err = run(capfd, *shlex.split(seen[0])[2:], "-q")
    assert code == 0, err
    assert seen[1] == seen[0]


def test_labels_of_a_task_are_never_read(
    task_file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    expected = run(capfd, "--task", task_file, "--json")
    held = dict(np.load(task_file))
    for labels in (held["labels"][::-1], np.array(["x", "y"]), np.full(90, -7)):
        np.savez(task_file, **{**held, "labels": labels})
        assert run(capfd, "--task", task_file, "--json") == expected
    del held["labels"]
    np.savez(task_file, **held)
    assert run(capfd, "--task", task_file, "--json") == expected


def test_a_report_is_never_taken_for_the_taxonomy_of_its_task(
    task_file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    beside = task_file.with_suffix(".json")
    code, _, err = run(capfd, "--task", task_file, "-o", beside)
    assert code == 2
    assert "would be read with it as its taxonomy" in err
    assert not beside.exists()
    code, _, err = run(capfd, "--task", task_file, "-o", beside.with_suffix(".html"))
    assert code == 0, err
    # as a shell does for --json > F.json: the file is there, and empty, before anything is read
    beside.touch()
    code, out, err = run(capfd, "--task", task_file, "--json")
    assert code == 0, err
    beside.write_text(out)
    assert run(capfd, "--task", task_file, "--json") == (0, out, err)


def test_what_was_looked_at_is_not_in_the_dictionary() -> None:
    texts, X, _ = world()
    found = diagnose(texts, X, "plain")
    assert found.chances is not None
    assert found.chances.rows.tolist() == list(range(90))
    assert found.chances.weight.tolist() == pytest.approx([1] * 90)
    assert ((found.chances.right >= 0) & (found.chances.right <= 1)).all()
    assert "chances" not in found.to_dict()


def test_the_table(task_file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capfd, "--task", task_file, "--weigh", "mean_similarity")
    assert code == 0
    lines = [line for line in out.splitlines() if line.startswith("│")]
    assert next(line.split()[1] for line in lines if line.split()[1] in NAMES) == "hen"
    assert "never predicted" in out
    assert "expected accuracy" in err
    assert "estimate without labels" in err
    assert "problem: 1 of 4 classes wins no image: 'hen'" in err
    assert "next: # write the task again, with more texts for hen" in err
    assert "note: expected accuracies are for ranking the classes of one run" in err


def test_one_class_of_a_task(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    np.savez(
        tmp_path / "one.npz",
        images=np.eye(3, dtype=np.float32)[:1],
        texts=np.eye(3, dtype=np.float32)[None, :1],
        labels=np.zeros(1, int),
        classes=np.array(["cat"]),
        templates=np.array(["a photo of a {}."]),
    )
    code, out, _ = run(capfd, "--task", tmp_path / "one.npz", "--json")
    told = json.loads(out)
    assert code == 0
    assert told["expected_accuracy"] is None
    assert told["worst"] == []
    code, out, err = run(capfd, "--task", tmp_path / "one.npz")
    assert code == 0
    assert "cat" in out
    assert "1 image, 1 class, recipe ensemble: no accuracy can be expected" in err


def test_the_table_is_cut_at_twenty(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rng, path = np.random.default_rng(0), tmp_path / "t.npz"
    np.savez(
        path,
        images=rng.standard_normal((9, 4)),
        texts=rng.standard_normal((1, 30, 4)),
        classes=np.array([f"name{i}" for i in range(30)]),
        templates=np.array(["{}"]),
    )
    _, out, err = run(capfd, "--task", path)
    assert "10 more classes" in err
    assert len({w for w in out.split() if w.startswith("name") and w[4:].isdecimal()}) >= 20
    _, out, err = run(capfd, "--task", path, "--all")
    assert "more classes" not in err
    assert all(f"│ name{i} " in out for i in range(30))


def test_embeddings_with_an_encoder(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    texts, X, _ = world()
    np.save(tmp_path / "texts.npy", texts.vectors)
    (tmp_path / "texts.txt").write_text("".join(f"a {name}\n" for name in NAMES))
    images = tmp_path / "images.parquet"
    Embeddings.from_arrays(X).save(images)
    given = (images, "-c", ",".join(NAMES), "--template", "a {}", "--json")
    code, out, _ = run(capfd, *given, "-e", f"precomputed:{tmp_path}")
    assert code == 0
    found, expected = json.loads(out), diagnose(texts, X, "plain")
    assert found["worst"] == list(expected.worst)
    todo = found["classes"]["hen"]["next"]
    assert f"--encoder precomputed:{tmp_path}" in todo
    again = shlex.split(todo.partition("then: ")[2].partition(";")[0])
    assert again[:3] == ["byname", "diagnose", str(images)]
    assert "--prompts" in again
    code, _, err = run(capfd, *given, "-e", "no-such-encoder")
    assert code == 2
    assert "no-such-encoder" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "neither images nor a task is given"),
        (["photos"], "no classes were given"),
        (["photos", "--task", "t.npz"], "both images and a task were given"),
        (["photos", "-c", "a,b", "--taxonomy", "x.json"], "--taxonomy is for tasks"),
        (["--task", "t.npz", "-c", "a,b"], "--classes does not go with --task"),
        (["--task", "t.npz", "--template", "a {}"], "--template does not go with --task"),
        (["--task", "no.npz"], "there is no such file"),
        (["--task", "no.npz", "--recipe", "nope"], "there is no recipe 'nope'"),
    ],
)
def test_wrong_arguments_are_named(
    arguments: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capfd, *arguments)
    assert code == 2
    assert message in err
    assert out == ""

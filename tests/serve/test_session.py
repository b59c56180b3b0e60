"""Scores, corrections, reasons and reports of one session."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from byname import Classifier
from byname.encoders import PrecomputedEncoder
from byname.images.sources import open_source
from byname.progress import listening
from byname.serve.classlist import ClassItem
from byname.serve.encoder import BLOCK, SharedEncoder, Superseded
from byname.serve.problems import Problem
from byname.serve.session import RUNS, ScoreRequest, Session
from byname.serve.uploads import Limits
from byname.taxonomy import Taxonomy
from tests.helpers import FakeEncoder, make_photos
from tests.serve.conftest import photo

NAMES = ["cat", "dog", "cow"]


def ask(session: Session, *names: str, **more: object) -> dict:  # type: ignore[type-arg]
    classes = [ClassItem(name=name) for name in names] or None
    return session.score(ScoreRequest(classes=classes, **more))  # type: ignore[arg-type]


def filled(session: Session, n: int = 6) -> Session:
    for seed in range(n):
        session.add_upload(f"{seed}.png", photo(seed))
    return session


def test_an_upload_gets_the_answer_of_classify(tmp_path: Path) -> None:
    folder = make_photos(tmp_path / "p", 9)
    model = Classifier(NAMES, FakeEncoder(), "ensemble")
    said = {row.file_name: row for row in model.classify(folder)}
    session = Session(Taxonomy.from_names(NAMES), SharedEncoder(FakeEncoder()))
    for name in said:
        session.add_upload(name.rsplit("/")[-1], (folder / name).read_bytes())
    given = Session(Taxonomy.from_names(NAMES), SharedEncoder(FakeEncoder()))
    given.embed(open_source(folder))
    for found in (ask(session), ask(given)):
        rows = {row["name"].rsplit("/")[-1]: row["answers"][0] for row in found["rows"]}
        assert len(rows) == len(said)
        for name, row in said.items():
            answer = rows[name.rsplit("/")[-1]]
            assert (answer["class_id"], answer["decision"]) == (row.class_id, row.decision)
            assert answer["probability"] == pytest.approx(row.probability, abs=1e-5)
            assert answer["margin"] == pytest.approx(row.margin, abs=1e-5)


def test_only_texts_of_edited_names_are_encoded(session: Session, encoder: FakeEncoder) -> None:
    filled(session)
    ask(session, "cat", "dog", "cow")
    before = encoder.texts
    ask(session, "cat", "fox", "cow")
    assert encoder.texts == before + 1
    ask(session, "cow", "cat", "dog")
    assert encoder.texts == before + 1
    ask(session, "cow", "cat", "dog", recipes=["ensemble"])
    assert encoder.texts > before + 1


def test_the_order_of_classes_and_images_does_not_matter(session: Session) -> None:
    filled(session)
    one = ask(session, "cat", "dog", "cow", recipes=["ensemble", "cpe"])
    other = Session(session.base, SharedEncoder(FakeEncoder()), recipe="plain")
    for seed in reversed(range(6)):
        other.add_upload(f"{seed}.png", photo(seed))
    two = ask(other, "cow", "dog", "cat", recipes=["ensemble", "cpe"])
    first, second = ({r["name"]: r["answers"] for r in found["rows"]} for found in (one, two))
    for name, answers in first.items():
        for a, b in zip(answers, second[name], strict=True):
            assert a["class_id"] == b["class_id"]
            assert a["probability"] == pytest.approx(b["probability"], abs=1e-4)
    assert [row["name"] for row in one["rows"]] == [row["name"] for row in two["rows"]]


def test_rows_by_doubt_by_class_and_by_name(session: Session) -> None:
    filled(session, 8)
    margins = [row["answers"][0]["margin"] for row in ask(session, order="doubt")["rows"]]
    assert margins == sorted(margins)
    by_class = [row["answers"][0] for row in ask(session, order="class")["rows"]]
    places = [["cat", "dog", "cow"].index(a["class_id"]) for a in by_class]
    assert places == sorted(places)
    names = [row["name"] for row in ask(session, order="name")["rows"]]
    assert names == sorted(names)
    part = ask(session, order="name", offset=2, limit=3)
    assert ([row["name"] for row in part["rows"]], part["total"]) == (names[2:5], 8)
    assert ask(session, offset=99)["rows"] == []


def test_filters_are_joined_by_and(session: Session) -> None:
    filled(session, 8)
    everything = ask(session, recipes=["plain", "ensemble"])
    some = everything["rows"][0]["answers"][0]["class_id"]
    found = ask(session, only_class=some)
    wanted = [r["image"] for r in everything["rows"] if r["answers"][0]["class_id"] == some]
    assert [row["image"] for row in found["rows"]] == wanted
    assert found["total"] == len(wanted)
    unlike = [r for r in everything["rows"] if len({a["class_id"] for a in r["answers"]}) > 1]
    found = ask(session, recipes=["plain", "ensemble"], only_differ=True)
    assert found["total"] == everything["differ"] == len(unlike)
    assert [row["name"] for row in ask(session, find="3.P")["rows"]] == ["3.png"]
    session.correct("i5", "cat")
    assert [row["image"] for row in ask(session, only_corrected=True)["rows"]] == ["i5"]
    assert ask(session, only_corrected=True, find="3.png")["total"] == 0


def test_a_recipe_that_fails_leaves_the_others(session: Session) -> None:
    filled(session)
    found = ask(session, recipes=["nonsense", "plain", "cupl"])
    assert [("error" in run) for run in found["runs"]] == [True, False, True]
    assert [answer is None for answer in found["rows"][0]["answers"]] == [True, False, True]
    assert found["rows"][0]["top"]
    assert "LLM" in found["runs"][2]["error"]["seen"]
    found = ask(session, template="no place for the name")
    assert "{}" in found["runs"][0]["error"]["seen"]


@pytest.mark.parametrize("name", ["states[set=../../etc/passwd]", "cpe[per_class=true]", "x.json"])
def test_recipes_are_those_of_the_menu_only(session: Session, name: str) -> None:
    filled(session, 1)
    assert "error" in ask(session, recipes=[name])["runs"][0]


@pytest.mark.parametrize("names", [["one"], ["twin", "twin"], ["<b>", "='x'"], ["x" * 300]])
def test_odd_class_lists_are_scored(session: Session, names: list[str]) -> None:
    filled(session, 3)
    run = ask(session, *names)["runs"][0]
    assert [one["name"] for one in run["classes"]] == names
    assert len({one["id"] for one in run["classes"]}) == len(names)
    assert sum(one["n"] for one in run["classes"]) == 3


def test_no_images_are_no_error(session: Session) -> None:
    found = ask(session, recipes=["plain", "ensemble"])
    assert (found["total"], found["rows"], found["differ"]) == (0, [], 0)
    assert [run["expected_accuracy"] for run in found["runs"]] == [None, None]
    assert len(found["runs"][0]["classes"]) == 3


def test_expected_accuracies_are_those_of_diagnose(session: Session) -> None:
    filled(session, 12)
    run = ask(session)["runs"][0]
    model = Classifier(session.base, FakeEncoder(), "plain")
    told = model.diagnose(session.store.shot().X)
    assert run["expected_accuracy"] == pytest.approx(told.expected_accuracy, abs=1e-5)
    assert [one["n"] for one in run["classes"]] == [one.n for one in told.classes.values()]


def crowd(n: int, K: int) -> Session:
    """A session with n made-up images around the texts of K classes; few of them are common."""
    encoder = SharedEncoder(FakeEncoder())
    names = [f"name {k}" for k in range(K)]
    session = Session(
        Taxonomy.from_names(names), encoder, recipe="plain", limits=Limits(images=10**4)
    )
    rng = np.random.default_rng(0)
    T = encoder.encode_texts([f"a photo of a {name}." for name in names])
    X = T[(K * rng.random(n) ** 4).astype(int)] + 0.15 * rng.normal(size=(n, T.shape[1]))
    for i, x in enumerate((X / np.linalg.norm(X, axis=1, keepdims=True)).astype(np.float32)):
        session.store.add(f"{i}.png", x)
    return session


def test_flags_of_many_images_are_those_of_diagnose() -> None:
    session = crowd(900, 40)
    run = ask(session, limit=0)["runs"][0]
    told = Classifier(session.base, FakeEncoder(), "plain").diagnose(session.store.shot().X)
    assert [one["flag"] for one in run["classes"]] == [one.flag for one in told.classes.values()]
    assert [one["n"] for one in run["classes"]] == [one.n for one in told.classes.values()]
    assert min(one.n for one in told.classes.values() if one.n) < 3


def test_a_sample_has_every_answered_class_and_says_what_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from byname.serve import scores

    monkeypatch.setattr(scores, "JUDGED", 50)
    run = ask(crowd(900, 40), limit=0)["runs"][0]
    few = [one for one in run["classes"] if one["n"]]
    assert min(one["n"] for one in few) < 3
    assert all(one["flag"] != "never predicted" and one["expected_accuracy"] for one in few)
    assert not any("fewer than" in note for note in run["notes"])
    assert any("of the 900 images" in note for note in run["notes"])


def test_what_a_recipe_warns_of_stands_in_its_run(session: Session) -> None:
    filled(session, 3)
    with pytest.warns(UserWarning, match="changed nothing") as heard:
        run = ask(session, recipes=["auto"])["runs"][0]
    assert str(heard[0].message) in run["notes"]


def test_work_that_nobody_waits_for_ends_between_its_steps(
    session: Session, encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(session, 3)
    many = [f"name {i}" for i in range(4 * BLOCK)]
    before = encoder.texts

    def first_block(what: str, done: int, total: int | None) -> None:
        if what == "texts encoded" and done:
            raise Superseded

    with pytest.raises(Superseded), listening(first_block):
        ask(session, *many)
    assert encoder.texts == before + BLOCK
    assert ask(session)["rows"]  # and nothing is left locked

    def no_fit(what: str, done: int, total: int | None) -> None:
        if what == "fit the recipe":
            raise Superseded

    with pytest.raises(Superseded), listening(no_fit):
        ask(session, "one", "two")


def test_too_much_for_one_request_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from byname.serve import scores

    session = Session(Taxonomy.from_names(["a"]), SharedEncoder(FakeEncoder()), recipe="plain")
    monkeypatch.setattr(scores, "NEW_TEXTS", 3)
    assert "new texts" in ask(session, "a", "b", "c", "d")["runs"][0]["error"]["seen"]
    assert "error" not in ask(session, "a", "b", "c")["runs"][0]
    assert "error" not in ask(session, "a", "b", "c", "d")["runs"][0]  # one is new
    monkeypatch.setattr(scores, "CELLS", 1)
    filled(session, 1)
    assert "too many" in ask(session, "a", "b")["runs"][0]["error"]["seen"]


def test_few_runs_are_kept_and_none_of_other_images(session: Session) -> None:
    filled(session, 2)
    for i in range(RUNS + 3):
        ask(session, f"name {i}", "dog")
    assert len(session._runs) == RUNS
    session.add_upload("new.png", photo(99))
    ask(session)
    assert len(session._runs) == 1


def test_corrections_go_through_edits_into_the_table(session: Session) -> None:
    filled(session, 3)
    rows = {row["image"]: row for row in ask(session)["rows"]}
    assert session.correct("i1", "dog") == 1
    assert session.correct("i0", "cow") == 2
    assert session.correct("i0", None) == 1
    assert session.correct("i2", "cat") == 2
    session.remove("i2")
    found = ask(session, "fox", "dog")
    assert {r["image"]: r["corrected"] for r in found["rows"]} == {"i0": None, "i1": "dog"}
    answer = rows["i1"]["answers"][0]  # of the list that the user saw, not of a later one
    lines = session.corrections().decode().splitlines()
    assert lines[1:] == [f"1.png,dog,dog,{answer['class_id']},{answer['label']}"]
    ask(session, "hen")
    assert session.corrections().decode().splitlines() == lines
    assert rows["i1"]["corrected"] is None
    for image, class_id, status in (("i9", "dog", 404), ("i0", "cow", 400), ("i0", "", 400)):
        with pytest.raises(Problem) as caught:
            session.correct(image, class_id)
        assert caught.value.status == status


def test_the_reason_is_about_the_answer(session: Session) -> None:
    filled(session, 4)
    answer = next(r for r in ask(session)["rows"] if r["image"] == "i2")["answers"][0]
    why = session.why("i2")
    assert why["class_id"] == answer["class_id"]
    assert why["texts"][0]["text"] == f"a photo of a {why['label']}."
    assert why["against"]["class_id"] != why["class_id"]
    with pytest.raises(Problem):
        session.why("i7")


def test_the_report_has_pictures_of_uploads_and_inert_names(session: Session) -> None:
    filled(session, 5)
    session.add_upload("<script>alert(1)</script>.png", photo(7))
    ask(session, "<img src=x onerror=alert(1)>", "dog")
    page = session.report()
    assert "data:image/jpeg;base64," in page
    assert "<script>alert(1)" not in page
    assert "<img src=x" not in page


def test_the_state_follows_what_was_scored_last(session: Session) -> None:
    assert session.state()["classes"][0]["path"] == ["pets", "cat"]
    ask(session, "fox", "hen", template="a {}")
    state = session.state()
    assert [one["name"] for one in state["classes"]] == ["fox", "hen"]
    assert (state["template"], state["recipe"], state["images"]) == ("a {}", "plain", 0)
    assert state["recipes"][0]["name"] == "plain"
    assert ask(session)["runs"][0]["classes"][0]["id"] == "cat"


def test_images_of_the_start_report_progress_and_unreadable_files(tmp_path: Path) -> None:
    folder = make_photos(tmp_path / "p", 20)
    (folder / "bad.jpg").write_bytes(b"%PDF")
    session = Session(Taxonomy.from_names(NAMES), SharedEncoder(FakeEncoder()), recipe="plain")
    seen, inner = [], session.advance
    session.advance = lambda *a: (inner(*a), seen.append(session.progress()))[0]  # type: ignore[method-assign, assignment]
    session.embed(open_source(folder), cache=False)
    assert seen[0] == {"what": "images", "done": 0, "total": 21}
    assert all(0 <= one["done"] < 21 for one in seen[:-1])
    assert session.progress() == {"what": "", "done": 0, "total": 0}
    assert len(session.store) == 20
    assert [one["name"] for one in session.state()["unreadable"]] == ["bad.jpg"]
    assert session.store.thumb("i0")[:2] == b"\xff\xd8"


def test_stored_vectors_will_do_without_pictures() -> None:
    texts = [f"a photo of a {name}." for name in ("cat", "dog")]
    encoder = SharedEncoder(PrecomputedEncoder.from_arrays(texts, np.eye(2)))
    session = Session(
        Taxonomy.from_names(["cat", "dog"]), encoder, recipe="plain", limits=Limits(images=3)
    )
    session.store.add("a", np.array([0.0, 1.0], np.float32))
    assert ask(session)["rows"][0]["answers"][0]["class_id"] == "dog"
    assert "error" in ask(session, "cat", "unheard of")["runs"][0]

"""What the page shows where."""

from __future__ import annotations

from byname.report.data import make_report
from byname.report.page import page
from byname.report.view import data, view
from byname.study.prompts import text_effects
from tests.report.made_up import made_up
from tests.report.worlds import subject_of, world


def test_only_texts_that_hurt_are_said_to_hurt() -> None:
    report = made_up(10, 2)
    shown = view(report)["hurting"]
    assert {text["text"].split()[-1] for text in shown} == {"6", "7"}, "those that hurt"
    assert len(shown) == 20
    for one in report["classes"].values():
        for text in one["texts"]:
            text["hurts"] = False
    assert view(report)["hurting"] == []
    assert "Prompts that hurt" not in page(report)


def test_the_page_and_the_finding_name_the_same_texts() -> None:
    task, _ = world()
    subject = subject_of(task)
    effects, report = text_effects(subject), make_report(subject)
    assert (effects.effect > 0).sum() > effects.hurts.sum(), "some raise the score a little"
    said = {subject.sentences[m] for m in effects.hurts.nonzero()[0]}
    assert {text["text"] for text in view(report)["hurting"]} == said
    findings = [one for one in report["findings"] if one["kind"] == "hurting_prompt"]
    assert sum(one["count"] for one in findings) == len(said)


def test_pairs_begin_with_those_that_touch_most_images() -> None:
    report = made_up(8, 2)
    report["classes"]["id 3"]["n"] = 500
    pairs = view(report)["pairs"]
    assert pairs[0]["from"] == "id 3"
    touched = [pair["share"] * pair["n"] for pair in pairs]
    assert touched == sorted(touched, reverse=True)
    assert len(pairs) == 20


def test_a_long_way_down_is_shortened() -> None:
    report = made_up(2, 1)
    report["classes"]["id 0"]["path"] = [*(f"g{i}" for i in range(400)), "id 0"]
    report["classes"]["id 1"]["path"] = ["g0", "g1", "id 1"]
    where = view(report)["where"]
    assert where["id 0"] == "g0 › g1 › g2 › g3 › … › g396 › g397 › g398 › g399"
    assert where["id 1"] == "g0 › g1"


def test_answers_that_are_groups_can_be_chosen() -> None:
    report = made_up(4, 4)
    assert not view(report)["groups"]
    assert ">above it<" not in page(report)
    report["images"][2] |= {"class_id": "group0", "label": "group", "outcome": "above"}
    assert view(report)["groups"]
    assert '<option value="above">above it</option>' in page(report)
    assert '<span class="above">above it</span>' in page(report)
    assert data(report)["images"][2]["outcome"] == "above"


def test_another_answer_is_named_under_a_class() -> None:
    report = made_up(4, 8)
    report["images"][1] |= {"class_id": "group0", "label": "other answer", "outcome": None}
    assert report["classes"]["id 1"]["typical"] == [1]
    card = page(report).partition('id="weakest"')[2].partition("</section>")[0]
    assert card.count("<bdi>other answer</bdi>") == 1


def test_rejected_answers_are_marked() -> None:
    report = made_up(4, 4)
    assert "rejected</span>" not in page(report)
    report["images"][0]["decision"] = "reject"
    assert "rejected</span>" in page(report)


def test_silent_classes_are_those_without_images() -> None:
    report = made_up(30, 2)
    seen = view(report)
    assert seen["silent"] == [i for i in report["worst"] if not report["classes"][i]["n"]]
    assert seen["weak"] == sum(
        one["flag"] != "" and one["n"] > 0 for one in report["classes"].values()
    )


def test_images_of_a_class_are_said_to_be_those_of_the_scores() -> None:
    report = made_up(4, 4)
    assert "images answered so</span>" in page(report)
    report["summary"]["n_otherwise"] = 1
    made = page(report)
    assert "images with the highest score here</span>" in made
    assert "images answered so</span>" not in made

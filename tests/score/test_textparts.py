from __future__ import annotations

import numpy as np

from byname.score.textparts import by_class, shown_unsaid, text_weights
from byname.stage import ClassTexts, State
from byname.taxonomy import Taxonomy


def texts(**fields: object) -> ClassTexts:
    index = np.array([0, 0, 1, -1])
    taxonomy = Taxonomy.from_names(["a", "b", "c"])
    return ClassTexts(np.eye(4), index, taxonomy, scale=9.0, bias=-2.0, **fields)  # type: ignore[arg-type]


def test_weights_sum_to_one_over_each_class() -> None:
    given = texts(weight=np.array([3.0, 1.0, 7.0, 5.0]))
    assert text_weights(given, State()).tolist() == [0.75, 0.25, 1, 0]
    assert text_weights(texts(), State()).tolist() == [0.5, 0.5, 1, 0]


def test_the_weigh_stage_goes_before_the_weights_that_came_with_the_texts() -> None:
    given = texts(weight=np.array([3.0, 1.0, 7.0, 5.0]))
    found = text_weights(given, State(weight=np.array([0.0, 2.0, 0.0, 1.0])))
    assert found.tolist() == [0, 1, 0, 0]


def test_a_class_without_texts_is_shown_as_the_opposite_of_the_image() -> None:
    S = shown_unsaid(np.zeros((2, 3)), texts(), np.array([0.5, 0.5, 0.0, 0.0]))
    assert S.tolist() == [[0, -11, -11]] * 2


def test_images_by_class() -> None:
    found = [(k, rows.tolist()) for k, rows in by_class(np.array([2, -1, 0, 2]))]
    assert found == [(0, [2]), (2, [0, 3])]
    assert list(by_class(np.array([], np.intp))) == []

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byname.embeddings import Embeddings
from byname.errors import UsageError
from byname.ops import softmax
from byname.programs.cascade import Cascade
from tests.reference import cascade as ref


def scripted(labels: Any, confidences: Any) -> Any:
    """An estimator of the items 0, 1, 2, ... that says what it is told."""
    return lambda items: ([labels[i] for i in items], [confidences[i] for i in items])


def links(seed: int, M: int, N: int, ties: bool = False) -> list[tuple[Any, Any]]:
    rng = np.random.default_rng(seed)
    sure = rng.integers(0, 4, (M, N)) / 4 if ties else rng.random((M, N))
    return [([f"{j}:{x}" for x in rng.integers(0, 3, N)], sure[j]) for j in range(M)]


def one(labels: Any, confidences: Any) -> Any:
    return lambda i: (labels[i], float(confidences[i]))


class Fixed:
    """A classifier whose scores are stored."""

    def __init__(self, scores: Any, classes: Any, method: str = "predict_proba") -> None:
        self.classes_ = np.array(classes)
        setattr(self, method, lambda X: np.asarray(scores)[np.asarray(X)])


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 999),
    st.integers(1, 5),
    st.integers(1, 20),
    st.booleans(),
    st.sampled_from([None, 0.5, 2.0]),
)
def test_it_is_the_plain_description(
    seed: int, M: int, N: int, ties: bool, threshold: float | None
) -> None:
    made = links(seed, M, N, ties)
    found = Cascade([scripted(*link) for link in made], threshold=threshold).run(list(range(N)))
    labels, seen = ref.cascade(list(range(N)), [one(*link) for link in made], threshold)
    assert found.labels.tolist() == labels
    assert [link.seen for link in found.links] == seen
    assert sum(link.kept for link in found.links) == N
    assert sum(link.answered for link in found.links) == N
    assert (found.link <= found.stopped).all()


@given(st.integers(0, 999), st.integers(1, 5), st.integers(0, 20))
def test_identical_members_are_the_single_model(seed: int, M: int, N: int) -> None:
    link = links(seed, 1, N)[0]
    found = Cascade([scripted(*link)] * M).predict(list(range(N)))
    assert found.tolist() == list(link[0])


def test_each_link_keeps_the_same_share() -> None:
    made = links(0, 4, 100)
    found = Cascade([scripted(*link) for link in made]).run(np.arange(100))
    assert [link.seen for link in found.links] == [100, 75, 50, 25]
    assert [link.kept for link in found.links] == [25] * 4
    first = made[0][1]
    assert first[found.stopped == 0].min() > first[found.stopped > 0].max()


def test_ranks_are_relative_to_what_a_link_saw_and_ties_are_averaged() -> None:
    sure = [0.9, 0.5, 0.5, 0.1]
    found = Cascade([scripted("aaaa", sure), scripted("bbbb", sure)]).run([0, 1, 2, 3])
    assert found.rank[:, 0].tolist() == [1.0, 0.625, 0.625, 0.25]
    # Two items went on; the link compares them with each other alone.
    assert np.isnan(found.rank[:2, 1]).all()
    assert found.rank[2:, 1].tolist() == [1.0, 0.5]
    assert found.labels.tolist() == ["a", "a", "b", "b"]


def test_an_earlier_link_may_answer_what_went_on() -> None:
    first = scripted("aaaa", [0.9, 0.8, 0.7, 0.1])
    dear = scripted("bbbb", [0, 0, 0.1, 0.9])
    found = Cascade([first, dear], costs=[1, 10], names=["cheap", "dear"]).run([0, 1, 2, 3])
    assert found.stopped.tolist() == [0, 0, 1, 1]
    assert found.labels.tolist() == ["a", "a", "b", "b"]
    three = Cascade([first, first, scripted("cccc", [0, 0, 0.1, 0.9])]).run([0, 1, 2, 3])
    assert three.stopped[2] == 2
    assert three.labels[2] == "a", "0.7 is the second of three, and last of the dear link's two"
    assert [(x.name, x.seen, x.share_seen, x.cost) for x in found.links] == [
        ("cheap", 4, 1.0, 4),
        ("dear", 2, 0.5, 20),
    ]
    assert all(link.seconds >= 0 for link in found.links)


@pytest.mark.parametrize("N", [0, 1, 2])
def test_fewer_items_than_links(N: int) -> None:
    made = links(3, 3, N)
    found = Cascade([scripted(*link) for link in made]).run(list(range(N)))
    assert found.labels.shape == (N,)
    if N:
        assert found.stopped.max() == 2
        labels, _ = ref.cascade(list(range(N)), [one(*link) for link in made])
        assert found.labels.tolist() == labels
    if N == 1:
        assert found.labels.tolist() == [made[2][0][0]], "every link has it alone: the dearest says"


def test_an_absolute_threshold_sends_more_on() -> None:
    sure = [0.9, 0.6, 0.3, 0.2]
    estimators = [scripted("aaaa", sure), scripted("bbbb", sure)]
    found = Cascade(estimators, threshold=0.7).run([0, 1, 2, 3])
    assert found.stopped.tolist() == [0, 1, 1, 1]
    assert Cascade(estimators, threshold=0.95).run([0, 1, 2, 3]).links[0].kept == 0


def test_confidence_of_classifiers() -> None:
    P = [[0.5, 0.4, 0.1], [0.45, 0.05, 0.5], [0.34, 0.33, 0.33], [np.nan] * 3]
    items, other = np.arange(4), scripted("xxxx", [1.0] * 4)
    found = Cascade([Fixed(P, ["a", "b", "c"]), other]).run(items)
    np.testing.assert_allclose(found.confidence[:, 0], [0.5, 0.5, 0.34, -np.inf])
    margin = Cascade([Fixed(P, ["a", "b", "c"]), other], confidence="margin").run(items)
    np.testing.assert_allclose(margin.confidence[:3, 0], [0.1, 0.05, 0.01])
    scores = Fixed([[3.0, 1.0], [2.0, 7.0]], ["a", "b"], "decision_function")
    found = Cascade([scores]).run(np.arange(2))
    assert found.confidence[:, 0].tolist() == [2, 5], "without probabilities, the margin"
    assert found.labels.tolist() == ["a", "b"]
    single = Cascade([Fixed([[1.0], [1.0]], ["a"])], confidence="margin").run(np.arange(2))
    assert single.labels.tolist() == ["a", "a"]
    lost = Cascade([Fixed(P, ["a", "b", "c"])]).run(items)
    assert lost.labels.tolist() == ["a", "c", "a", None]


@given(st.integers(0, 999), st.integers(1, 4), st.integers(1, 25))
def test_streamed_calibration_items_are_answered_as_in_their_batch(
    seed: int, M: int, N: int
) -> None:
    made = links(seed, M, N)
    model = Cascade([scripted(*link) for link in made]).fit(list(range(N)))
    whole, streamed = model.run(list(range(N))), model.stream(list(range(N)))
    assert streamed.labels.tolist() == whole.labels.tolist()
    assert streamed.stopped.tolist() == whole.stopped.tolist()


def test_streamed_items_do_not_depend_on_each_other() -> None:
    made = links(1, 3, 60)
    model = Cascade([scripted(*link) for link in made]).fit(list(range(30)))
    whole = model.stream(list(range(30, 60)))
    single = [model.stream([i]).labels[0] for i in range(30, 60)]
    assert whole.labels.tolist() == single
    assert model.thresholds_[-1] == -np.inf
    none = Cascade([scripted(*link) for link in made]).fit([0])
    assert none.thresholds_.tolist() == [np.inf, np.inf, -np.inf]
    assert none.stream([5, 6]).stopped.tolist() == [2, 2], "where nothing was kept, nothing is"


def test_parts_of_all_kinds_of_items() -> None:
    E = Embeddings.from_arrays(np.eye(4), ["a", "b", "c", "d"])
    seen: list[Any] = []

    def keys(items: Any) -> Any:
        seen.append(items)
        return list(items.keys), items.vectors[:, 0]

    assert Cascade([keys, keys]).run(E).labels.tolist() == ["a", "b", "c", "d"]
    assert seen[1].keys == ("c", "d")
    files = Cascade([lambda f: (f, [len(x) for x in f])] * 2).predict(["aaa", "b", "cc", "d"])
    assert files.tolist() == ["aaa", "b", "cc", "d"]


def test_classifiers_over_vectors_cost_a_share() -> None:
    rng = np.random.default_rng(0)
    S = rng.standard_normal((90, 4))
    chain = [Fixed(softmax(t * S), list("abcd")) for t in (1, 2, 4)]
    found = Cascade(chain).run(np.arange(90))
    assert found.labels.tolist() == [list("abcd")[k] for k in S.argmax(axis=1)]
    assert [round(link.share_seen, 3) for link in found.links] == [1.0, 0.667, 0.333]


def test_wrong_settings_and_estimators() -> None:
    good = scripted("ab", [0.1, 0.2])
    with pytest.raises(UsageError, match="it has no estimator"):
        Cascade([]).run([0])
    with pytest.raises(UsageError, match="confidence is 'luck'"):
        Cascade([good], confidence="luck").run([0])  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="there are 1 estimators and 2 costs"):
        Cascade([good], costs=[1, 2]).run([0])
    with pytest.raises(UsageError, match="there are 1 estimators and 2 names"):
        Cascade([good], names=["a", "b"]).run([0])
    with pytest.raises(UsageError, match="link 0 .* 1 labels and 2 confidences for 2 items"):  # noqa: RUF043
        Cascade([lambda items: (["a"], [0.5, 0.5])]).run([0, 1])
    with pytest.raises(UsageError, match="no thresholds have been learned"):
        Cascade([good]).stream([0])
    with pytest.raises(UsageError, match="labels were given"):
        Cascade([good]).fit([0, 1], ["a", "b"])  # type: ignore[arg-type]


def test_ranks_of_unseen_items_stay_in_their_range() -> None:
    made = links(4, 3, 400)
    model = Cascade([scripted(*link) for link in made]).fit(list(range(6)))
    found = model.stream(list(range(6, 400)))
    assert np.nanmin(found.rank) > 0
    assert np.nanmax(found.rank) == 1
    whole = Cascade([scripted(*link) for link in made]).fit(list(range(200)))
    ranks, known = whole.stream(list(range(200, 400))).rank, whole.run(list(range(200))).confidence
    for j in range(3):
        c = np.array(made[j][1][200:])
        seen = known[~np.isnan(known[:, j]), j]
        share = np.array([max((seen < x).sum(), 0.5) / len(seen) for x in c])
        at = ~np.isnan(ranks[:, j])
        np.testing.assert_allclose(ranks[at, j], share[at])


def test_an_unseen_item_above_all_ties_at_every_link() -> None:
    c = [[0.1, 0.2, 0.3, 0.4, 0.9], [0.9, 0.1, 0.2, 0.3, 0.9]]
    model = Cascade([scripted("xxxxx", c[0]), scripted("yyyyy", c[1])], threshold=2.0).fit(
        [0, 1, 2]
    )
    assert model.stream([4]).rank.tolist() == [[1, 1]]


def test_streamed_ties_are_all_kept() -> None:
    sure = scripted("a" * 10, [1.0] * 10)
    model = Cascade([sure, scripted("b" * 10, [0.5] * 10)]).fit(list(range(10)))
    assert model.run(list(range(10))).links[0].kept == 5
    assert model.stream(list(range(10))).links[0].kept == 10


@pytest.mark.parametrize("labels", [["no", "yes"], [0, 1]])
def test_one_score_of_two_classes_is_a_margin(labels: Any) -> None:
    model = Fixed([-3.0, 0.5, np.nan], labels, "decision_function")
    found = Cascade([model]).run(np.arange(3))
    assert found.labels.tolist() == [labels[0], labels[1], None]
    assert found.confidence[:, 0].tolist() == [3, 0.5, -np.inf]
    odd = Fixed([1.0, 2.0], ["a", "b", "c"], "decision_function")
    with pytest.raises(UsageError, match=r"scores of the shape \(2,\) for 3 classes"):
        Cascade([odd]).run(np.arange(2))


def test_costs_and_names_may_be_arrays() -> None:
    one, two = scripted("xxxx", [0.1, 0.2, 0.3, 0.4]), scripted("yyyy", [0.5] * 4)
    costs: Any = np.array([1, 12])
    found = Cascade([one, two], costs=costs, names=np.array(["s", "l"])).run([0, 1, 2, 3])  # type: ignore[arg-type]
    assert [(link.name, link.cost) for link in found.links] == [("s", 4), ("l", 24)]


@pytest.mark.parametrize(
    "params, message",
    [
        ({"threshold": np.nan}, "threshold is nan"),
        ({"threshold": "0.3"}, "threshold is '0.3'"),
        ({"costs": [-1.0]}, "a cost is -1.0"),
        ({"costs": [np.nan]}, "a cost is nan"),
    ],
)
def test_settings_that_are_no_numbers(params: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Cascade([scripted("ab", [0.1, 0.2])], **params).run([0, 1])


@pytest.mark.parametrize("said", [None, ("ab", np.ones((2, 2))), ("ab", ["x", "y"]), ("ab", 1.0)])
def test_answers_that_are_none(said: Any) -> None:
    with pytest.raises(UsageError, match="ask link 0 of the cascade"):
        Cascade([lambda items: said]).run([0, 1])
    with pytest.raises(UsageError, match="the items are one name, 'photos'"):
        Cascade([lambda items: said]).run("photos")


def test_labels_are_of_one_kind() -> None:
    def labels(*given: Any) -> Any:
        found = Cascade([scripted(given, [0.5] * len(given))]).run(list(range(len(given))))
        return found.labels

    assert labels().dtype.kind == "U"
    assert labels("a", np.str_("bc")).dtype == "<U2"
    assert labels(1, 2).dtype.kind == "i"
    assert labels(("a", "b"), ("c",)).tolist() == [("a", "b"), ("c",)]
    assert labels(1, "b").tolist() == [1, "b"]


def test_what_was_learned_with_other_settings_is_forgotten() -> None:
    made = [scripted(*link) for link in links(0, 3, 9)]
    model = Cascade(made[:2]).fit(list(range(9)))
    assert model.set_params(costs=[1, 2], names=["a", "b"]).stream([0]).links[1].name == "b"
    for params in ({"threshold": 2.0}, {"estimators": made, "costs": None, "names": None}):
        with pytest.raises(UsageError, match="no thresholds have been learned"):
            model.set_params(**params).stream([0])
        model.fit(list(range(9))).stream([0])
    with pytest.raises(UsageError, match="no such parameter"):
        model.set_params(share=2)
    clone = pytest.importorskip("sklearn.base").clone
    again = clone(model)
    assert not hasattr(again, "thresholds_")
    assert again.threshold == 2.0

"""The one dictionary of a report, key by key: what is rendered, and what ``--json`` prints.

All numbers are plain: shares between 0 and 1, None where nothing can be said. Lists of images are
places in ``images``. Texts, names and file names are as given; who shows them escapes them.
"""

from __future__ import annotations

from typing import Any, Final, Literal, NotRequired, TypedDict

__all__ = [
    "FORMAT",
    "ClassReport",
    "Confused",
    "Height",
    "ImageReport",
    "NodeReport",
    "Piece",
    "Report",
    "Summary",
    "TextReport",
    "Truth",
]

FORMAT: Final = "byname-report/1"


class Truth(TypedDict):
    """What the labels say; only where the user gave labels.

    Of a class, answers are the highest scores; of a node they are what the decide stage says.
    """

    n: int  # images with this label
    accuracy: float | None  # share of them that are answered so (recall); None without images
    precision: float | None  # share of the images answered so that have this label


class Confused(TypedDict):
    """A class that images of another are taken for, or come close to."""

    id: str
    share: float
    contrast: list[str]  # texts that tell the two apart best, first the best
    true_share: NotRequired[float]  # share of the labelled images of the class answered so


class TextReport(TypedDict):
    """One text of a class."""

    text: str
    kind: str
    weight: float
    changes: float | None  # share of all images whose answer is another without this text
    effect: float | None  # change of the class's label-free score without it
    hurts: bool  # the effect is above 0 and large enough to be a finding


class ClassReport(TypedDict):
    """One class, under its id: as the scores have it, whatever the decide stage makes of them.

    An answer is here the class of the highest score, so that all of these numbers are of one kind.
    """

    name: str
    path: list[str]  # ids from the root down
    n: int  # images answered so
    predicted_share: float
    cmm: float | None
    expected_accuracy: float | None  # share of its images that are answered so (recall)
    interval: list[float] | None  # low, high; None where no image is answered so
    confusions: list[Confused]
    flag: str
    next: str
    texts: list[TextReport]
    typical: list[int]
    doubtful: list[int]
    truth: Truth | None


class NodeReport(TypedDict):
    """One node of the taxonomy, rolled up: an answer in its subtree counts as right for it.

    Answers are those of the decide stage, which may be groups. No deeper than 50 levels: what lies
    deeper hangs on its ancestor there.
    """

    id: str
    name: str
    level: int
    n: int  # images answered in its subtree
    classes: int  # leaves below it
    expected_precision: float | None  # share of the images answered here that are of this node
    truth: Truth | None
    children: list[NodeReport]


class Piece(TypedDict):
    """What one text adds to the score of an image; None where the score is no sum."""

    text: str
    weight: float
    cosine: float
    part: float | None


class ImageReport(TypedDict):
    """One image that the report shows."""

    file_name: str
    class_id: str  # answered node
    label: str
    probability: float
    margin: float
    decision: str
    outcome: Literal["right", "above", "wrong"] | None  # with a label; above: a group that holds it
    top: list[list[Any]]  # [class id, probability], at most 5
    why: list[Piece]  # texts of the answered class
    against: str | None  # runner-up's class id
    why_not: list[Piece]  # texts of the runner-up
    thumbnail: str | None  # data: URI of a small JPEG
    true_id: str | None
    about: list[str]  # reasons it is shown: typical, doubtful, no class, ...


class Summary(TypedDict):
    """The head of the page: of the answers that are given out, as the decide stage makes them."""

    n_unreadable: int
    n_classes: int
    n_otherwise: int  # images that are not answered with the class of their highest score
    coverage: float  # share of the images whose decision is "accept"
    expected_accuracy: float | None  # share of the images whose answer is their class
    expected_above: float | None  # share of the images whose answer is a group that holds it
    n_labelled: int | None  # images with a label; None where no labels were given
    accuracy: float | None  # share of these whose answer is their class
    above: float | None  # share of these whose answer is a group that holds it
    accuracy_accepted: float | None  # of those of them whose decision is "accept"
    severity: float | None  # mean LCA height where the answer is not the class, with labels
    expected_severity: float | None  # the same, expected
    decisions: dict[str, int]  # accept, backoff, reject
    verdict: str  # one sentence: what to think of it and what to do first


class Height(TypedDict):
    """Answers other than the class, at one height of the lowest common ancestor."""

    height: int
    expected_share: float  # of all images
    true_share: float | None


class Report(TypedDict):
    """Everything."""

    format: Literal["byname-report/1"]
    title: str
    recipe: str
    n_images: int
    expected_accuracy: float | None  # of the classes of the highest score
    interval: list[float] | None
    worst: list[str]  # ids of all classes, those expected to fail first; empty with one class
    summary: Summary
    findings: list[dict[str, Any]]  # Finding.to_dict(), problems first
    classes: dict[str, ClassReport]  # by id, in the order of the taxonomy
    tree: NodeReport
    heights: list[Height]
    images: list[ImageReport]
    unreadable: list[dict[str, str]]  # file_name, error; the first 100
    numbers: dict[str, dict[str, float | None]]  # modality gap and other reports, by their names
    members: dict[str, dict[str, Any]]  # what the stages learned
    notes: list[str]
    provenance: dict[str, Any]  # byname, date, command, encoder, recipe, prompts, versions

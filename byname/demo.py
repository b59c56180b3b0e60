"""``byname demo``: the main job on photos that come with scikit-image and scikit-learn."""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from byname.classifier import Classifier
from byname.console import Counter, collect_warnings, progress_bar, say, table
from byname.errors import EncoderUnavailableError, OutputError

__all__ = ["CLASSES", "PHOTOS", "run_demo", "write_demo"]

# (package folder, file, class name). Chosen as subjects that mini's 1000 ImageNet classes can
# describe, for a first look: the count that the demo prints is no measure of accuracy.
PHOTOS = (
    ("skimage/data", "astronaut.png", "astronaut"),
    ("skimage/data", "brick.png", "brick wall"),
    ("skimage/data", "camera.png", "photographer"),
    ("skimage/data", "chelsea.png", "cat"),
    ("sklearn/datasets/images", "china.jpg", "temple"),
    ("skimage/data", "coffee.png", "cup of coffee"),
    ("skimage/data", "coins.png", "coins"),
    ("sklearn/datasets/images", "flower.jpg", "flower"),
    ("skimage/data", "grass.png", "grass"),
    ("skimage/data", "horse.png", "horse"),
    ("skimage/data", "hubble_deep_field.jpg", "galaxy"),
    ("skimage/data", "motorcycle_left.png", "motorcycle"),
    ("skimage/data", "page.png", "printed page"),
    ("skimage/data", "rocket.jpg", "rocket"),
)
CLASSES = {
    "animals": ("cat", "horse"),
    "people": ("astronaut", "photographer"),
    "plants": ("flower", "grass"),
    "things": ("coins", "cup of coffee", "printed page"),
    "buildings": ("brick wall", "temple"),
    "vehicles": ("motorcycle", "rocket"),
    "sky": ("galaxy",),
}


def write_demo(folder: Path) -> dict[str, str]:
    """Copy the photos to ``folder/photos`` and write ``folder/classes.csv``.

    Returns
    -------
    dict
        Name of the true class by file name; it is used only to print right or wrong.

    Raises
    ------
    EncoderUnavailableError
        When the packages with the photos are not installed.
    OutputError
        When the folder cannot be written.
    """
    try:
        (folder / "photos").mkdir(parents=True, exist_ok=True)
        for place, name, _ in PHOTOS:
            shutil.copyfile(_package_folder(place) / name, folder / "photos" / name)
        lines = ["group,name", *(f"{g},{n}" for g, names in CLASSES.items() for n in names)]
        (folder / "classes.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(
            f"write the demo to '{folder}'", error.strerror or str(error), "Choose another folder."
        ) from None
    return {name: label for _, name, label in PHOTOS}


def _package_folder(place: str) -> Path:
    package, _, inside = place.partition("/")
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise EncoderUnavailableError(
            "run the demo",
            f"the package '{package}', which holds photos for it, is not installed",
            "Install them: pip install 'byname[demo]'.",
        )
    return Path(found.submodule_search_locations[0]) / inside


def run_demo(recipe: str = "ensemble", keep: Path | None = None) -> int:
    """Label the photos with the encoder ``mini``, print the table; returns how many are right."""
    start = time.perf_counter()
    with ExitStack() as stack:
        stack.enter_context(collect_warnings())
        folder = keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="byname-")))
        truth = write_demo(folder)
        model = Classifier(
            folder / "classes.csv", encoder="mini", recipe=recipe, lineage=("group", "name")
        )
        with progress_bar(Counter(), len(PHOTOS), quiet=False) as advance:
            model.progress = advance
            rows = model.classify(folder / "photos")
        group = {
            leaf.name: model.taxonomy_.ancestors(leaf.id)[0] for leaf in model.taxonomy_.classes
        }
    shown, right, right_group = [], 0, 0
    for row in rows:
        true = truth[row.file_name]
        good, good_group = row.label == true, group[str(row.label)] == group[true]
        right, right_group = right + good, right_group + good_group
        mark = "right" if good else f"wrong: {true}" + (" (same group)" if good_group else "")
        shown.append((row.file_name, row.label, row.probability, row.path, mark))
    table("", ("file_name", "label", "probability", "path", ""), shown)
    print(f"{right} of {len(rows)} right, {right_group} of {len(rows)} in the right group")
    seconds = time.perf_counter() - start
    say(f"{len(model.taxonomy_)} classes, {seconds:.1f} s, encoder mini, offline")
    say("mini is made for trying byname out, not for accuracy: see 'byname list encoders'")
    if keep:
        say(f"photos and classes are in '{keep}'; now try:")
        say(f"  byname classify {keep}/photos --classes {keep}/classes.csv --encoder mini")
    return right

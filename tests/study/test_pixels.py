"""What is said of the pictures: odd files, none, any order, hostile names."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from byname.classifier import Classifier
from byname.errors import ImageError
from byname.images.preprocess import Preprocess
from byname.images.sources import open_source
from byname.study import pixels
from byname.study.finding import SHOWN, Finding
from byname.study.pixels import check_pixels, look
from byname.study.subject import Subject
from byname.taskfile import Task
from byname.taxonomy import Taxonomy
from tests.helpers import FakeEncoder, make_photos

HOSTILE = "../<img src=x onerror=alert(1)>\n\x1b[31m\ud800.png"


def noise(width: int = 300, height: int = 260, mode: str = "RGB", seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).convert(mode)


def file(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def subject_of(
    files: Mapping[str, bytes], read: Callable[[str], bytes] | None = None, size: int | None = 224
) -> Subject:
    n = len(files)
    names = Taxonomy.from_names(["cat", "dog"])
    task = Task(np.ones((n, 2), np.float32) / np.sqrt(2), np.eye(2)[None], ("a {}",), names)
    made = Subject.of_task(task, "plain")
    return replace(made, keys=tuple(files), read=read or files.__getitem__, input_size=size)


def check(subject: Subject) -> dict[str, Finding]:
    return {one.kind: one for one in check_pixels(subject, None)[0]}  # type: ignore[arg-type]


def numbers(subject: Subject) -> dict[str, float | None]:
    return check_pixels(subject, None)[1]["pixels"]  # type: ignore[arg-type]


def test_usual_photos_are_not_worth_a_word() -> None:
    subject = subject_of({f"{i}.jpg": file(noise(seed=i), "JPEG") for i in range(3)})
    assert check(subject) == {}
    assert numbers(subject) == {
        "looked_at": 3,
        "colours_looked_at": 3,
        "median_short_side": 260,
        "median_aspect": 300 / 260,
        "greyscale_share": 0,
        "one_colour_share": 0,
    }


def test_low_resolution_smallest_first() -> None:
    files = {f"{side}.png": file(noise(side, side)) for side in (100, 223, 224, 50, 300)}
    one = check(subject_of(files))["low_resolution"]
    assert one.images == ("50.png", "100.png", "223.png")
    assert one.count == 3
    assert one.level == "warning"
    assert "3 of 5 images" in one.what
    assert "224 pixels" in one.what
    assert one.values["least_side"] == 50
    assert "low_resolution" not in check(subject_of(files, size=None))
    assert check(subject_of(files, size=10)) == {}


def test_a_rare_fault_is_a_note() -> None:
    files = {f"{i}.png": file(noise(230, 230, seed=i)) for i in range(19)}
    assert check(subject_of(files | {"s.png": file(noise(9, 9))}))["low_resolution"].level == "note"


@pytest.mark.parametrize(
    ("name", "data", "grey"),
    [
        ("grey saved as RGB", file(noise(mode="L").convert("RGB"), "JPEG", quality=60), True),
        ("grey", file(noise(mode="L")), True),
        (
            "16 bits",
            file(Image.fromarray(np.arange(65536, dtype=np.uint16).reshape(256, 256))),
            True,
        ),
        ("two colours", file(noise(mode="1")), True),
        ("palette", file(noise(mode="P")), False),
        ("grey palette", file(noise(mode="L").convert("P"), "GIF"), True),
        ("CMYK", file(noise(mode="CMYK"), "JPEG"), False),
        ("colour", file(noise(), "JPEG", quality=60), False),
        ("hidden colour", file(noise(mode="L").convert("RGBA")), True),
    ],
)
def test_greyscale(name: str, data: bytes, grey: bool) -> None:
    found = check(subject_of({name: data}))
    assert ("greyscale" in found) == grey
    assert set(found) <= {"greyscale"}
    if grey:
        assert found["greyscale"].images == (name,)
        assert found["greyscale"].level == "note"


def test_a_tint_is_a_colour() -> None:
    grey = np.asarray(noise(mode="L"), np.float64)[..., None]
    sepia = (grey * [1.0, 0.85, 0.65]).astype(np.uint8)
    assert "greyscale" not in check(subject_of({"old.png": file(Image.fromarray(sepia))}))


def test_an_animation_is_its_first_frame() -> None:
    frames = [noise(mode="L", seed=i).convert("P") for i in range(2)]
    colour = Image.new("RGB", (300, 260), "red")
    data = file(frames[0], "GIF", save_all=True, append_images=[frames[1], colour])
    assert set(check(subject_of({"a.gif": data}))) == {"greyscale"}


def test_empty_pictures_are_not_called_grey_as_well() -> None:
    blot = Image.new("RGB", (300, 300), "white")
    blot.paste(noise(300, 9), (0, 0))
    files = {
        "white.png": file(Image.new("RGB", (300, 300), "white")),
        "clear.png": file(Image.new("RGBA", (300, 300), (9, 9, 9, 0))),
        "blot.png": file(blot),
        "half.png": file(
            Image.fromarray(
                np.repeat([[[0, 0, 0]], [[255, 0, 0]]], 300, 0).astype("u1").repeat(300, 1)
            )
        ),
        "noise.png": file(noise()),
    }
    found = check(subject_of(files))
    assert set(found) == {"mostly_one_colour"}
    assert found["mostly_one_colour"].images == ("clear.png", "white.png", "blot.png")


def test_extreme_aspect_says_how_much_is_lost() -> None:
    files = {
        "10.png": file(noise(2300, 230)),
        "4.jpg": file(noise(230, 920), "JPEG"),
        "2.png": file(noise(460, 230)),
        "3.png": file(noise(690, 230)),
    }
    subject = subject_of(files)
    one = check(subject)["extreme_aspect"]
    assert one.images == ("10.png", "4.jpg", "3.png")
    assert "75% in the middle case and 90% at most" in one.what
    assert one.values["median_lost"] == pytest.approx(0.75)
    squeezed = check(replace(subject, squeezed=True))["extreme_aspect"]
    assert "10.0-fold at most" in squeezed.what
    assert "crop" not in squeezed.what


def test_one_pixel_and_a_thread() -> None:
    thread = noise(20_000, 1)
    found = check(subject_of({"dot.png": file(noise(1, 1)), "thread.png": file(thread)}))
    assert found["low_resolution"].count == 2
    assert found["extreme_aspect"].images == ("thread.png",)
    assert found["mostly_one_colour"].images == ("dot.png",)


def test_what_cannot_be_read_is_passed_over() -> None:
    whole = file(noise(seed=3), "JPEG")
    files = {
        "good.jpg": whole,
        "cut.jpg": whole[: len(whole) // 2],
        "empty.jpg": b"",
        "text.jpg": b"hello",
        "zeros.jpg": bytes(100),
        "header.png": file(noise())[:20],
    }
    subject = subject_of(files)
    assert check(subject) == {}
    # Of the one that was cut off, the size is known, and not the colours.
    assert numbers(subject)["looked_at"] == 2
    assert numbers(subject)["colours_looked_at"] == 1


@pytest.mark.parametrize(
    "error", [ImageError("read", "it is gone"), OSError(5, "io"), KeyError("x"), ValueError("\0")]
)
def test_a_source_that_is_gone(error: Exception) -> None:
    def read(key: str) -> bytes:
        raise error

    assert check_pixels(subject_of({"a.png": b""}, read), None) == ([], {})  # type: ignore[arg-type]


@pytest.mark.parametrize("n", [0, 1, 2])
def test_hardly_any_images(n: int) -> None:
    files = {f"{i}.png": file(noise(100, 100, seed=i)) for i in range(n)}
    found = check(subject_of(files))
    assert set(found) == ({"low_resolution"} if n else set())
    if n:
        assert f"{n} of {n} image{'s' if n > 1 else ''} " in found["low_resolution"].what


def test_without_files_there_is_nothing_to_see() -> None:
    subject = replace(subject_of({"a": b""}), read=None)
    assert check_pixels(subject, None) == ([], {})  # type: ignore[arg-type]


def test_a_sample_that_no_order_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels, "SIZES", 30)
    monkeypatch.setattr(pixels, "COLOURS", 10)
    files = {f"{i}.png": file(noise(50 + i, 40, "L", seed=i)) for i in range(60)}
    keys = list(files)
    np.random.default_rng(0).shuffle(keys)
    first, second = check(subject_of(files)), check(subject_of({key: files[key] for key in keys}))
    assert first == second
    assert first["low_resolution"].count == 30
    assert "30 of 30 images (a sample of 60)" in first["low_resolution"].what
    assert first["greyscale"].count == 10
    assert len(first["low_resolution"].images) == SHOWN


def test_huge_pictures_are_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {f"{i}.png": file(noise(300, 300, "L", seed=i)) for i in range(4)}
    assert numbers(subject_of(files))["colours_looked_at"] == 4
    monkeypatch.setattr(pixels, "ALL", 2 * 300 * 300)
    assert numbers(subject_of(files))["colours_looked_at"] == 2
    monkeypatch.setattr(pixels, "LARGEST", 300 * 300 - 1)
    subject = subject_of(files)
    assert numbers(subject)["colours_looked_at"] == 0
    assert numbers(subject)["greyscale_share"] is None
    assert check(subject) == {}


def test_a_bomb_is_only_measured() -> None:
    bomb = b"P6 60000 60000 255 " + bytes(99)
    assert look(bomb, colours=False).width == 60_000
    subject = subject_of({"bomb.ppm": bomb})
    assert check(subject) == {}
    assert numbers(subject)["median_short_side"] == 60_000
    assert numbers(subject)["colours_looked_at"] == 0


def test_hostile_names_stay_in_their_place() -> None:
    one = check(subject_of({HOSTILE: file(noise(9, 9))}))["low_resolution"]
    assert one.images == (HOSTILE,)
    assert "onerror" not in one.what + one.next


@pytest.mark.parametrize(("mode", "squeezed"), [("shortest", False), ("squash", True)])
def test_the_size_is_the_encoders(tmp_path: Path, mode: Any, squeezed: bool) -> None:
    make_photos(tmp_path, 3)
    encoder = FakeEncoder()
    encoder.info = replace(encoder.info, preprocess=Preprocess(size=32, resize=32, mode=mode))
    model = Classifier(["red", "green"], encoder=encoder, cache=False)
    subject = Subject.of_classifier(model, open_source(str(tmp_path)))
    assert (subject.input_size, subject.squeezed) == (32, squeezed)
    assert numbers(subject)["looked_at"] == 3


def test_a_task_has_no_size() -> None:
    task = Task(np.eye(2), np.eye(2)[None], ("a {}",), Taxonomy.from_names(["cat", "dog"]))
    subject = Subject.of_task(task, "plain")
    assert subject.input_size is None
    assert check_pixels(subject, None) == ([], {})  # type: ignore[arg-type]

"""``byname export`` as a user meets it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.commands import Run

pytest.importorskip("onnx", reason="exports need the package onnx")

from byname import commands_export
from byname.encoders import export_graphs, load_encoder
from byname.errors import EncoderUnavailableError
from tests.encoders import tiny, tiny_torch
from tests.helpers import FakeEncoder, make_photos


@pytest.fixture
def torch_model(monkeypatch: pytest.MonkeyPatch) -> None:
    from byname.encoders.torch_base import TorchEncoder
    from tests.encoders.test_export import model

    pytest.importorskip("torch")
    monkeypatch.setattr(
        commands_export, "load_encoder", lambda *a, **k: TorchEncoder(model(), threads=None)
    )


@pytest.mark.torch
@pytest.mark.usefixtures("torch_model")
def test_the_table_the_size_and_the_next_command(tmp_path: Path, run: Run) -> None:
    photos = make_photos(tmp_path / "photos", 9)
    (tmp_path / "photos/broken.png").write_bytes(b"no image")
    folder = tmp_path / "my encoder"
    done = run("export", "transformers:X", folder, "--check", photos, "--quiet")
    assert done.code == 0
    assert done.err.strip() == (
        "warning: not compared: 'broken.png' (not an image: it starts with 'no image')"
    )
    lines = done.out.splitlines()
    (images,) = (line for line in lines if "│ images" in line)
    assert [cell.strip() for cell in images.split("│")[2:6:3]] == ["9", "100.0%"]
    size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    assert f"'{folder}': {size:.1f} MB; texts run at their own length" in lines
    assert "licence of the weights: unknown (unknown)" in lines
    command = shlex.split(lines[-1])
    assert command[:2] == ["byname", "classify"]
    assert lines[-2] == "next:"
    assert load_encoder(command[-1]).info.dim == tiny.DIM


@pytest.mark.torch
def test_a_folder_of_transformers_end_to_end(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_torch.transformers()
    source, folder = tiny_torch.save(tmp_path / "hf", "clip"), tmp_path / "enc"
    photos = make_photos(tmp_path / "photos", 6)
    done = run("export", f"transformers:{source}", folder)
    assert done.code == 0, done.err
    assert "exporting transformers:" in done.err
    assert "licence of the weights: mit" in done.out
    rows = []
    for encoder in (f"transformers:{source}", f"onnx:{folder}"):
        done = run(
            "classify", photos, "--classes", "dog,cat", "-e", encoder, "-o", "-", "--no-cache", "-q"
        )
        assert done.code == 0, done.err
        rows.append([line.split(",")[:3] for line in done.out.splitlines()])
    assert len(rows[0]) == 7
    assert rows[0] == rows[1]
    again = run("export", f"transformers:{source}", folder)
    assert again.code == 2
    assert again.err.strip() == (
        f"error: cannot export to '{folder}': there is an encoder already. "
        "Add --overwrite to replace it."
    )
    assert run("export", f"transformers:{source}", folder, "--overwrite", "-q").code == 0


@pytest.mark.torch
@pytest.mark.usefixtures("torch_model")
def test_without_real_images(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(folder: Path) -> None:
        raise EncoderUnavailableError("run the demo", "no photos")

    monkeypatch.setattr(commands_export, "write_demo", absent)
    done = run("export", "transformers:X", tmp_path / "enc", "-q")
    assert done.code == 0
    assert "no real images to compare with: give some by --check IMAGES" in done.err
    assert "random images" in done.out
    assert "│ images" not in done.out


@pytest.mark.torch
@pytest.mark.usefixtures("torch_model")
def test_force_is_said(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from byname.encoders import export
    from byname.encoders.export_parity import Parity, Row

    bad = Parity((Row("texts", 3, 0.2, 0.98),))
    monkeypatch.setattr(export, "compare", lambda *a: bad)
    done = run("export", "transformers:X", tmp_path / "enc", "-q")
    assert done.code == 2
    assert "cosine 0.980000 for texts (at least 0.9999 is wanted). Nothing was kept" in done.err
    assert not (tmp_path / "enc").exists()
    done = run("export", "transformers:X", tmp_path / "enc", "-q", "--force")
    assert done.code == 0
    assert "warning: the vectors differ from torch's; kept because of --force" in done.err


@pytest.mark.parametrize(
    ("encoder", "seen"),
    [
        ("mini", "it has no torch model"),
        ("onnx:somewhere", "it has no torch model"),
        ("clip-vit-b-32", "it has no torch model, it stands for 'onnx-hub:"),
    ],
)
def test_encoders_that_need_no_export(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, encoder: str, seen: str
) -> None:
    def load(*_: Any, **__: Any) -> Any:
        raise AssertionError("it was loaded")

    monkeypatch.setattr(commands_export, "load_encoder", load)
    done = run("export", encoder, tmp_path / "enc")
    assert done.code == 2
    assert f"error: cannot export encoder '{encoder}': {seen}" in done.err
    assert "It runs without torch already." in done.err
    assert not (tmp_path / "enc").exists()


def test_an_encoder_of_another_kind(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands_export, "load_encoder", lambda *a, **k: FakeEncoder())
    done = run("export", "anything", tmp_path / "enc")
    assert done.code == 2
    assert "cannot export encoder 'fake': it has no torch model. Exported are" in done.err


def test_what_is_refused_before_the_model_is_loaded(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: Any, **__: Any) -> Any:
        raise AssertionError("it was loaded")

    monkeypatch.setattr(commands_export, "load_encoder", load)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/a.txt").write_text("x")
    done = run("export", "transformers:X", tmp_path / "full", "--overwrite")
    assert done.code == 2
    assert "the folder is not empty and holds no encoder but a.txt" in done.err
    done = run("export", "transformers:X", tmp_path / "new", "--check", tmp_path / "absent")
    assert done.code == 2
    assert "absent" in done.err
    done = run("export", "transformers:X", tmp_path / "new", "--opset", "9")
    assert done.code == 2
    assert "cannot export with opset 9" in done.err
    monkeypatch.setattr(export_graphs.importlib.util, "find_spec", lambda *a: None)
    done = run("export", "transformers:X", tmp_path / "new")
    assert done.code == 2
    assert "the package 'onnx' is missing" in done.err
    assert 'pip install "byname[export]"' in done.err


def test_images_of_which_none_can_be_read(tmp_path: Path, run: Run) -> None:
    from byname.errors import SourceError
    from byname.images.preprocess import Preprocess
    from byname.images.sources import open_source

    (tmp_path / "a.png").write_bytes(b"no image")
    source = open_source(tmp_path)
    with pytest.raises(SourceError, match="none of 1 could be read"):
        commands_export._real_images(source, Preprocess(8, 8))
    photos = open_source(make_photos(tmp_path / "photos", 150))
    pixels = commands_export._real_images(photos, Preprocess(8, 8))
    assert pixels is not None
    assert pixels.shape == (50, 8, 8, 3)
    assert pixels.dtype == np.uint8


@pytest.mark.parametrize(
    ("encoder", "folder", "seen"),
    [
        ("", "enc", "cannot export an encoder: its name is empty. See 'byname list encoders'."),
        ("transformers:X", "", "cannot export to '.': it is the current folder, or no name at all"),
        ("transformers:", "enc", "nothing follows 'transformers:'"),
    ],
)
def test_nothing_named(
    tmp_path: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    encoder: str,
    folder: str,
    seen: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("export", encoder, folder)
    assert done.code == 2
    assert seen in done.err
    assert list(tmp_path.iterdir()) == []

"""``--no-cache`` keeps nothing, but not before what it was kept for is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from byname import commands
from byname.embeddings import Embeddings
from byname.encoders.onnx import OnnxEncoder
from byname.errors import OutputError
from tests.faults import world

N = 40


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each batch had."""
    counts: list[int] = []
    real = OnnxEncoder.encode_images

    def encode_images(self: OnnxEncoder, pixels: np.ndarray) -> np.ndarray:
        counts.append(len(pixels))
        return real(self, pixels)

    monkeypatch.setattr(OnnxEncoder, "encode_images", encode_images)
    return counts


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BYNAME_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "runs"


def embed(images: Path, model: Path, output: Path) -> None:
    commands.embed(
        str(images),
        output,
        encoder=f"onnx:{model}",
        image_column=None,
        batch_size=8,
        threads=1,
        device="cpu",
        cache=False,
        quiet=True,
    )


def test_an_output_that_cannot_be_written_costs_no_vector(
    tmp_path: Path,
    model: Path,
    base: Path,
    encoded: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world.photos(tmp_path / "photos", N)
    output = tmp_path / "x.parquet"

    def full(self: Embeddings, path: Path) -> None:
        raise OutputError(f"write '{path}'", "No space left on device")

    with monkeypatch.context() as context:
        context.setattr(Embeddings, "save", full)
        for _ in range(2):
            with pytest.raises(OutputError):
                embed(tmp_path / "photos", model, output)
    assert sum(encoded) == N
    assert list(base.iterdir())
    embed(tmp_path / "photos", model, output)
    assert sum(encoded) == N, "what was made is still there"
    assert len(Embeddings.load(output)) == N
    assert not list(base.iterdir()), "and nothing stays of it"
    embed(tmp_path / "photos", model, output)
    assert sum(encoded) == 2 * N, "nothing is known of it"

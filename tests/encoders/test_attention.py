"""What CLIP models of transformers look at, against the library's own weights."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest

from byname.encoders.transformers import load_transformers
from byname.errors import EncoderError
from tests.encoders.tiny_torch import save

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("kind", ["clip", "metaclip_2", "chinese_clip", "altclip"])
def test_weights_of_cls_are_those_of_the_library(tmp_path: Path, kind: str) -> None:
    torch = pytest.importorskip("torch", reason="needs torch")
    library = importlib.import_module("transformers")
    folder = save(tmp_path / kind, kind)
    encoder = load_transformers(str(folder))
    assert encoder.gives_attention
    assert encoder.info.preprocess is not None
    pixels = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    found = encoder.attention(pixels)
    assert found.shape == (3, 2, 2)
    assert found.dtype == np.float32
    # the library gives weights with its plain kernel only
    model = library.AutoModel.from_pretrained(str(folder), attn_implementation="eager").eval()
    mean, std = encoder.info.preprocess.mean, encoder.info.preprocess.std
    x = (pixels / 255 - mean) / std
    with torch.no_grad():
        out = model.vision_model(
            pixel_values=torch.tensor(x).permute(0, 3, 1, 2).float(), output_attentions=True
        )
    expected = out.attentions[-1].mean(1)[:, 0, 1:].numpy().reshape(3, 2, 2)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert not np.allclose(found[0], found[1], atol=1e-4)


def test_a_model_without_cls_gives_none(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="needs torch")
    encoder = load_transformers(str(save(tmp_path / "siglip", "siglip")))
    assert not encoder.gives_attention
    with pytest.raises(EncoderError, match="for attention: it gives none"):
        encoder.attention(np.zeros((1, 16, 16, 3), np.uint8))

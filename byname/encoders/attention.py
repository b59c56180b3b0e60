"""What the image tower of a CLIP model of transformers looks at."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byname.encoders.arrays import as_pixels
from byname.encoders.torch_base import Model, TorchEncoder

__all__ = ["FAMILIES", "AttentiveEncoder"]

FAMILIES = ("clip", "metaclip_2", "altclip", "chinese_clip")
"""Models whose image vector is read at a first token, CLS, in front of those of the patches."""


class AttentiveEncoder(TorchEncoder):
    """A torch encoder that says how much its CLS token attends to each patch in the last layer.

    Parameters
    ----------
    model, device, precision, threads
        As in :class:`TorchEncoder`.
    layers
        The model's own image tower, ``vision_model``.
    crop : int or None
        Side to which the pixels are cut before they enter it.

    Notes
    -----
    The weights are computed from the input of the last layer: the attention kernels that are fast
    do not return theirs, and asking for others would change the vectors.
    """

    def __init__(self, model: Model, *, layers: Any, crop: int | None, **kwargs: Any) -> None:
        super().__init__(model, **kwargs)
        self._tower, self._crop = layers, crop
        self.gives_attention = self.visual is not None

    def attention(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(B, size, size, 3) pixels to (B, h, w): softmax over tokens, mean over heads."""
        torch = importlib.import_module("torch")
        preprocess = self.info.preprocess
        if preprocess is None:
            raise self._lacks("attention")
        pixels = as_pixels(pixels, preprocess.size, self.info.id)
        mean, std = (np.array(v, np.float32) for v in (preprocess.mean, preprocess.std))
        with torch.inference_mode():
            x = torch.from_numpy((pixels.astype(np.float32) / 255 - mean) / std)
            x = x.permute(0, 3, 1, 2).to(self.device, self.dtype)
            if self._crop is not None:
                start = (x.shape[-1] - self._crop) // 2
                x = x[..., start : start + self._crop, start : start + self._crop]
            layer = self._tower.encoder.layers[-1]
            seen = self._tower(pixel_values=x, output_hidden_states=True).hidden_states[-2]
            own = layer.self_attn
            tokens = layer.layer_norm1(seen)
            heads = own.num_heads
            cls = own.q_proj(tokens[:, :1]).unflatten(-1, (heads, -1)).transpose(1, 2)
            keys = own.k_proj(tokens).unflatten(-1, (heads, -1)).transpose(1, 2)
            logits = (cls * own.scale) @ keys.transpose(-1, -2)  # (B, heads, 1, T)
            weights = logits.float().softmax(-1)[:, :, 0, 1:].mean(1).cpu().numpy()
        patch = int(self._tower.config.patch_size)
        grid = (x.shape[-2] // patch, x.shape[-1] // patch)
        return np.asarray(weights.reshape(len(pixels), *grid), np.float32)

    def close(self) -> None:
        """Free the weights."""
        super().close()
        self._tower, self.gives_attention = None, False

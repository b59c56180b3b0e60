"""Encoders known by a short name. Sizes, licences and scales are as published by their authors."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DEFAULT", "PRESETS", "Preset"]


@dataclass(frozen=True)
class Preset:
    """One line of ``byname list encoders``.

    Parameters
    ----------
    name : str
        What the user writes.
    spec : str
        What it stands for: ``"mini"`` or ``"onnx-hub:REPO"``.
    licence : str
        SPDX name of the weights' licence.
    size_mb : int
        What is downloaded or installed.
    input_size, dim : int
        Side of the square that it sees, and width of its vectors.
    context : int
        Longest text in tokens.
    logit_scale, logit_bias : float
        As trained; ONNX exports leave them out.
    source : str
        Where the weights come from.
    note : str
        What a user should know.
    """

    name: str
    spec: str
    licence: str
    size_mb: int
    input_size: int
    dim: int
    context: int
    logit_scale: float
    source: str
    note: str
    logit_bias: float = 0.0


# OpenAI's ViT-B/32 is the default: MIT, the encoder that most published zero-shot numbers use, and
# the cheapest CLIP on a CPU. This export is preferred to others because its batch and its text
# length are free: short prompts cost a fifth of 77 tokens, and images run in batches.
DEFAULT = "clip-vit-b-32"

_ALL = (
    Preset(
        DEFAULT, "onnx-hub:Xenova/clip-vit-base-patch32", "MIT", 606, 224, 512, 77, 100.0,
        "https://huggingface.co/Xenova/clip-vit-base-patch32", "default; OpenAI CLIP ViT-B/32",
    ),
    Preset(
        "clip-vit-b-16", "onnx-hub:Xenova/clip-vit-base-patch16", "MIT", 599, 224, 512, 77, 100.0,
        "https://huggingface.co/Xenova/clip-vit-base-patch16",
        "OpenAI CLIP ViT-B/16; more accurate, four times slower",
    ),
    Preset(
        "clip-vit-l-14", "onnx-hub:Xenova/clip-vit-large-patch14", "MIT", 1711, 224, 768, 77, 100.0,
        "https://huggingface.co/Xenova/clip-vit-large-patch14",
        "OpenAI CLIP ViT-L/14; the most accurate here, wants a GPU or patience",
    ),
    Preset(
        "openclip-vit-b-32", "onnx-hub:immich-app/ViT-B-32__laion2b-s34b-b79k", "MIT", 606, 224,
        512, 77, 100.0, "https://huggingface.co/immich-app/ViT-B-32__laion2b-s34b-b79k",
        "OpenCLIP ViT-B/32, LAION-2B; this export takes one image and 77 tokens at a time",
    ),
    Preset(
        "siglip-b-16", "onnx-hub:Xenova/siglip-base-patch16-224", "Apache-2.0", 813, 224, 768, 64,
        117.33, "https://huggingface.co/Xenova/siglip-base-patch16-224",
        "SigLIP B/16, WebLI; texts always cost 64 tokens", logit_bias=-12.93,
    ),
    Preset(
        "mini", "mini", "Apache-2.0", 49, 260, 1000, 128, 34.0,
        'pip install "byname[demo]"', "embedded, offline, for trying things out; not for accuracy",
    ),
)  # fmt: skip
PRESETS = {preset.name: preset for preset in _ALL}

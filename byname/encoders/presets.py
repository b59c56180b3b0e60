"""Encoders known by a short name.

What is said of each is as published by its authors or read off the architecture; None where that is
not known for certain.
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass

__all__ = ["DEFAULT", "PRESETS", "Preset", "matching"]

# OpenAI's ViT-B/32 is the default: MIT, the encoder that most published zero-shot numbers use, and
# the cheapest CLIP on a CPU. This export is preferred to others because its batch and its text
# length are free: short prompts cost a fifth of 77 tokens, and images run in batches.
DEFAULT = "clip-vit-b-32"


@dataclass(frozen=True)
class Preset:
    """One line of ``byname list encoders``.

    Parameters
    ----------
    name : str
        What the user writes.
    spec : str
        What it stands for: ``"mini"``, or a spec of ``load_encoder`` such as
        ``"onnx-hub:REPO"``; empty where byname cannot load it, and ``note`` says why.
    licence : str
        SPDX name of the weights' licence where there is one; "unknown".
    size_mb : int or None
        What is downloaded or installed; for torch models four bytes a parameter.
    input_size, dim : int or None
        Side of the square that it sees (None for sounds), and width of its vectors.
    context : int or None
        Longest text in tokens.
    logit_scale : float or None
        As trained. ONNX exports leave it out, and it is taken from here; torch weights hold it.
    source : str
        Where the weights come from.
    note : str
        What a user should know.
    logit_bias : float
        As trained; for sigmoid models.
    family : str
        Kind of model, such as ``"clip"`` or ``"siglip2"``.
    domain : str
        What it was trained for: ``"general"``, ``"remote-sensing"``, ``"biology"``, ...
    """

    name: str
    spec: str
    licence: str
    size_mb: int | None
    input_size: int | None
    dim: int | None
    context: int | None
    logit_scale: float | None
    source: str
    note: str
    logit_bias: float = 0.0
    family: str = "clip"
    domain: str = "general"


def matching(pattern: str = "*") -> list[Preset]:
    """The preset of that name; else those that match, or whose family or domain it names.

    Capitals do not matter.

    Examples
    --------
    >>> [p.name for p in matching("clip-vit-l*")]
    ['clip-vit-l-14', 'clip-vit-l-14-336']
    >>> [p.name for p in matching("audio")][:2]
    ['clap-htsat-unfused', 'clap-htsat-fused']
    """
    pattern = pattern.lower()
    if pattern in PRESETS:
        return [PRESETS[pattern]]
    return [
        p
        for p in PRESETS.values()
        if fnmatch.fnmatchcase(p.name, pattern) or pattern in (p.family, p.domain)
    ]


def _all() -> dict[str, Preset]:
    from byname.encoders.presets_domains import DOMAINS
    from byname.encoders.presets_general import GENERAL

    return {preset.name: preset for preset in (*GENERAL, *DOMAINS)}


PRESETS = _all()

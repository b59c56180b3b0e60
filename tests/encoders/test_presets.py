"""The table of encoders that are known by name; test_open_clip compares it with the library."""

from __future__ import annotations

import re

import pytest

from byname.encoders.presets import DEFAULT, PRESETS, Preset, matching
from byname.encoders.presets_domains import DOMAINS
from byname.encoders.presets_general import GENERAL

EVERY = pytest.mark.parametrize("preset", PRESETS.values(), ids=lambda p: p.name)


def test_names_are_unique_and_the_default_comes_first() -> None:
    assert len(PRESETS) == len(GENERAL) + len(DOMAINS)
    assert next(iter(PRESETS)) == DEFAULT
    assert len({p.spec for p in PRESETS.values() if p.spec}) == sum(
        bool(p.spec) for p in PRESETS.values()
    )


@EVERY
def test_a_line_is_complete(preset: Preset) -> None:
    assert re.fullmatch(r"[a-z0-9-]+", preset.name)
    kind = preset.spec.partition(":")[0]
    assert kind in ("mini", "onnx-hub", "transformers", "open_clip", "")
    assert preset.licence
    assert preset.source.startswith("https://") or preset.name == "mini"
    assert re.fullmatch(r"[a-z0-9-]+", preset.family)
    assert re.fullmatch(r"[a-z-]+", preset.domain)
    for value in (preset.size_mb, preset.input_size, preset.dim, preset.context):
        assert value is None or value > 0
    assert len(preset.note) > 5
    if kind in ("mini", "onnx-hub"):  # nothing else holds the scale of these
        assert preset.logit_scale is not None
        assert preset.dim is not None
    if "hf-hub:" in preset.spec or kind == "transformers":
        repo = preset.source.removeprefix("https://huggingface.co/")
        assert repo in preset.spec


def test_what_cannot_be_loaded_says_why() -> None:
    silent = [p for p in PRESETS.values() if not p.spec]
    assert {"fg-clip", "jina-clip-v2", "longclip-b", "reclap"} <= {p.name for p in silent}
    for preset in silent:
        assert re.search(r"does not run|use |its own|as longclip|needs its", preset.note), preset


def test_the_encoders_of_the_field_are_here() -> None:
    asked = """remoteclip-vit-b-32 georsclip-vit-b-32 bioclip bioclip-2 metaclip-vit-b-32 longclip-b
        fg-clip fare2-l-14 mobileclip-s0 mobileclip-s2 tinyclip-8m-16 dermlip-vit-b-16 bmc-clip
        skyclip-vit-l-14 open-pmc-clip pathoclip align-base altclip chinese-clip-b-16
        clap-htsat-fused reclap eva02-l-14 siglip2-b-16 clip-rn50 openclip-vit-h-14"""
    names = asked.split()
    assert [[p.name for p in matching(name)] for name in names] == [[name] for name in names]


def test_patterns() -> None:
    assert matching() == list(PRESETS.values())
    assert {p.family for p in matching("siglip*")} == {"siglip", "siglip2"}
    assert {p.domain for p in matching("medicine")} == {"medicine"}
    assert matching("") == []
    assert matching("SigLIP*") == matching("siglip*")
    assert matching("Medicine") == matching("medicine")


def test_what_is_not_certain_is_said() -> None:
    for preset in (*matching("georsclip"), *matching("skyclip-vit-l-14")):
        assert "activation unverified: quick-GELU may be needed" in preset.note

"""Random tiny models of real architectures, saved as their libraries save them."""

from __future__ import annotations

import importlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from tests.encoders import tiny

WORDS = len(tiny.WORDS)
START, END = 8, 9
VISION = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
}
TEXT = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": WORDS,
    "max_position_embeddings": 20,
    "pad_token_id": 0,
    "bos_token_id": START,
    "eos_token_id": END,
}
RECIPE = {
    "do_resize": True,
    "size": {"shortest_edge": 18},
    "do_center_crop": True,
    "crop_size": {"height": 16, "width": 16},
    "resample": 3,
    "image_mean": [0.48, 0.46, 0.41],
    "image_std": [0.27, 0.26, 0.28],
}
ALIGN_RECIPE = {
    "image_processor_type": "EfficientNetImageProcessor",
    "do_resize": True,
    "size": {"height": 38, "width": 38},
    "do_center_crop": True,
    "crop_size": {"height": 32, "width": 32},
    "resample": 2,
    "do_rescale": True,
    "rescale_factor": 1 / 127.5,
    "rescale_offset": True,
    "do_normalize": False,
    "include_top": False,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}


def models(kind: str) -> Any:
    """A random model of a family of the transformers library."""
    torch = pytest.importorskip("torch", reason="needs torch")
    t = transformers()
    torch.manual_seed(0)
    to_8 = {"projection_dim": 8}
    both = {"text_config": {**TEXT, **to_8}, "vision_config": {**VISION, **to_8}, **to_8}
    shifted = {**TEXT, "max_position_embeddings": 22, "pad_token_id": 1}
    made = {
        "clip": lambda: t.CLIPModel(t.CLIPConfig(**both)),
        "metaclip_2": lambda: t.MetaClip2Model(t.MetaClip2Config(**both)),
        "siglip": lambda: t.SiglipModel(
            t.SiglipConfig(text_config={**TEXT, "projection_size": 16}, vision_config=VISION)
        ),
        "chinese_clip": lambda: t.ChineseCLIPModel(t.ChineseCLIPConfig(**both)),
        "altclip": lambda: t.AltCLIPModel(
            t.AltCLIPConfig(
                text_config={**shifted, "project_dim": 16},
                vision_config={**VISION, **to_8},
                **to_8,
            )
        ),
        "align": lambda: t.AlignModel(
            t.AlignConfig(
                text_config=TEXT,
                vision_config={
                    "image_size": 32,
                    "width_coefficient": 0.25,
                    "depth_coefficient": 0.1,
                    "hidden_dim": 16,
                },
                projection_dim=80,  # a quarter of 320, which is what that vision tower ends with
            )
        ),
        "clap": lambda: t.ClapModel(
            t.ClapConfig(
                text_config={**shifted, **to_8},
                audio_config={
                    "hidden_size": 16,
                    "depths": [1, 1],
                    "num_attention_heads": [2, 2],
                    "patch_embeds_hidden_size": 8,
                    "spec_size": 64,
                    "window_size": 4,
                    "num_mel_bins": 16,
                    **to_8,
                },
                **to_8,
            )
        ),
    }[kind]()
    # random weights make nearly equal vectors; larger ones tell texts and pixels apart
    with torch.no_grad():
        for name, value in made.named_parameters():
            if value.ndim > 1:
                torch.nn.init.normal_(value, std=0.3)
            elif "logit" not in name and "temperature" not in name and name.endswith("bias"):
                torch.nn.init.normal_(value, std=0.05)
    return made.eval()


def recipe(kind: str) -> dict[str, Any]:
    if kind == "align":
        return ALIGN_RECIPE
    if kind == "siglip":
        squash = {k: v for k, v in RECIPE.items() if k not in ("do_center_crop", "crop_size")}
        return squash | {"size": {"height": 16, "width": 16}}
    return RECIPE


def save(folder: Path, kind: str, model: Any = None) -> Path:
    """The folder that save_pretrained and a tokenizer leave."""
    model = models(kind) if model is None else model
    model.save_pretrained(folder, safe_serialization=True)
    files: dict[str, Any] = {
        "tokenizer.json": tiny.tokenizer(),
        "tokenizer_config.json": {"pad_token": "<unk>" if kind in ("altclip", "clap") else "<pad>"},
        "README.md": "---\nlicense: mit\n---\n",
    }
    if kind != "clap":
        files["preprocessor_config.json"] = recipe(kind)
    return tiny.write(folder, files)


def edit(path: Path, **changes: Any) -> None:
    """Change a JSON file; None takes an entry out."""
    card = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in card.items() if v is not None}))


def edit_part(path: Path, part: str, **changes: Any) -> None:
    """Change entries of one object in a JSON file."""
    edit(path, **{part: {**json.loads(path.read_text())[part], **changes}})


_operators: list[Any] = []


def repair_torchvision() -> None:
    """Make torchvision importable where it is installed.

    That of PyPI does not find its operators beside a CPU build of torch. None of them is called
    here, so they are declared.
    """
    torch = pytest.importorskip("torch", reason="needs torch")
    if importlib.util.find_spec("torchvision") is None or _operators:
        return
    try:
        importlib.import_module("torchvision")
    except (RuntimeError, ImportError, AttributeError):
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _operators.append(library)


def transformers() -> Any:
    """The library; skips without it."""
    repair_torchvision()
    return pytest.importorskip("transformers", reason="needs transformers")


def open_clip() -> Any:
    """The library; skips without it."""
    repair_torchvision()
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("needs torchvision")
    return pytest.importorskip("open_clip", reason="needs open_clip")

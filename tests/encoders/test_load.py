"""From a name to an encoder, and what happens when it cannot be had."""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from byname.encoders import list_encoders, load_encoder
from byname.encoders.hub import PATTERNS
from byname.encoders.presets import DEFAULT, PRESETS
from byname.errors import EncoderError, EncoderUnavailableError
from tests.encoders import tiny


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache, and a hub that is told to stay offline."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def put_in_cache(hub: Path, repo: str) -> Path:
    """The folder that a finished download of ``repo`` would have left."""
    root = hub / f"models--{repo.replace('/', '--')}"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text("0" * 40)
    folder = root / "snapshots" / ("0" * 40)
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize("spec", [None, DEFAULT])
def test_the_default_that_cannot_be_had(hub: Path, spec: str | None) -> None:
    start = time.perf_counter()
    with pytest.raises(EncoderUnavailableError) as caught:
        load_encoder(spec)
    message = str(caught.value)
    assert f"cannot fetch encoder '{DEFAULT}'" in message
    repo = PRESETS[DEFAULT].spec.removeprefix("onnx-hub:")
    assert f"hf download {repo} --local-dir FOLDER" in message
    assert "--encoder onnx:FOLDER" in message
    assert "--encoder mini" in message
    assert time.perf_counter() - start < 20


def test_the_environment_names_the_encoder(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BYNAME_ENCODER", "siglip-b-16")
    with pytest.raises(EncoderUnavailableError, match="cannot fetch encoder 'siglip-b-16'"):
        load_encoder()


def test_any_repository(hub: Path) -> None:
    with pytest.raises(EncoderUnavailableError, match="hf download some/repo --local-dir"):
        load_encoder("onnx-hub:some/repo")


@pytest.mark.parametrize(
    ("spec", "seen"),
    [
        ("clip-vit-b32", "Did you mean clip-vit-b-32"),
        ("nonsense", "such as clip-vit-b-32 and mini; or onnx:FOLDER.*open_clip:hf-hub:REPO"),
        ("siglip-b-61", "Did you mean siglip-b-16"),
        ("no:prefix", "there is no encoder and no folder of that name"),
        ("onnx:/no/such/folder", "cannot open the encoder folder '/no/such/folder'"),
        (Path("/no/such/folder"), "there is no such folder"),
    ],
)
def test_unknown_names(spec: str | Path, seen: str) -> None:
    with pytest.raises(EncoderError, match=seen):
        load_encoder(spec)


def test_a_cached_repository_needs_no_network(hub: Path) -> None:
    pytest.importorskip("onnx", reason="builds small models with the package onnx")
    tiny.transformers_folder(put_in_cache(hub, "some/repo"))
    encoder = load_encoder("onnx-hub:some/repo")
    assert encoder.info.id == "onnx-hub:some/repo"
    assert encoder.info.source == "https://huggingface.co/some/repo"
    want = np.stack([tiny.expected_text("dog")])
    np.testing.assert_allclose(encoder.encode_texts(["dog"]), want, atol=1e-5)


def test_half_a_download_is_not_taken(hub: Path) -> None:
    pytest.importorskip("onnx", reason="builds small models with the package onnx")
    folder = tiny.transformers_folder(put_in_cache(hub, "some/repo"))
    (folder / "onnx/text_model.onnx").unlink()
    with pytest.raises(EncoderUnavailableError, match="the Hugging Face hub did not give it"):
        load_encoder("onnx-hub:some/repo")


def test_a_preset_of_the_wrong_width_is_refused(hub: Path) -> None:
    pytest.importorskip("onnx", reason="builds small models with the package onnx")
    tiny.transformers_folder(put_in_cache(hub, PRESETS[DEFAULT].spec.removeprefix("onnx-hub:")))
    with pytest.raises(EncoderError, match="vectors have width 4, expected 512"):
        load_encoder(DEFAULT)
    assert [e["id"] for e in list_encoders() if e["offline"] and e["id"] != "mini"] == [DEFAULT]


def test_list(hub: Path) -> None:
    rows = list_encoders()
    assert [row["id"] for row in rows] == list(PRESETS)
    assert list(rows[0]) == [
        "id", "size_mb", "licence", "input_size", "dim", "offline", "source", "note",
        "family", "domain", "context", "logit_scale",
    ]  # fmt: skip
    assert not any(row["offline"] for row in rows if row["id"] != "mini")
    assert [row["id"] for row in list_encoders("*mini*")] == ["mini"]
    assert list_encoders("nothing") == []


@pytest.mark.parametrize(
    ("pattern", "some"),
    [
        ("siglip*", {"siglip-b-16", "siglip2-b-16", "siglip-so400m-14-384"}),
        ("siglip2", {"siglip2-b-16", "siglip2-so400m-14-384"}),
        ("remote-sensing", {"remoteclip-vit-b-32", "georsclip-vit-l-14", "skyclip-vit-b-32"}),
        ("audio", {"clap-htsat-fused"}),
    ],
)
def test_lists_by_name_family_and_domain(hub: Path, pattern: str, some: set[str]) -> None:
    found = {row["id"] for row in list_encoders(pattern)}
    assert some <= found
    assert not found & {DEFAULT, "bioclip"}


@pytest.mark.parametrize("name", ["fg-clip", "longclip-l", "skyclip-vit-b-32", "jina-clip-v2"])
def test_presets_that_are_only_listed(hub: Path, name: str) -> None:
    with pytest.raises(EncoderUnavailableError) as caught:
        load_encoder(name)
    assert PRESETS[name].note in str(caught.value)
    assert PRESETS[name].source in str(caught.value)
    assert [row["offline"] for row in list_encoders(name)] == [False]


@pytest.mark.parametrize("spec", ["transformers:some/repo", "open_clip:ViT-B-32/openai"])
def test_torch_models_without_torch(
    hub: Path, spec: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What a newcomer without the extra reads."""
    monkeypatch.setitem(sys.modules, "torch", None)
    if spec.startswith("transformers"):
        folder = put_in_cache(hub, "some/repo")
        config = '{"model_type": "clip"}'
        tiny.write(folder, {"config.json": config, "model.safetensors": b""})
    with pytest.raises(EncoderUnavailableError) as caught:
        load_encoder(spec)
    assert f"cannot use encoder '{spec}': the package 'torch' is missing" in str(caught.value)
    assert 'pip install "byname[torch]"' in str(caught.value)


def test_presets_of_torch_models_are_offline_only_with_their_library(
    hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from byname.encoders import load

    tiny.write(
        put_in_cache(hub, "google/siglip2-base-patch16-224"),
        {"config.json": "{}", "model.safetensors": b""},
    )
    tiny.write(put_in_cache(hub, "chendelong/RemoteCLIP"), {"RemoteCLIP-ViT-B-32.pt": b"weights"})
    tiny.write(put_in_cache(hub, "timm/resnet50_clip.openai"), {"open_clip_model.safetensors": b""})
    tiny.write(
        put_in_cache(hub, "imageomics/bioclip"),
        {"open_clip_config.json": "{}", "open_clip_pytorch_model.bin": b""},
    )
    here = {"siglip2-b-16", "remoteclip-vit-b-32", "clip-rn50", "bioclip"}
    for installed, want in ((True, here), (False, set())):
        monkeypatch.setattr(
            load.importlib.util, "find_spec", lambda name, found=installed: found or None
        )
        assert {row["id"] for row in list_encoders() if row["offline"]} - {"mini"} == want


def test_a_folder_is_recognised_by_what_it_holds(tmp_path: Path) -> None:
    """ONNX first, since it needs no torch; a half-finished export is not taken for one."""
    pytest.importorskip("onnx", reason="builds small models with the package onnx")
    folder = tiny.transformers_folder(tmp_path / "both")
    tiny.write(folder, {"model.safetensors": b"", "open_clip_config.json": "{}"})
    assert load_encoder(folder).info.id == "onnx:both"
    (folder / "onnx/text_model.onnx").unlink()
    with pytest.raises(EncoderError, match=r"encoder 'open_clip:local-dir:|lacks model_cfg"):
        load_encoder(folder)
    (folder / "open_clip_config.json").unlink()
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").touch()
    with pytest.raises(EncoderError, match=r"use encoder 'transformers:.* weights are pickled"):
        load_encoder(folder)


def test_a_precision_that_onnx_has_not(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"there is no precision 'bf16'\. It is fp32, int8"):
        load_encoder(f"onnx:{tmp_path}", precision="bf16")
    with pytest.raises(EncoderError, match="run 'mini' in precision 'fp16'"):
        load_encoder("mini", precision="fp16")


def test_presets_agree_with_what_mini_says() -> None:
    from byname.encoders import mini

    preset = PRESETS["mini"]
    assert preset.logit_scale == mini.LOGIT_SCALE
    assert preset.context == mini.CONTEXT
    assert preset.input_size == mini.LITE2.size


def test_only_the_needed_files_are_fetched() -> None:
    from fnmatch import fnmatch

    def taken(name: str) -> bool:
        return any(fnmatch(name, pattern) for pattern in PATTERNS)

    wanted = ("config.json", "onnx/vision_model.onnx", "onnx/text_model.onnx_data")
    wanted += ("textual/tokenizer.json", "visual/model.onnx", "visual.onnx.data", "LICENSE")
    assert all(taken(name) for name in wanted)
    unwanted = ("onnx/model.onnx", "onnx/vision_model_fp16.onnx", "pytorch_model.bin")
    assert not any(taken(name) for name in (*unwanted, "visual/model.armnn", "model.safetensors"))


def test_a_sigmoid_without_its_scale(tmp_path: Path) -> None:
    folder = tiny.transformers_folder(tmp_path, model_type="siglip")
    with pytest.warns(UserWarning, match="probabilities and thresholds are not; write") as caught:
        before = load_encoder(f"onnx:{folder}").info
    assert '{"logit_scale": SCALE, "logit_bias": BIAS} to byname.json' in str(caught[0].message)
    assert "117.33 and -12.93 for siglip-b-16" in str(caught[0].message)
    (folder / "byname.json").write_text('{"logit_scale": 117.33, "logit_bias": -12.93}')
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        info = load_encoder(folder).info
    assert (info.logit_scale, info.logit_bias, info.activation) == (117.33, -12.93, "sigmoid")
    assert info.weights_sha256 != before.weights_sha256
    (folder / "byname.json").write_text('{"logit_scale": 117.33}')
    with pytest.raises(EncoderError, match=r"byname\.json': it lacks logit_bias"):
        load_encoder(folder)


def test_a_card_of_ours_without_the_scale(tmp_path: Path) -> None:
    folder = tiny.byname_folder(tmp_path, activation="sigmoid")
    card = json.loads((folder / "preprocess.json").read_text())
    card.pop("logit_bias", None)
    (folder / "preprocess.json").write_text(json.dumps(card))
    with pytest.warns(UserWarning, match=r"add logit_scale and logit_bias to its preprocess\.json"):
        load_encoder(folder)


def test_a_download_by_hand_is_told_about_the_scale(hub: Path) -> None:
    for spec in ("siglip-b-16", "onnx-hub:Xenova/siglip-base-patch16-224"):
        with pytest.raises(EncoderUnavailableError) as caught:
            load_encoder(spec)
        assert str(caught.value).endswith(
            'lacks the trained scale: write {"logit_scale": 117.33, "logit_bias": -12.93} to '
            "byname.json in it."
        )


def test_the_repository_of_a_preset_has_its_scale(hub: Path) -> None:
    repo = PRESETS["siglip-b-16"].spec.removeprefix("onnx-hub:")
    tiny.transformers_folder(put_in_cache(hub, repo), model_type="siglip")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        info = load_encoder(f"onnx-hub:{repo}").info
    assert (info.logit_scale, info.logit_bias) == (117.33, -12.93)


@pytest.mark.parametrize("kind", ["onnx", "onnx-hub", "precomputed", "transformers", "open_clip"])
@pytest.mark.parametrize("blank", ["", " "])
def test_nothing_after_the_prefix(kind: str, blank: str) -> None:
    with pytest.raises(EncoderError, match=f"nothing follows '{kind}:'. Write {kind}:"):
        load_encoder(f"{kind}:{blank}")


def test_an_empty_precision() -> None:
    with pytest.raises(EncoderError, match=r"in precision '': it is empty\. Leave it out"):
        load_encoder("mini", precision="")

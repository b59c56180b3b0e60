"""open_clip:SPEC, against the library itself, with random weights."""

from __future__ import annotations

import json
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from byname.encoders import load_encoder
from byname.encoders.open_clip import load_open_clip
from byname.encoders.presets import PRESETS
from byname.errors import EncoderError, EncoderUnavailableError, UnsafeFileError
from tests.encoders import tiny, tiny_torch

pytestmark = pytest.mark.torch
TEXTS = ["a photo of a dog", "cat", "It's 12 o'clock: a naïve café!!", "word " * 100, ""]
SMALL: dict[str, Any] = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 16, "layers": 2, "width": 16, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 20, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}
CARD = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "interpolation": "bilinear"}


@pytest.fixture(scope="module", autouse=True)
def library() -> Any:
    return tiny_torch.open_clip()


def config(**changes: Any) -> dict[str, Any]:
    """A small architecture; entries of ``text_cfg`` and the top level can be changed."""
    text = {**SMALL["text_cfg"], **changes.pop("text_cfg", {})}
    return {**SMALL, "text_cfg": text, **changes}


def save(library: Any, folder: Path, model_cfg: dict[str, Any], **card: Any) -> Any:
    """A folder as on the hub, and its model."""
    import torch
    from safetensors.torch import save_file

    described = {"model_cfg": model_cfg, "preprocess_cfg": {**CARD, **card}}
    tiny.write(folder, {"open_clip_config.json": described})
    torch.manual_seed(0)
    model = library.create_model(f"local-dir:{folder}", load_weights=False, pretrained_text=False)
    with torch.no_grad():
        for value in model.parameters():
            if value.ndim > 1:
                torch.nn.init.normal_(value, std=0.3)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return model.eval()


def of_library(model: Any, ids: Any, images: NDArray[np.uint8]) -> list[NDArray[Any]]:
    import torch

    mean, std = (torch.tensor(CARD[n]).view(3, 1, 1) for n in ("mean", "std"))
    x = (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - mean) / std
    with torch.inference_mode():
        return [tiny.unit(v.numpy()) for v in (model.encode_image(x), model.encode_text(ids))]


def pixels(size: int = 16) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (3, size, size, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("changes", "cut"),
    [
        ({}, True),
        ({"custom_text": True}, True),
        ({"quick_gelu": True}, True),
        ({"custom_text": True, "text_cfg": {"proj_bias": True}}, True),
        ({"custom_text": True, "text_cfg": {"no_causal_mask": True}}, False),
        ({"custom_text": True, "text_cfg": {"no_causal_mask": True, "pool_type": "last"}}, False),
        ({"custom_text": True, "text_cfg": {"embed_cls": True}}, False),
    ],
    ids=["clip", "custom", "quick_gelu", "bias", "both ways", "last", "cls"],
)
def test_a_folder(library: Any, tmp_path: Path, changes: dict[str, Any], cut: bool) -> None:
    model = save(library, tmp_path, config(**changes))
    encoder = load_open_clip(f"local-dir:{tmp_path}")
    ids = library.get_tokenizer(f"local-dir:{tmp_path}")(TEXTS)
    images, texts = of_library(model, ids, pixels())
    np.testing.assert_allclose(encoder.encode_images(pixels()), images, atol=1e-5)
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), texts, atol=1e-5)
    assert np.abs(texts[0] - texts[1]).max() > 1e-2
    assert encoder.causal is cut
    info = encoder.info
    assert (info.dim, info.context_length, info.activation) == (8, 20, "softmax")
    assert info.logit_scale == pytest.approx(math.exp(model.logit_scale.item()))
    recipe = info.preprocess
    assert recipe is not None
    assert (recipe.size, recipe.mode, recipe.crop_rounding) == (16, "shortest", "round")
    assert (recipe.interpolation, recipe.mean) == ("bilinear", (0.5, 0.4, 0.3))
    assert encoder.count_tokens(TEXTS)[3] == 102
    assert [encoder.tokenize(TEXTS)[3][i] for i in (0, -1)] == [49406, 49407]


def test_sigmoid_models_are_never_cut(library: Any, tmp_path: Path) -> None:
    """A causal tower, so that the probe alone would allow it."""
    changes = {"init_logit_bias": -10.0, "init_logit_scale": 2.0}
    save(library, tmp_path, config(**changes), resize_mode="squash")
    encoder = load_encoder(tmp_path)
    assert encoder.info.activation == "sigmoid"
    assert encoder.info.logit_bias == -10
    assert encoder.info.logit_scale == pytest.approx(math.exp(2))
    assert encoder.info.preprocess is not None
    assert encoder.info.preprocess.mode == "squash"
    assert getattr(encoder, "causal", None) is False


def test_a_tokenizer_of_the_folder(library: Any, tmp_path: Path) -> None:
    text = {
        "hf_tokenizer_name": "timm/none",
        "tokenizer_kwargs": {"clean": "canonicalize"},
        "vocab_size": 10,
        "no_causal_mask": True,
        "pool_type": "last",
    }
    save(library, tmp_path, config(custom_text=True, text_cfg=text))
    words = {"tokenizer.json": tiny.tokenizer(), "tokenizer_config.json": {"pad_token": "</s>"}}
    tiny.write(tmp_path, dict(words))
    encoder = load_open_clip(f"local-dir:{tmp_path}")
    assert encoder.tokenize(["A_Dog!"]) == [[8, 2, 5, 9]]
    assert encoder.pad_id == 9
    before = encoder.info.weights_sha256
    tiny_torch.edit(tmp_path / "tokenizer_config.json", pad_token="<pad>")
    assert load_open_clip(f"local-dir:{tmp_path}").info.weights_sha256 != before
    (tmp_path / "tokenizer_config.json").unlink()
    expect(f"local-dir:{tmp_path}", "its text tower reads padding, and neither")
    content = json.loads(tiny.tokenizer())
    content["padding"]["pad_token"] = "<unk>"
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    assert load_open_clip(f"local-dir:{tmp_path}").pad_id == 1
    content["padding"] = None
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    content["added_tokens"] = [{"id": 0, "content": "<pad>", "special": True, **flags}]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    assert load_open_clip(f"local-dir:{tmp_path}").pad_id == 0
    (tmp_path / "tokenizer.json").unlink()
    both = "hf download timm/none tokenizer.json tokenizer_config.json --local-dir"
    with pytest.raises(EncoderUnavailableError, match=both) as c:
        load_open_clip(f"local-dir:{tmp_path}")
    assert "beside the weights" in str(c.value)


def test_a_mode_of_tokenizing_that_is_not_known(library: Any, tmp_path: Path) -> None:
    text = {"hf_tokenizer_name": "timm/none", "tokenizer_mode": "clips", "vocab_size": 10}
    save(library, tmp_path, config(text_cfg=text))
    with pytest.raises(EncoderError, match="its tokenizer has the option clips"):
        load_open_clip(f"local-dir:{tmp_path}")


def test_the_clip_tokenizer_is_open_clips(library: Any) -> None:
    from byname.encoders.open_clip_text import text_tokens

    tokens, content, pad = text_tokens(library, Path(), {}, 77, "test")
    texts = [f"a photo of a {n}, Nr. {i}'s." for i, n in enumerate(library.IMAGENET_CLASSNAMES)]
    want = library.get_tokenizer("ViT-B-32")([*texts, *TEXTS]).numpy()
    got = np.array([row + [pad] * (77 - len(row)) for row in tokens.rows([*texts, *TEXTS])])
    np.testing.assert_array_equal(got, want)
    assert '"<|endoftext|>"' in content


@pytest.fixture(scope="module")
def small(library: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints of a small architecture that the library knows by name."""
    import torch
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("arch")
    (folder / "byname-small.json").write_text(json.dumps(SMALL))
    library.add_model_config(folder / "byname-small.json")
    model = library.create_model("byname-small", load_weights=False)
    state = model.state_dict()
    save_file(state, folder / "a.safetensors")
    torch.save(state, folder / "plain.pt")
    # as training leaves it: under a name, from several devices, in half precision
    torch.save(
        {"epoch": 3, "state_dict": {f"module.{k}": v.half() for k, v in state.items()}},
        folder / "run.pt",
    )
    return folder


def test_a_file(small: Path) -> None:
    encoders = [
        load_open_clip(f"byname-small@{small / name}")
        for name in ("a.safetensors", "plain.pt", "run.pt")
    ]
    images = [e.encode_images(pixels()) for e in encoders]
    np.testing.assert_array_equal(images[0], images[1])
    assert (images[0] * images[2]).sum(1).min() > 0.999
    assert len({e.info.weights_sha256 for e in encoders}) == 3
    assert encoders[0].info.preprocess is not None
    assert encoders[0].info.preprocess.size == 16


def expect(spec: str, seen: str, kind: type[Exception] = EncoderError) -> str:
    with pytest.raises(kind, match=seen) as caught:
        load_open_clip(spec)
    return str(caught.value)


def test_what_a_tag_says_goes_with_a_file(
    library: Any, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = {"hf_hub": "some/repo/", "quick_gelu": True, "mean": (0.1, 0.1, 0.1), "other": 1}
    monkeypatch.setattr(
        library, "get_pretrained_cfg", lambda arch, tag: card if tag == "known" else {}
    )
    plain = load_open_clip(f"byname-small@{small / 'a.safetensors'}")
    tagged = load_open_clip(f"byname-small/known@{small / 'a.safetensors'}")
    assert tagged.info.preprocess is not None
    assert tagged.info.preprocess.mean == (0.1, 0.1, 0.1)
    assert np.abs(plain.encode_texts(["dog"]) - tagged.encode_texts(["dog"])).max() > 1e-6
    assert plain.info.weights_sha256 != tagged.info.weights_sha256
    expect("byname-small/unknown", "has no weights 'unknown' for byname-small")


def test_hub_files_that_are_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    gone = EncoderUnavailableError
    message = expect("ViT-B-32/laion2b_s34b_b79k", "the Hugging Face hub did not give it", gone)
    repo = "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"
    assert f"'hf download {repo} open_clip_model.safetensors --local-dir FOLDER'" in message
    assert (
        "use 'open_clip:ViT-B-32/laion2b_s34b_b79k@FOLDER/open_clip_model.safetensors'" in message
    )
    message = expect(
        "ViT-B-32@hf-hub:chendelong/RemoteCLIP/RemoteCLIP-ViT-B-32.pt", "did not", gone
    )
    assert "hf download chendelong/RemoteCLIP RemoteCLIP-ViT-B-32.pt --local-dir" in message
    assert "use 'open_clip:ViT-B-32@FOLDER/RemoteCLIP-ViT-B-32.pt'" in message
    message = expect("hf-hub:imageomics/bioclip", "did not give it", gone)
    assert "--encoder open_clip:local-dir:FOLDER" in message
    with pytest.raises(gone, match="hf download timm/resnet50_clip"):
        load_encoder("clip-rn50")


@pytest.mark.parametrize(
    ("spec", "seen"),
    [
        ("ViT-B-33/openai", "has no architecture 'ViT-B-33'. Did you mean ViT-B-32"),
        ("ViT-B-32/no-such-tag", "has no weights 'no-such-tag' for ViT-B-32. It has openai, "),
        ("ViT-B-32", "it names no weights"),
        ("ViT-B-32@/no/such/file.pt", "there is no file '/no/such/file.pt'"),
        ("ViT-B-32@hf-hub:one/two", "names no file"),
        ("hf-hub:/etc", "'/etc' is no repository"),
        ("local-dir:/no/such/folder", "'/no/such/folder' does not exist"),
    ],
)
def test_specs_that_mean_nothing(spec: str, seen: str) -> None:
    expect(spec, seen)


def test_files_that_are_no_checkpoints(library: Any, small: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text("text")
    expect(f"byname-small@{other}", "ends in none of .safetensors, .pt, .pth, .bin")
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes((small / "a.safetensors").read_bytes()[:500])
    expect(f"byname-small@{cut}", "cannot be read as a checkpoint")
    junk = tmp_path / "junk.pt"
    junk.write_bytes(b"junk")
    expect(f"byname-small@{junk}", "it is no checkpoint of tensors only", UnsafeFileError)
    save(library, tmp_path, config())
    (tmp_path / "open_clip_model.safetensors").unlink()
    expect(f"local-dir:{tmp_path}", "holds no weights that are known; it holds ")
    (tmp_path / "open_clip_config.json").write_text('{"model_cfg": {}}')
    (tmp_path / "model.safetensors").touch()
    expect(f"local-dir:{tmp_path}", "cannot build it")
    (tmp_path / "open_clip_config.json").write_text("{}")
    expect(f"local-dir:{tmp_path}", "it lacks model_cfg")
    for card, seen in [
        ({"model_cfg": None}, "its model_cfg is None, expected a JSON object"),
        ({"model_cfg": "x"}, "its model_cfg is 'x'"),
        ({"model_cfg": {}, "preprocess_cfg": [1]}, r"its preprocess_cfg is \[1\]"),
    ]:
        (tmp_path / "open_clip_config.json").write_text(json.dumps(card))
        expect(f"local-dir:{tmp_path}", seen)


def test_a_checkpoint_of_another_architecture(library: Any, small: Path, tmp_path: Path) -> None:
    wide = config()
    wide["vision_cfg"] = {**wide["vision_cfg"], "width": 32}
    save(library, tmp_path, wide)
    message = expect(
        f"byname-small@{tmp_path / 'open_clip_model.safetensors'}", "the tensors in .* do not fit"
    )
    assert "size mismatch" in message
    assert "another architecture" in message


@pytest.mark.parametrize(
    ("part", "changed", "name"),
    [
        ("vision_cfg", {"image_size": 32}, "visual.positional_embedding is .17, 16. there"),
        ("text_cfg", {"context_length": 30}, "positional_embedding is .30, 16. there and .20, 16."),
    ],
)
def test_position_embeddings_are_not_resized(
    library: Any, small: Path, tmp_path: Path, part: str, changed: dict[str, Any], name: str
) -> None:
    save(library, tmp_path, {**config(), part: {**SMALL[part], **changed}})
    expect(f"byname-small@{tmp_path / 'open_clip_model.safetensors'}", name)


def test_a_scale_that_is_none(library: Any, tmp_path: Path) -> None:
    save(library, tmp_path, config(init_logit_scale=1000.0))
    expect(f"local-dir:{tmp_path}", "its logit_scale is 1000, which gives no scale")


def test_a_text_tower_after_a_second_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    card = {"model_cfg": config(text_cfg={"hf_model_name": "some/bert"})}
    tiny.write(tmp_path, {"open_clip_config.json": card, "model.safetensors": b"1"})
    seen = "built after a second repository, some/bert"
    message = expect(f"local-dir:{tmp_path}", seen, EncoderUnavailableError)
    assert "'hf download some/bert config.json'" in message
    assert "models--some--bert" in message


class _Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return (Path.touch, (self.target,))


def test_a_pickle_that_would_run_code(small: Path, tmp_path: Path) -> None:
    import torch

    target = tmp_path / "ran"
    torch.save({"state_dict": _Bomb(target)}, tmp_path / "zip.pt")
    (tmp_path / "bare.pt").write_bytes(pickle.dumps(_Bomb(target)))
    for name in ("zip.pt", "bare.pt"):
        message = expect(f"byname-small@{tmp_path / name}", "tensors only", UnsafeFileError)
        assert "Nothing in it was executed" in message
    assert not target.exists()


TAGGED = [p for p in PRESETS.values() if p.spec.startswith("open_clip:") and "hf-hub" not in p.spec]


@pytest.mark.parametrize("preset", TAGGED, ids=lambda p: p.name)
def test_presets_say_what_the_library_says(library: Any, preset: Any) -> None:
    arch, _, tag = preset.spec.removeprefix("open_clip:").partition("/")
    card, made = library.get_pretrained_cfg(arch, tag), library.get_model_config(arch)
    assert card["hf_hub"].rstrip("/") == preset.source.removeprefix("https://huggingface.co/")
    assert made["embed_dim"] == preset.dim
    assert made["vision_cfg"]["image_size"] == preset.input_size
    assert made["text_cfg"].get("context_length", 77) == preset.context


@pytest.mark.parametrize("preset", TAGGED, ids=lambda p: p.name)
def test_sizes_are_those_of_the_architectures(library: Any, preset: Any) -> None:
    import torch

    arch = preset.spec.removeprefix("open_clip:").partition("/")[0]
    options: dict[str, Any] = {"load_weights": False, "pretrained_text": False}
    with torch.device("meta"):
        model = library.create_model(arch, device="meta", **options)
    count = sum(value.numel() for value in model.parameters())
    assert preset.size_mb == round(4 * count / 1e6)

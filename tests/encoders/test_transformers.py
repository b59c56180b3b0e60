"""transformers:NAME_OR_FOLDER, against the library itself, with random tiny models."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from byname.encoders import load_encoder
from byname.encoders.tokens import TextTokenizer
from byname.encoders.transformers import load_transformers
from byname.errors import EncoderError, UsageError
from tests.encoders import tiny, tiny_torch

KINDS = ("clip", "metaclip_2", "siglip", "chinese_clip", "altclip", "align")
TEXTS = ["a photo of a dog .", "cat", "dog cat", ""]
pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    tiny_torch.transformers()
    root = tmp_path_factory.mktemp("models")
    return {kind: tiny_torch.save(root / kind, kind) for kind in (*KINDS, "clap")}


@pytest.fixture
def clip(folders: dict[str, Path], tmp_path: Path) -> Path:
    """A folder of its own, to be spoiled."""
    return Path(shutil.copytree(folders["clip"], tmp_path / "clip"))


def features(out: Any) -> NDArray[Any]:
    out = getattr(out, "pooler_output", out)
    return tiny.unit(out.detach().numpy())


def pixels(size: int, count: int = 3) -> NDArray[np.uint8]:
    noise = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    darker = np.arange(1, count + 1, dtype=np.uint8)[:, None, None, None]
    return np.asarray(noise // darker)


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_are_those_of_the_library(folders: dict[str, Path], kind: str) -> None:
    import torch

    encoder, model = load_transformers(str(folders[kind])), tiny_torch.models(kind)
    assert encoder.info.preprocess is not None
    images = pixels(encoder.info.preprocess.size)
    card = tiny_torch.recipe(kind)
    x = torch.from_numpy(images.copy()).permute(0, 3, 1, 2).double()
    if kind == "align":
        x = x[..., 3:35, 3:35] / 127.5 - 1
    else:
        mean, std = (torch.tensor(card[n]).view(3, 1, 1) for n in ("image_mean", "image_std"))
        x = (x / 255 - mean) / std
    with torch.inference_mode():
        want = features(model.get_image_features(pixel_values=x.float()))
        got = encoder.encode_images(images)
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, want, atol=1e-5)
        # the test could tell images apart
        assert np.abs(want[0] - want[1]).max() > (5e-4 if kind == "align" else 1e-2)
        rows = encoder.tokenize(TEXTS)
        vectors = []
        for row in rows:
            if kind == "siglip":
                ids = torch.tensor([row + [0] * (20 - len(row))])
                vectors.append(model.get_text_features(input_ids=ids))
            else:
                ids = torch.tensor([row])
                vectors.append(
                    model.get_text_features(input_ids=ids, attention_mask=torch.ones_like(ids))
                )
        want = np.concatenate([features(v) for v in vectors])
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), want, atol=1e-5)
    assert np.abs(want[0] - want[1]).max() > 1e-2


@pytest.mark.parametrize("kind", [*KINDS, "clap"])
def test_the_card(folders: dict[str, Path], kind: str) -> None:
    encoder, model = load_transformers(str(folders[kind])), tiny_torch.models(kind)
    info = encoder.info
    if kind == "align":
        assert info.logit_scale == pytest.approx(1 / float(model.temperature.detach()), rel=1e-6)
    else:
        name = "logit_scale_a" if kind == "clap" else "logit_scale"
        assert info.logit_scale == pytest.approx(math.exp(getattr(model, name).item()), rel=1e-6)
    assert info.activation == ("sigmoid" if kind == "siglip" else "softmax")
    assert info.logit_bias == (model.logit_bias.item() if kind == "siglip" else 0)
    assert info.context_length == 20
    assert info.licence == "mit"
    assert len(info.weights_sha256) == 64
    assert info.dim == {"siglip": 16, "align": 80}.get(kind, 8)
    # SigLIP reads its padding; the others are indifferent to it, which was tried
    assert encoder.causal is (kind != "siglip")
    assert encoder.pad_id == (1 if kind in ("altclip", "clap") else 0)


def test_recipes_of_pixels(folders: dict[str, Path]) -> None:
    def recipe(kind: str) -> Any:
        return load_transformers(str(folders[kind])).info.preprocess

    assert (recipe("clip").mode, recipe("clip").size, recipe("clip").resize) == ("shortest", 16, 18)
    assert recipe("clip").crop_rounding == "floor"
    assert (recipe("siglip").mode, recipe("siglip").size) == ("squash", 16)
    align = recipe("align")  # the whole square; the tower crops it
    assert (align.mode, align.size, align.interpolation) == ("squash", 38, "bilinear")
    np.testing.assert_allclose([align.mean, align.std], 0.5)


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("top", [False, True])
def test_the_recipe_of_efficientnet(again: bool, top: bool) -> None:
    from byname.encoders.transformers_pixels import _efficientnet_recipe

    card = tiny_torch.ALIGN_RECIPE | {"do_normalize": again, "include_top": top}
    made, crop = _efficientnet_recipe(card)
    x = np.arange(0, 256, 5, dtype=float)[:, None]
    want = x / 127.5 - 1
    if again:
        want = (want - card["image_mean"]) / card["image_std"]
    if top:
        want = want / card["image_std"]
    got = (x / 255 - made.mean) / made.std
    np.testing.assert_allclose(got, np.broadcast_to(want, got.shape), atol=1e-9)
    assert crop == 32


def test_a_processor_of_version_5_is_read(clip: Path) -> None:
    before = load_transformers(str(clip)).info.preprocess
    path = clip / "preprocessor_config.json"
    nested = {"image_processor": json.loads(path.read_text())}
    path.unlink()
    (clip / "processor_config.json").write_text(json.dumps(nested))
    assert load_transformers(str(clip)).info.preprocess == before


def test_texts_run_alone_as_in_a_batch_and_long_ones_are_cut(folders: dict[str, Path]) -> None:
    encoder = load_transformers(str(folders["clip"]))
    long = "dog " * 50
    assert encoder.count_tokens([long, "dog"]) == [52, 3]
    row = encoder.tokenize([long])[0]
    assert len(row) == 20
    assert row[-1] == tiny_torch.END
    together = encoder.encode_texts(["cat", long, "a photo of a cat", "cat"])
    np.testing.assert_allclose(together[0], encoder.encode_texts(["cat"])[0], atol=1e-6)
    np.testing.assert_array_equal(together[0], together[3])
    assert encoder.encode_texts([]).shape == (0, 8)
    assert encoder.encode_images(pixels(16, 0)).shape == (0, 8)


def test_siglip_cleans_texts_as_it_was_trained(folders: dict[str, Path]) -> None:
    encoder = load_transformers(str(folders["siglip"]))
    assert encoder.tokenize(["A_Dog,  CAT."]) == encoder.tokenize(["a dog cat"])
    assert encoder.tokenizer_json is not None  # and says so itself
    assert TextTokenizer(encoder.tokenizer_json, 20).rows(["A_Dog"]) == [[8, 2, 5, 9]]


def test_a_folder_needs_no_prefix(folders: dict[str, Path]) -> None:
    np.testing.assert_array_equal(
        load_encoder(folders["clip"]).encode_texts(["dog"]),
        load_encoder(f"transformers:{folders['clip']}").encode_texts(["dog"]),
    )


def test_a_tokenizer_of_older_files(clip: Path) -> None:
    """Without tokenizer.json the library makes a tokenizer of vocab.json and merges.txt."""
    before = load_transformers(str(clip)).info.weights_sha256
    (clip / "tokenizer.json").unlink()
    words = ["!", "a</w>", "dog</w>", "d", "o", "g</w>", "og</w>", "a", "<|startoftext|>"]
    vocabulary = {w: i for i, w in enumerate([*words, "<|endoftext|>"])}
    (clip / "vocab.json").write_text(json.dumps(vocabulary))
    (clip / "merges.txt").write_text("#version: 0.2\no g</w>\nd og</w>\n")
    card = {"tokenizer_class": "CLIPTokenizer", "pad_token": "<|endoftext|>"}
    (clip / "tokenizer_config.json").write_text(json.dumps(card))
    encoder = load_transformers(str(clip))
    assert encoder.tokenize(["a dog"]) == [[8, 1, 2, 9]]
    assert encoder.info.weights_sha256 != before
    assert encoder.tokenizer_json is not None
    assert encoder.pad_id == 9


def test_clap(folders: dict[str, Path], tmp_path: Path) -> None:
    import torch

    from byname.encoders.clap import ClapEncoder

    transformers = tiny_torch.transformers()
    folder = Path(shutil.copytree(folders["clap"], tmp_path / "clap"))
    silent = load_transformers(str(folder))
    with pytest.raises(EncoderError, match=r"encode images .* it has no image tower"):
        silent.encode_images(pixels(16))
    with pytest.raises(EncoderError, match=r"a model for sounds.*encode_audio"):
        silent.encode_images(pixels(16))
    assert isinstance(silent, ClapEncoder)
    with pytest.raises(EncoderError, match="its folder has no preprocessor_config"):
        silent.encode_audio([np.zeros(100, np.float32)], 48_000)
    transformers.ClapFeatureExtractor(
        feature_size=16, max_length_s=1, sampling_rate=16_000, truncation="rand_trunc"
    ).save_pretrained(folder)
    encoder = load_transformers(str(folder))
    assert isinstance(encoder, ClapEncoder)
    sounds = list(np.random.default_rng(0).standard_normal((2, 40_000)).astype(np.float32) / 9)
    got = encoder.encode_audio([sounds[0], sounds[1][:9000]], 16_000)
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(got[:1], encoder.encode_audio(sounds[:1], 16_000))  # not random
    with torch.inference_mode():
        inputs = encoder._extractor(sounds[1][:9000], sampling_rate=16_000, return_tensors="pt")
        want = features(tiny_torch.models("clap").get_audio_features(**inputs))
    np.testing.assert_allclose(got[1:], want, atol=1e-5)
    with pytest.raises(EncoderError, match="the rate is 8000 Hz, and it hears 16000 Hz"):
        encoder.encode_audio(sounds, 8_000)
    one = sounds[0]
    wrong: list[tuple[Any, str]] = [
        (one, "got one ndarray"),
        ([one, np.stack([one, one])], r"sound 1 has shape \(2, 40000\)"),
        ([np.zeros(9, np.int16)], "sound 0 is of type int16.* Divide int16 by 32768"),
        ([[0.5, 0.5]], "sound 0 is of type list"),
        ([one[:0]], "sound 0 is empty"),
        ([one * 32768], "sound 0 reaches"),
        ([np.array([0, np.nan], np.float32)], "sound 0 reaches nan"),
    ]
    for value, seen in wrong:
        with pytest.raises(UsageError, match=f"{seen}.*" if "Divide" in seen else seen):
            encoder.encode_audio(value, 16_000)


def expect(folder: Path, seen: str) -> str:
    with pytest.raises(EncoderError, match=seen) as caught:
        load_transformers(str(folder))
    return str(caught.value)


def test_a_checkpoint_of_another_architecture(clip: Path, folders: dict[str, Path]) -> None:
    shutil.copy(folders["chinese_clip"] / "model.safetensors", clip)
    message = expect(clip, r"tensors are missing")
    assert "belong to another architecture" in message


def test_weights_of_another_size(clip: Path) -> None:
    tiny_torch.edit_part(clip / "config.json", "vision_config", hidden_size=32)
    expect(clip, r"its weights do not fit its config.json")


def test_a_config_with_fewer_layers(clip: Path) -> None:
    tiny_torch.edit_part(clip / "config.json", "text_config", num_hidden_layers=1)
    message = expect(clip, r"0 have another shape and 16 have no place in the model")
    assert "text_model.encoder.layers.1." in message


def test_buffers_of_older_versions_are_no_weights(clip: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    before = load_transformers(str(clip)).encode_texts(["dog"])
    path = clip / "model.safetensors"
    extra = {"text_model.embeddings.position_ids": torch.arange(20)[None]}
    save_file(load_file(path) | extra, path, metadata={"format": "pt"})
    np.testing.assert_array_equal(load_transformers(str(clip)).encode_texts(["dog"]), before)


@pytest.mark.parametrize(
    ("kind", "name", "value"), [("clip", "logit_scale", 1000.0), ("align", "temperature", 0.0)]
)
def test_a_scale_that_is_none(
    folders: dict[str, Path], tmp_path: Path, kind: str, name: str, value: float
) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(folders[kind], tmp_path / kind))
    path = folder / "model.safetensors"
    save_file(load_file(path) | {name: torch.tensor(value)}, path, metadata={"format": "pt"})
    expect(folder, f"its {name} is {value:g}, which gives no scale")


def test_an_adapter_is_no_model(clip: Path) -> None:
    (clip / "adapter_config.json").write_text("{}")
    assert "merge_and_unload" in expect(clip, "holds adapter_config.json")


def test_padding_that_is_no_token(clip: Path) -> None:
    tiny_torch.edit(clip / "tokenizer_config.json", pad_token=3)
    expect(clip, "its pad_token is 3, expected a text")


def test_the_pad_token_is_part_of_the_hash(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders["siglip"], tmp_path / "siglip"))
    before = load_transformers(str(folder))
    tiny_torch.edit(folder / "tokenizer_config.json", pad_token="</s>")
    after = load_transformers(str(folder))
    assert np.abs(before.encode_texts(["dog"]) - after.encode_texts(["dog"])).max() > 1e-4
    assert before.info.text_fingerprint() != after.info.text_fingerprint()


def test_the_words_of_a_slow_tokenizer_are_part_of_the_hash(tmp_path: Path) -> None:
    from byname.encoders.transformers import _hash_of_tokenizer

    (tmp_path / "vocab.txt").write_text("a\nb\n")
    before = _hash_of_tokenizer(tmp_path)
    (tmp_path / "vocab.txt").write_text("b\na\n")
    assert _hash_of_tokenizer(tmp_path) != before


@pytest.mark.parametrize("end", [2, tiny_torch.END])
def test_a_tokenizer_without_markers(clip: Path, end: int) -> None:
    tiny_torch.edit_part(clip / "config.json", "text_config", eos_token_id=end)
    (clip / "tokenizer.json").write_text(tiny.tokenizer(markers=False))
    expect(clip, "sets no start and end around a text: an empty one gives")


def test_damaged_weights(clip: Path) -> None:
    weights = clip / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    expect(clip, r"its weights do not fit its config.json")


def test_pickled_weights_are_refused_unread(clip: Path) -> None:
    (clip / "model.safetensors").unlink()
    (clip / "pytorch_model.bin").write_bytes(b"not even a pickle")
    message = expect(clip, "its weights are pickled")
    assert "save_pretrained" in message


def test_a_folder_without_weights(clip: Path) -> None:
    (clip / "model.safetensors").unlink()
    expect(clip, r"has no \*\.safetensors weights")


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    expect(tmp_path, r"has no config.json; it holds notes.txt")


@pytest.mark.parametrize(
    ("changes", "seen"),
    [
        ({"model_type": "bert"}, "its model_type is 'bert'"),
        ({"model_type": "fgclip", "auto_map": {"AutoModel": "m.M"}}, "byname never runs"),
        ({"model_type": "siglip2"}, "the NaFlex variant"),
        ({"model_type": ["clip"]}, r"its model_type is \['clip'\]"),
    ],
)
def test_models_that_are_not_supported(clip: Path, changes: dict[str, Any], seen: str) -> None:
    tiny_torch.edit(clip / "config.json", **changes)
    expect(clip, seen)


def test_a_tokenizer_of_another_model(clip: Path) -> None:
    tiny_torch.edit_part(clip / "config.json", "text_config", eos_token_id=7)
    expect(clip, "its tokenizer ends a text with the number 9, and the model reads its vector at 7")


def test_a_tokenizer_with_more_tokens_than_the_model(clip: Path) -> None:
    from tokenizers import Tokenizer

    path = clip / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.add_tokens(["zebra"])
    path.write_text(tokenizer.to_str())
    encoder = load_transformers(str(clip))
    assert encoder.encode_texts(["dog"]).shape == (1, 8)
    with pytest.raises(EncoderError, match="gives the number 10 for 'a zebra', and the model know"):
        encoder.encode_texts(["dog", "a zebra"])


@pytest.mark.parametrize("content", ["", "{}", "[1"])
def test_a_damaged_tokenizer(clip: Path, content: str) -> None:
    (clip / "tokenizer.json").write_text(content)
    expect(clip, "it is not a tokenizer")


def test_a_recipe_that_fits_nothing(clip: Path) -> None:
    (clip / "preprocessor_config.json").unlink()
    expect(clip, "preprocessor_config.json")


def test_a_recipe_for_another_size(clip: Path) -> None:
    tiny_torch.edit(clip / "preprocessor_config.json", crop_size={"height": 18, "width": 18})
    expect(clip, "it failed on one image and one text")


def test_the_hub_is_asked_for_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    message = expect(Path("some/repo"), "the Hugging Face hub did not give it")
    assert "'hf download some/repo --local-dir FOLDER --include" in message
    assert '--include "model.safetensors"' in message
    assert "--encoder transformers:FOLDER" in message

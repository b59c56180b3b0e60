"""Exported folders against the torch models that they were made from."""

from __future__ import annotations

import errno
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("onnx", reason="exports need the package onnx")

from byname.encoders import export as export_module
from byname.encoders import export_graphs, load_encoder
from byname.encoders.export import check_encoder, check_target, export_encoder
from byname.encoders.export_parity import Parity, Row, compare
from byname.encoders.onnx import OnnxEncoder
from byname.encoders.torch_base import Model, TorchEncoder, tower
from byname.encoders.transformers import load_transformers
from byname.errors import EncoderError, EncoderUnavailableError, OutputError, UsageError
from tests.encoders import test_torch_base as base
from tests.encoders import tiny, tiny_torch
from tests.helpers import FakeEncoder

TEXTS = ["a photo of a dog .", "cat", "dog cat", "a"]
FILES = {
    "LICENSE", "README.md", "parity.json", "preprocess.json", "textual.onnx", "tokenizer.json",
    "visual.onnx",
}  # fmt: skip
torch_only = pytest.mark.torch


def model(kind: str = "causal", scale: float = 1.0, **changes: Any) -> Model:
    """A small model that both exporters can take: no size in it is a plain number."""
    import torch

    weights = torch.nn.ParameterList([torch.tensor(tiny.TOKENS * scale)])

    def text(m: Any, ids: Any, mask: Any) -> Any:
        if kind == "masked":
            return (m[0][ids] * mask[..., None]).sum(1)
        end = ids.argmax(1)[:, None, None].expand(-1, 1, tiny.DIM)
        return m[0][ids].cumsum(1).gather(1, end)[:, 0]

    return base.model(kind, scale, **{"textual": tower(weights, text), **changes})


def wide_model() -> Model:
    """With weights of some size."""
    import torch

    torch.manual_seed(0)
    visual = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 300))
    words = torch.nn.Embedding(len(tiny.WORDS), 300)
    return model(
        "masked",
        visual=visual,
        textual=tower(words, lambda m, ids, mask: (m(ids) * mask[..., None]).sum(1)),
    )


def pixels(size: int, count: int = 5) -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def same_vectors(torch: Any, folder: Path) -> Any:
    """Open the folder as users do and compare; returns the encoder."""
    onnx = load_encoder(f"onnx:{folder}")
    assert isinstance(onnx, OnnxEncoder)
    assert onnx.info.preprocess == torch.info.preprocess
    images = pixels(torch.info.preprocess.size)
    np.testing.assert_allclose(onnx.encode_images(images), torch.encode_images(images), atol=2e-5)
    np.testing.assert_allclose(onnx.encode_texts(TEXTS), torch.encode_texts(TEXTS), atol=2e-5)
    return onnx


@torch_only
@pytest.mark.parametrize(
    ("kind", "changes", "cut", "inputs"),
    [
        ("causal", {}, True, ["input_ids"]),
        ("masked", {}, True, ["input_ids", "attention_mask"]),
        ("masked", {"mask_padding": False, "may_cut": False}, False, ["input_ids"]),
        ("causal", {"may_cut": False}, False, ["input_ids"]),
    ],
    ids=["causal", "masked", "reads padding", "never cut"],
)
def test_small_modules(
    tmp_path: Path, kind: str, changes: dict[str, Any], cut: bool, inputs: list[str]
) -> None:
    encoder = TorchEncoder(model(kind, **changes))
    done = export_encoder(encoder, tmp_path / "enc", images=pixels(tiny.SIZE))
    assert {path.name for path in done.folder.iterdir()} == FILES
    assert done.bytes == sum(path.stat().st_size for path in done.folder.iterdir())
    assert done.cut is cut
    assert [p.name for p in tmp_path.iterdir()] == ["enc"]
    onnx = same_vectors(encoder, tmp_path / "enc")
    assert onnx._texts.cut is cut
    assert list(onnx._texts.inputs) == inputs
    length = "sequence" if cut else tiny.CONTEXT
    assert onnx._texts.inputs["input_ids"].shape == ["batch", length]
    (spec,) = onnx._images.inputs.values()
    assert (spec.name, spec.type) == ("pixels", "tensor(uint8)")
    assert spec.shape == ["batch", tiny.SIZE, tiny.SIZE, 3]
    assert (onnx._images.output, onnx._texts.output) == ("image_embeds", "text_embeds")
    assert onnx.info.logit_scale == encoder.info.logit_scale


@torch_only
def test_vectors_are_as_the_projection_gives_them(tmp_path: Path) -> None:
    encoder = TorchEncoder(model(scale=3.0))
    export_encoder(encoder, tmp_path / "enc")
    onnx: Any = load_encoder(tmp_path / "enc")
    raw = onnx._images.run(pixels(tiny.SIZE))
    want = 3.0 * ((pixels(tiny.SIZE) / 255 - tiny.MEAN) / tiny.STD).mean((1, 2)) @ tiny.PROJECTION
    np.testing.assert_allclose(raw, want, atol=1e-4)


@torch_only
def test_the_report(tmp_path: Path) -> None:
    encoder = TorchEncoder(model())
    done = export_encoder(encoder, tmp_path / "enc", images=pixels(tiny.SIZE, 9))
    report = json.loads((tmp_path / "enc/parity.json").read_text())
    assert report["passed"] is True
    assert report["format"] == "byname-parity/1"
    assert report["opset"] == 18
    assert set(report["versions"]) == {"byname", "torch", "onnx", "onnxruntime"}
    rows = {row["what"]: row for row in report["rows"]}
    assert list(rows) == [
        "random images", "images", "batch of 7 and one by one", "texts",
        "text of 3 tokens", "text of 7 tokens",
    ]  # fmt: skip
    assert rows["random images"]["top1"] == rows["images"]["top1"] == 1.0
    assert rows["images"]["rows"] == 9
    assert rows["texts"]["top1"] is None
    assert max(row.max_abs for row in done.parity.rows) < 1e-5
    assert 'license: "unknown"' in (tmp_path / "enc/README.md").read_text()


@torch_only
def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    hashes = set()
    for name in ("one", "two"):
        export_encoder(TorchEncoder(model()), tmp_path / name)
        hashes.add(load_encoder(tmp_path / name).info.weights_sha256)
    assert len(hashes) == 1


@torch_only
def test_graphs_hold_no_path_of_this_machine(tmp_path: Path) -> None:
    for number, exporter in enumerate(available()):
        folder = tmp_path / str(number)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(export_graphs, "EXPORTERS", {"one": exporter})
            export_encoder(TorchEncoder(model()), folder)
        for name in ("visual.onnx", "textual.onnx"):
            content = (folder / name).read_bytes()
            assert b".py" not in content
            assert b"site-packages" not in content


def available() -> list[Callable[..., None]]:
    """The exporters that can run here."""
    exporters = export_graphs.EXPORTERS
    newer = importlib.util.find_spec("onnxscript") is not None
    return [exporters["torchscript"], *([exporters["dynamo"]] if newer else [])]


@torch_only
@pytest.mark.parametrize(
    "kind", ["clip", "metaclip_2", "siglip", "chinese_clip", "altclip", "align"]
)
def test_models_of_transformers(tmp_path: Path, kind: str) -> None:
    tiny_torch.transformers()
    encoder = load_transformers(str(tiny_torch.save(tmp_path / kind, kind)))
    done = export_encoder(encoder, tmp_path / "enc")
    assert done.cut is encoder.causal is (kind != "siglip")
    assert done.parity.passed
    onnx = same_vectors(encoder, tmp_path / "enc")
    assert ("attention_mask" in onnx._texts.inputs) is (
        kind in ("chinese_clip", "altclip", "align")
    )
    assert onnx.info.activation == encoder.info.activation
    assert onnx.info.licence == "mit"


@torch_only
@pytest.mark.parametrize(
    "text",
    [{}, {"no_causal_mask": True, "pool_type": "last"}, {"embed_cls": True}],
    ids=["clip", "last", "cls"],
)
def test_models_of_open_clip(tmp_path: Path, text: dict[str, Any]) -> None:
    from byname.encoders.open_clip import load_open_clip
    from tests.encoders.test_open_clip import config, save

    save(tiny_torch.open_clip(), tmp_path / "model", config(custom_text=True, text_cfg=text))
    encoder = load_open_clip(f"local-dir:{tmp_path / 'model'}")
    done = export_encoder(encoder, tmp_path / "enc")
    assert done.parity.passed
    assert done.cut is encoder.causal
    same_vectors(encoder, tmp_path / "enc")


@pytest.mark.slow
@torch_only
def test_clip_vit_b_32(tmp_path: Path) -> None:
    """The whole architecture, with random weights and a tokenizer of the right size."""
    library = tiny_torch.transformers()
    text = {"pad_token_id": 0, "bos_token_id": 8, "eos_token_id": 9, "vocab_size": 49408}
    made = library.CLIPModel(library.CLIPConfig(text_config=text))
    folder = tiny_torch.save(tmp_path / "hf", "clip", made.eval())
    size = {"size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}}
    tiny_torch.edit(folder / "preprocessor_config.json", **size)
    encoder = load_transformers(str(folder))
    done = export_encoder(encoder, tmp_path / "enc", images=pixels(224, 3))
    assert [row.what for row in done.parity.rows][-3:] == [
        f"text of {n} tokens" for n in (3, 15, 77)
    ]
    assert done.cut is True
    assert done.parity.worst().cosine > 0.999999
    assert max(row.max_abs for row in done.parity.rows) < 1e-5


@pytest.mark.slow
@torch_only
@pytest.mark.parametrize("arch", ["MobileCLIP-S1", "ViT-B-16-SigLIP"])
def test_architectures_of_open_clip(tmp_path: Path, arch: str) -> None:
    """A convolutional image tower, and a pooling by attention; both texts read their padding."""
    library = tiny_torch.open_clip()
    pytest.importorskip("timm", reason="needs timm")
    encoder = real_model(library, arch)
    done = export_encoder(encoder, tmp_path / "enc", images=pixels(encoder.info.preprocess.size, 3))
    assert done.cut is False
    assert done.parity.worst().cosine > 0.99999
    assert "attention_mask" not in same_vectors(encoder, tmp_path / "enc")._texts.inputs


def real_model(library: Any, arch: str) -> TorchEncoder:
    """Random weights and a tiny tokenizer, since that of SigLIP is a download."""
    import torch

    from byname.encoders.base import EncoderInfo
    from byname.encoders.tokens import TextTokenizer
    from byname.images.preprocess import Preprocess

    torch.manual_seed(0)
    made = library.create_model(arch, pretrained=None, pretrained_text=False).eval()
    siglip = "SigLIP" in arch
    size = made.visual.image_size
    size = size if isinstance(size, int) else size[0]
    content = tiny.tokenizer()
    context = made.context_length
    return TorchEncoder(
        Model(
            info=EncoderInfo(arch, 1, Preprocess(size, size), context_length=context),
            visual=tower(made, lambda m, x: m.encode_image(x)),
            textual=tower(made, lambda m, ids, mask: m.encode_text(ids)),
            tokens=TextTokenizer(content, context),
            tokenizer_json=content,
            pad_id=0,
            may_cut=not siglip,
            mask_padding=not siglip,
        )
    )


@torch_only
def test_large_weights_lie_beside_the_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = TorchEncoder(wide_model())
    monkeypatch.setattr(export_graphs, "INLINE_BYTES", 0)
    done = export_encoder(encoder, tmp_path / "enc")
    names = {path.name for path in done.folder.iterdir()}
    assert names == FILES | {"visual.onnx.data", "textual.onnx.data"}
    same_vectors(encoder, done.folder)
    (done.folder / "visual.onnx.data").unlink()
    with pytest.raises(EncoderError, match=r"cannot load '.*visual\.onnx'"):
        load_encoder(done.folder)


@torch_only
def test_a_model_in_half_precision_stays_so(tmp_path: Path) -> None:
    import torch

    encoder = TorchEncoder(model(), precision="bf16")
    done = export_encoder(encoder, tmp_path / "enc", force=True)
    assert {p.dtype for p in encoder.visual.parameters()} == {torch.bfloat16}
    onnx = load_encoder(tmp_path / "enc")
    assert onnx.encode_images(pixels(tiny.SIZE)).dtype == np.float32
    assert done.parity.worst().cosine > 0.999


@torch_only
def test_the_next_exporter_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def failing(*_: Any) -> None:
        raise torch.onnx.errors.OnnxExporterError("no symbol for aten::odd\nsecond line")

    def frozen(tower: Any, path: Path, opset: int) -> None:
        """A graph for the batch that it was traced with, and no other."""
        fixed = export_graphs.Tower(
            tower.what, tower.module, tower.names, tower.output, {}, tower.example, tower.other
        )
        export_graphs._trace(fixed, path, opset)

    good = export_graphs.EXPORTERS["torchscript"]
    exporters = {"failing": failing, "frozen": frozen, "good": good}
    monkeypatch.setattr(export_graphs, "EXPORTERS", exporters)
    done = export_encoder(TorchEncoder(model()), tmp_path / "enc")
    assert done.exporters == {"visual": "good", "textual": "good"}
    monkeypatch.setattr(export_graphs, "EXPORTERS", {"failing": failing})
    with pytest.raises(EncoderError) as caught:
        export_encoder(TorchEncoder(model()), tmp_path / "other")
    message = str(caught.value)
    assert "torch cannot export its image tower (failing: OnnxExporterError: no symbol" in message
    assert "second line" not in message
    assert "pip install onnxscript" in message
    assert [path.name for path in tmp_path.iterdir()] == ["enc"]


@torch_only
def test_both_exporters_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxscript", reason="torch's newer exporter needs it")
    encoder = TorchEncoder(model())
    newer = {"dynamo": export_graphs.EXPORTERS["dynamo"]}
    monkeypatch.setattr(export_graphs, "EXPORTERS", newer)
    done = export_encoder(encoder, tmp_path / "enc")
    assert done.cut is True
    onnx = same_vectors(encoder, tmp_path / "enc")
    assert onnx._texts.inputs["input_ids"].shape == ["batch", "sequence"]


class _Off(TorchEncoder):
    """Says other vectors than its modules give."""

    def encode_images(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.roll(super().encode_images(pixels), 1, axis=1)


@torch_only
def test_different_vectors_are_not_kept(tmp_path: Path) -> None:
    encoder = _Off(model())
    with pytest.raises(EncoderError, match=r"differ from torch's: cosine -?\d\.\d+ for random im"):
        export_encoder(encoder, tmp_path / "enc")
    assert list(tmp_path.iterdir()) == []
    done = export_encoder(encoder, tmp_path / "enc", force=True)
    assert not done.parity.passed
    assert json.loads((tmp_path / "enc/parity.json").read_text())["passed"] is False


@torch_only
@pytest.mark.parametrize("stop", [OSError(errno.ENOSPC, "No space left on device"), None])
def test_a_full_disk_or_ctrl_c_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: OSError | None
) -> None:
    old = export_encoder(TorchEncoder(model()), tmp_path / "enc")
    before = {path.name: path.read_bytes() for path in old.folder.iterdir()}

    def full(*_: Any) -> None:
        raise stop or KeyboardInterrupt

    monkeypatch.setattr(export_graphs, "_finish", full)
    with pytest.raises(OutputError if stop else KeyboardInterrupt) as caught:
        export_encoder(TorchEncoder(model()), tmp_path / "enc", overwrite=True)
    if stop:
        assert "No space left on device. Choose a folder that is writable, on a" in str(
            caught.value
        )
    assert {path.name: path.read_bytes() for path in old.folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["enc"]


@torch_only
def test_an_older_export_is_replaced_only_when_asked(tmp_path: Path) -> None:
    (tmp_path / "enc").mkdir()  # an empty folder is no hindrance
    export_encoder(TorchEncoder(model()), tmp_path / "enc")
    first = load_encoder(tmp_path / "enc").info.weights_sha256
    other = TorchEncoder(model(scale=2.0))
    with pytest.raises(UsageError, match=r"there is an encoder already\. Add --overwrite"):
        export_encoder(other, tmp_path / "enc")
    assert load_encoder(tmp_path / "enc").info.weights_sha256 == first
    export_encoder(other, tmp_path / "enc", overwrite=True)
    assert load_encoder(tmp_path / "enc").info.weights_sha256 != first
    assert [path.name for path in tmp_path.iterdir()] == ["enc"]


@torch_only
def test_a_tokenizer_of_another_model(tmp_path: Path) -> None:
    bare = TorchEncoder(model(tokenizer_json=tiny.tokenizer(markers=False)))
    with pytest.raises(EncoderError, match=r"its tokenizer\.json gives other tokens than"):
        export_encoder(bare, tmp_path / "enc")
    none = TorchEncoder(model(tokenizer_json=None))
    with pytest.raises(UsageError, match=r"cannot be written as a tokenizer\.json"):
        export_encoder(none, tmp_path / "enc")
    blind = TorchEncoder(model(visual=None))
    with pytest.raises(UsageError, match="it has no image tower"):
        export_encoder(blind, tmp_path / "enc")
    assert list(tmp_path.iterdir()) == []


@torch_only
def test_opset_out_of_range(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot export with opset 9: it is not within 17 to"):
        export_encoder(TorchEncoder(model()), tmp_path / "enc", opset=9)
    done = export_encoder(TorchEncoder(model()), tmp_path / "enc", opset=17)
    assert done.parity.passed


def test_encoders_without_a_torch_model(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'fake': it has no torch model\. Exported are encoders"):
        check_encoder(FakeEncoder())
    onnx = load_encoder(tiny.byname_folder(tmp_path / "enc"))
    with pytest.raises(UsageError, match=r"no torch model\. It is an ONNX encoder already\."):
        export_encoder(onnx, tmp_path / "other")


def test_folders_that_are_no_encoder_are_never_touched(tmp_path: Path) -> None:
    assert check_target(tmp_path / "new", False) == (tmp_path / "new").resolve()
    (tmp_path / "photo.jpg").write_bytes(b"x")
    for overwrite in (False, True):
        with pytest.raises(UsageError, match=r"not empty and holds no encoder but photo\.jpg"):
            check_target(tmp_path, overwrite)
    with pytest.raises(UsageError, match="it is a file"):
        check_target(tmp_path / "photo.jpg", True)
    folder = tiny.byname_folder(tmp_path / "enc")
    assert check_target(folder, True) == folder.resolve()
    for name in ("visual.onnx.data", "parity.json", "README.md", "LICENSE"):
        (folder / name).write_bytes(b"x")
    assert check_target(folder, True) == folder.resolve()


@pytest.mark.parametrize(
    "name",
    ["notes.txt", "visual_notes.txt", "LICENSE-mine.txt", "visual/a.txt", "textual.onnx.data/a"],
)
def test_files_of_others_are_never_deleted(tmp_path: Path, name: str) -> None:
    folder = tiny.byname_folder(tmp_path)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("mine")
    with pytest.raises(UsageError, match=f"it holds {name.split('/')[0]}, which would be lost"):
        check_target(folder, True)


@pytest.mark.parametrize("folder", ["", "."])
def test_the_current_folder_is_no_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="it is the current folder, or no name at all"):
        check_target(Path(folder), True)


def test_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "onnx" else found(name, *a)
    )
    with pytest.raises(EncoderUnavailableError, match=r'Run: pip install "byname\[export\]"'):
        export_graphs.need_onnx("export it")


def test_parity_sees_what_differs(tmp_path: Path) -> None:
    good = load_encoder(tiny.byname_folder(tmp_path / "a"))
    assert compare(good, load_encoder(tmp_path / "a"), pixels(tiny.SIZE)).passed
    other = load_encoder(tiny.byname_folder(tmp_path / "b", None, tiny.textual(kind="all")))
    parity = compare(good, other)
    assert not parity.passed
    assert "text" in parity.worst().what
    assert parity.worst().cosine < 0.9999
    broken = Parity((Row("texts", 1, float("nan"), float("nan")),))
    assert not broken.passed
    assert broken.record()["rows"][0]["cosine"] is None


def test_an_old_folder_comes_back_if_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, new = tiny.byname_folder(tmp_path / "enc"), tmp_path / "new"
    new.mkdir()
    rename = Path.rename

    def refuse(self: Path, to: Path) -> Path:
        if self == new:
            raise OSError(errno.EACCES, "Permission denied")
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="Permission denied"):
        export_module._put_in_place(new, target)
    assert (target / "visual.onnx").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["enc", "new"]

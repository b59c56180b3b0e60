"""A plan cuts a source into shards and names the folder where their parts will lie."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from byname.encoders.base import Encoder
from byname.errors import EncoderError
from byname.files import atomic_path
from byname.images.preprocess import Preprocess
from byname.images.sources import ImageRef, Source

__all__ = ["SHARD_SIZE", "Plan", "Settings", "make_plan"]

SHARD_SIZE = 1024
PLAN_FORMAT = "byname-run/1"


@dataclass(frozen=True)
class Settings:
    """What decides the vectors of a run. ``shared``: whether other runs may reuse its vectors."""

    encoder: str
    fingerprint: str
    dim: int
    shard_size: int = SHARD_SIZE
    shared: bool = True


@dataclass(frozen=True)
class Plan:
    """Shards of a source. ``folder`` holds ``plan.json`` and the parts."""

    folder: Path
    settings: Settings
    preprocess: Preprocess
    refs: tuple[ImageRef, ...]
    root: str

    @property
    def n_shards(self) -> int:
        """Number of shards."""
        return -(-len(self.refs) // self.settings.shard_size)

    def shard(self, index: int) -> tuple[ImageRef, ...]:
        """Images of one shard, in order."""
        size = self.settings.shard_size
        return self.refs[index * size : (index + 1) * size]


def make_plan(
    source: Source,
    encoder: Encoder,
    base: Path,
    *,
    shard_size: int = SHARD_SIZE,
    share: bool = True,
) -> Plan:
    """Plan a run under ``base/runs/<hash of inputs and settings>`` and write its ``plan.json``.

    The hash covers every file's name, place, size and time of change, so a file that changed
    belongs to another run; its neighbours' vectors are found again by their content.
    """
    if encoder.info.preprocess is None:
        raise EncoderError(
            f"embed images with '{encoder.info.id}'",
            "it takes no pixels: it holds ready vectors, or is a model for sounds",
            "Give it vectors (Embeddings or an array), or choose another encoder.",
        )
    settings = Settings(
        encoder.info.id, encoder.info.image_fingerprint(), encoder.info.dim, shard_size, share
    )
    # The name under which an encoder was asked for does not change its vectors.
    keyed = {k: v for k, v in asdict(settings).items() if k != "encoder"}
    digest = hashlib.sha256(json.dumps([PLAN_FORMAT, keyed], sort_keys=True).encode())
    for ref in source.refs:
        # Absolute: another folder's 'photos/1.jpg' may have the same size and time.
        path = os.path.abspath(ref.path)  # noqa: PTH100 - text
        place = (ref.key, path, ref.offset, ref.length, ref.size, ref.mtime_ns)
        digest.update(repr(place).encode("utf-8", "backslashreplace"))
    folder = base / "runs" / digest.hexdigest()[:32]
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "plan.json").exists():
        text = {
            "format": PLAN_FORMAT,
            "settings": asdict(settings),
            "root": source.root,
            "images": len(source.refs),
        }
        with atomic_path(folder / "plan.json") as temporary:
            temporary.write_text(json.dumps(text, indent=1), encoding="utf-8")
    return Plan(folder, settings, encoder.info.preprocess, source.refs, source.root)

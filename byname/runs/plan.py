"""A plan cuts a source into shards and names the folder where their parts will lie."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any

from byname.encoders.base import Encoder
from byname.errors import EncoderError
from byname.images.preprocess import Preprocess
from byname.images.sources import ImageRef, Source
from byname.runs.planfile import PLAN_FORMAT, StoredRefs, read_plan, write_plan

__all__ = ["SHARD_SIZE", "Plan", "Settings", "inputs_digest", "make_plan", "ordered", "settings_of"]

SHARD_SIZE = 1024


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
    """Shards of a source. ``folder`` holds ``plan.json``, ``inputs.parquet`` and the parts.

    ``how`` is how to get the encoder again: what :func:`byname.encoders.load_encoder` takes.
    """

    folder: Path
    settings: Settings
    preprocess: Preprocess
    refs: Sequence[ImageRef]
    root: str
    how: dict[str, Any] | None = None

    @property
    def n_shards(self) -> int:
        """Number of shards."""
        return -(-len(self.refs) // self.settings.shard_size)

    def shard(self, index: int) -> Sequence[ImageRef]:
        """Images of one shard, in order."""
        size = self.settings.shard_size
        return self.refs[index * size : (index + 1) * size]

    def images_of(self, index: int) -> int:
        """Number of images of one shard."""
        size = self.settings.shard_size
        return max(0, min(size, len(self.refs) - index * size))

    def made_of(self, index: int) -> dict[str, str]:
        """What decides the part of a shard; its mark says the same, or it is another's."""
        images = inputs_digest(self.shard(index))
        return {"fingerprint": self.settings.fingerprint, "inputs": images}

    @classmethod
    def open(cls, folder: str | Path) -> Plan:
        """The plan in a run folder; images are read from there, shard by shard.

        Raises
        ------
        RunError
            Where there is none, or it is damaged.
        """
        told = read_plan(Path(folder))
        settings = Settings(**told.settings)
        refs = StoredRefs(Path(folder), told.images, settings.shard_size, told.inputs)
        return cls(Path(folder), settings, told.preprocess, refs, told.root, told.how)


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
    belongs to another run; its neighbours' vectors are found again by their content. The images
    are not written down: the process that has listed them is the one that reads them.
    """
    settings, preprocess = settings_of(encoder, shard_size, share)
    refs = ordered(source)
    # The name under which an encoder was asked for does not change its vectors.
    keyed = {k: v for k, v in asdict(settings).items() if k != "encoder"}
    digest = hashlib.sha256(json.dumps([PLAN_FORMAT, keyed], sort_keys=True).encode())
    inputs = inputs_digest(refs)
    digest.update(inputs.encode())
    folder = base / "runs" / digest.hexdigest()[:32]
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "plan.json").exists():
        write_plan(folder, asdict(settings), preprocess, source, inputs)
    return Plan(folder, settings, preprocess, refs, source.root)


def settings_of(encoder: Encoder, shard_size: int, share: bool) -> tuple[Settings, Preprocess]:
    """Settings of a run with this encoder, and the pixels it wants."""
    info = encoder.info
    if info.preprocess is None:
        raise EncoderError(
            f"embed images with '{info.id}'",
            "it takes no pixels: it holds ready vectors, or is a model for sounds",
            "Give it vectors (Embeddings or an array), or choose another encoder.",
        )
    found = Settings(info.id, info.image_fingerprint(), info.dim, shard_size, share)
    return found, info.preprocess


def ordered(source: Source) -> tuple[ImageRef, ...]:
    """Images in the order of the plan: by place where they lie in large files, else by key."""
    if getattr(source, "by_place", False):
        return tuple(sorted(source.refs, key=attrgetter("path", "offset", "key")))
    return source.refs


def inputs_digest(refs: Iterable[ImageRef]) -> str:
    """Hash over names, places, sizes and times of change of images, in order."""
    digest = hashlib.sha256()
    for ref in refs:
        # Absolute: another folder's 'photos/1.jpg' may have the same size and time.
        path = ref.path if "://" in ref.path else os.path.abspath(ref.path)  # noqa: PTH100 - text
        place = (ref.key, path, ref.offset, ref.length, ref.size, ref.mtime_ns, ref.inside)
        digest.update(repr(place).encode("utf-8", "backslashreplace"))
    return digest.hexdigest()

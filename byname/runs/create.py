"""Run folders: made once, taken up again by the same plan, never mixed with another."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock

from byname.encoders.base import Encoder
from byname.encoders.presets import DEFAULT, PRESETS
from byname.errors import RunError, some
from byname.images.preprocess import Preprocess
from byname.images.refs import ImageRef
from byname.images.sources import Source
from byname.runs.disk import disk_errors
from byname.runs.plan import SHARD_SIZE, Plan, Settings, inputs_digest, ordered, settings_of
from byname.runs.planfile import StoredRefs, ToldPlan, is_run, read_plan, write_inputs, write_plan

__all__ = ["create_run", "how_to_load"]

LOCK = "plan.lock"
NEW = "Give a new or an empty folder."


def create_run(
    source: Source,
    folder: str | Path,
    encoder: Encoder,
    how: Mapping[str, Any],
    shard_size: int = SHARD_SIZE,
) -> Plan:
    """Write the plan of a run into a folder of its own; the same plan may be there already.

    Parameters
    ----------
    source : Source
        Its images are written to the folder; the plan that comes back reads them from there.
    folder : path
        New or empty, or made by an earlier call with the same images and settings.
    encoder : Encoder
        For its card; nothing is encoded.
    how : mapping
        How workers get the encoder: see :func:`how_to_load`.
    shard_size : int, default 1024
        Images a part.

    Raises
    ------
    RunError
        Where another plan is there, with what differs; or other files are.
    OutputError
        Where the folder cannot be written.
    EncoderError
        For an encoder that takes no pixels.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise RunError(f"plan a run in '{folder}'", "it is a file", NEW)
    settings, preprocess = settings_of(encoder, shard_size, share=False)
    refs = ordered(source)
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / LOCK):
            inputs = inputs_digest(refs)
            if is_run(folder):
                told = read_plan(folder)
                _refuse_another(folder, told, settings, preprocess, how, inputs, refs)
            else:
                _clear(folder)
                write_inputs(folder, refs, shard_size, inputs)
                # last, by rename: without it there is no run
                write_plan(folder, asdict(settings), preprocess, source, inputs, how)
    return Plan.open(folder)


def how_to_load(encoder: Encoder, spec: str | None, precision: str | None) -> dict[str, Any]:
    """What workers load the encoder with, wherever they run: whole paths, nothing left open.

    Parameters
    ----------
    encoder : Encoder
        As it was loaded, and settled on a precision.
    spec, precision : str or None
        As they were asked for.

    Examples
    --------
    >>> from byname.encoders import load_encoder
    >>> how_to_load(load_encoder("mini"), " mini ", None)
    {'encoder': 'mini', 'precision': None}
    """
    name = (spec or os.environ.get("BYNAME_ENCODER") or DEFAULT).strip()
    kept = getattr(encoder, "precision", precision) if precision is not None else None
    return {"encoder": _whole(name), "precision": kept}


def _whole(name: str) -> str:
    """The name of an encoder with its folder or file, if it has one, as an absolute path."""
    if name in PRESETS:
        return name
    kind, colon, rest = name.partition(":")
    if kind == "open_clip":
        if rest.startswith("local-dir:"):
            return f"{kind}:local-dir:{_absolute(rest.removeprefix('local-dir:'))}"
        model, at, file = rest.partition("@")
        return f"{kind}:{model}@{_absolute(file)}" if at and not _is_hub(file) else name
    if colon and kind in ("onnx", "precomputed", "transformers", "onnx-hub"):
        local = kind in ("onnx", "precomputed") or (kind == "transformers" and _exists(rest))
        return f"{kind}:{_absolute(rest)}" if local else name
    return _absolute(name) if _exists(name) else name


def _is_hub(file: str) -> bool:
    return file.startswith("hf-hub:")


def _exists(text: str) -> bool:
    try:
        return Path(text).exists()
    except (OSError, ValueError):
        return False


def _absolute(text: str) -> str:
    return str(Path(text).absolute())


def _clear(folder: Path) -> None:
    """Drop what a planning that was killed has left; refuse a folder with anything else."""
    left = sorted(path.name for path in folder.iterdir())
    ours = [
        name
        for name in left
        if name == LOCK
        or name == "inputs.parquet"
        or (name.startswith((".inputs.parquet.", ".plan.json.")) and name.endswith(".tmp"))
    ]
    others = [name for name in left if name not in ours]
    if others:
        raise RunError(
            f"plan a run in '{folder}'",
            f"there are other files in it ({some(others, 3)})",
            NEW,
        )
    for name in ours:
        if name != LOCK:
            (folder / name).unlink()


def _refuse_another(
    folder: Path,
    told: ToldPlan,
    settings: Settings,
    preprocess: Preprocess,
    how: Mapping[str, Any],
    inputs: str,
    refs: Iterable[ImageRef],
) -> None:
    """Raise where a plan is another one, and say what differs."""
    old = Settings(**told.settings)
    before, now = asdict(told.preprocess), asdict(preprocess)
    differ = [
        f"{name}: {was} there, {wanted} now"
        for name, was, wanted in (
            ("weights", old.fingerprint[:12], settings.fingerprint[:12]),
            ("width", old.dim, settings.dim),
            ("shard size", old.shard_size, settings.shard_size),
            *((f"preprocessing, {name}", before[name], now[name]) for name in now),
        )
        if was != wanted
    ]
    if differ:  # another name or precision of the same weights gives the same vectors
        loaded = told.how or {}
        differ = [
            *(
                f"{name}: {was} there, {wanted} now"
                for name, was, wanted in (
                    ("encoder", f"'{old.encoder}'", f"'{settings.encoder}'"),
                    ("precision", *(h.get("precision") or "as it is" for h in (loaded, how))),
                )
                if was != wanted
            ),
            *differ,
        ]
    if told.inputs != inputs:
        differ.append(_compared(folder, told, old.shard_size, refs))
    if differ:
        raise RunError(
            f"plan this run in '{folder}'",
            f"another one is there ({'; '.join(differ)})",
            "Vectors of two plans do not mix: give another folder, or the images and settings "
            f"that it was planned with; 'byname run {folder}' goes on with what is there.",
        )


def _compared(folder: Path, told: ToldPlan, size: int, refs: Iterable[ImageRef]) -> str:
    """How many images were added, removed and changed."""
    new = {ref.key: ref for ref in refs}
    added, removed, changed = len(new), 0, 0
    for was in StoredRefs(folder, told.images, size, told.inputs):
        ref = new.get(was.key)
        if ref is None:
            removed += 1
            continue
        added -= 1
        changed += inputs_digest([ref]) != inputs_digest([was])
    counts = [f"{n:,} {what}" for n, what in ((added, "added"), (removed, "removed")) if n]
    counts += [f"{changed:,} changed"] if changed else []
    return f"images: {', '.join(counts) or 'in another order'}"

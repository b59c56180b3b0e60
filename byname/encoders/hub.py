"""Encoder folders and files from the Hugging Face hub, and from its cache on this machine.

The hub's own client obeys ``HF_HOME``, ``HF_HUB_CACHE`` and ``HF_HUB_OFFLINE``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from byname.encoders.layouts import is_complete
from byname.errors import EncoderUnavailableError
from byname.progress import bars_are_welcome, tell

__all__ = ["cached_file", "cached_folder", "fetch", "fetch_file", "names_repository", "offline"]

# The full-precision files of the layouts that are understood, and what describes them.
PATTERNS = [
    "*.json",
    "README.md",
    "LICENSE*",
    "visual.*",
    "textual.*",
    "onnx/vision_model.onnx*",
    "onnx/text_model.onnx*",
    "visual/model.onnx*",
    "textual/model.onnx*",
]
DESCRIPTIONS = ["*.json", "README.md", "LICENSE*", "merges.txt", "vocab.txt", "*.model"]
TIMEOUT_S = 5.0
MINI = (
    "or use '--encoder mini', which works offline but is far less accurate "
    '(pip install "byname[demo]").'
)


@dataclass(frozen=True)
class _Kind:
    """What is fetched for a kind of encoder.

    ``weights`` lists alternatives, best first; only the first that a repository has is fetched.
    """

    use: str
    patterns: Sequence[str]
    weights: Sequence[tuple[str, ...]] = ()


KINDS = {
    "onnx": _Kind("onnx", PATTERNS),
    "transformers": _Kind(
        "transformers", DESCRIPTIONS, (("model.safetensors",), ("model-*-of-*.safetensors",))
    ),
    "open_clip": _Kind(
        "open_clip:local-dir",
        DESCRIPTIONS,
        (
            ("open_clip_model.safetensors",),
            ("open_clip_pytorch_model.safetensors",),
            ("open_clip_pytorch_model.bin",),
        ),
    ),
}


def names_repository(text: str) -> bool:
    """Whether this can be a repository: OWNER/NAME, or the bare NAME of an old one.

    Examples
    --------
    >>> names_repository("openai/clip-vit-base-patch32"), names_repository("/a/folder")
    (True, False)
    """
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", text) is not None


@contextmanager
def offline() -> Iterator[None]:
    """Nothing is asked of a hub meanwhile: a library that lacks a file fails at once."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


@contextmanager
def _bars() -> Iterator[None]:
    """The hub draws its bars where ours would be; none where ours are not wanted either."""
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    tell("")
    off = not bars_are_welcome() and not are_progress_bars_disabled()
    if off:
        disable_progress_bars()
    try:
        yield
    finally:
        if off:
            enable_progress_bars()


def cached_folder(repo: str, kind: str = "onnx") -> Path | None:
    """Folder of a repository that was fetched before; None if it is not here, or only in part."""
    import huggingface_hub

    what = KINDS[kind]
    patterns = [*what.patterns, *(p for group in what.weights for p in group)]
    try:
        folder = Path(
            huggingface_hub.snapshot_download(repo, allow_patterns=patterns, local_files_only=True)
        )
    except Exception:  # noqa: BLE001 - the hub's many classes all mean "not here"
        return None
    if kind == "onnx":
        return folder if is_complete(folder) else None
    described = "config.json" if kind == "transformers" else "open_clip_config.json"
    held = any(any(folder.glob(p)) for group in what.weights for p in group)
    return folder if held and (folder / described).is_file() else None


def cached_file(repo: str, names: Sequence[str]) -> Path | None:
    """The first of these files of a repository that was fetched before."""
    import huggingface_hub

    for name in names:
        try:
            return Path(huggingface_hub.hf_hub_download(repo, name, local_files_only=True))
        except Exception:  # noqa: BLE001 - the hub's many classes all mean "not here"
            continue
    return None


def fetch(repo: str, asked: str, kind: str = "onnx") -> Path:
    """Folder of a repository, downloaded if need be.

    Parameters
    ----------
    repo, asked : str
        The repository, and what the user wrote.
    kind : {"onnx", "transformers", "open_clip"}
        Which of its files are wanted.

    Raises
    ------
    EncoderUnavailableError
        If it cannot be had, with the commands that get it another way.
    """
    import huggingface_hub

    if (folder := cached_folder(repo, kind)) is not None:
        return folder
    what = KINDS[kind]
    wanted = [*what.patterns, *(p for group in what.weights for p in group)]
    include = "".join(f' --include "{pattern}"' for pattern in wanted)
    do = (
        f"On a machine with a network run 'hf download {repo} --local-dir FOLDER{include}', bring "
        f"the folder here and use '--encoder {what.use}:FOLDER'; {MINI}"
    )
    try:
        # one request first: without a network it fails at once, where a download would retry
        listed = huggingface_hub.HfApi().model_info(repo, timeout=TIMEOUT_S)
        patterns = list(what.patterns)
        if what.weights:
            patterns += _first_here(what.weights, [f.rfilename for f in listed.siblings or []])
        with _bars():
            return Path(huggingface_hub.snapshot_download(repo, allow_patterns=patterns))
    except Exception as error:  # noqa: BLE001 - network, HTTP and hub errors share no base class
        raise _unavailable(f"fetch encoder '{asked}' ({repo})", error, do) from None


def fetch_file(
    repo: str, names: Sequence[str], asked: str, then: str, *, certain: str = ""
) -> Path:
    """The first of these files that a repository has, downloaded if need be.

    Parameters
    ----------
    repo : str
    names : sequence of str
        Best first.
    asked : str
        What the user wrote.
    then : str
        What to do once the file was brought by hand.
    certain : str, optional
        The files that a download by hand names; the first of ``names`` by default.

    Raises
    ------
    EncoderUnavailableError
        If it cannot be had.
    """
    import huggingface_hub

    if (path := cached_file(repo, names)) is not None:
        return path
    files = certain or names[0]
    do = (
        f"On a machine with a network run 'hf download {repo} {files} --local-dir FOLDER', "
        f"bring {'them' if ' ' in files else 'the file'} here and {then}; {MINI}"
    )
    try:
        listed = huggingface_hub.HfApi().model_info(repo, timeout=TIMEOUT_S)
        here = [f.rfilename for f in listed.siblings or []]
        name = _first_here([(name,) for name in names], here)[0]
        with _bars():
            return Path(huggingface_hub.hf_hub_download(repo, name))
    except Exception as error:  # noqa: BLE001 - network, HTTP and hub errors share no base class
        raise _unavailable(f"fetch encoder '{asked}' ({repo})", error, do) from None


def _first_here(groups: Sequence[tuple[str, ...]], here: Sequence[str]) -> list[str]:
    """The first group of patterns of which a repository has a file."""
    from fnmatch import fnmatch

    for group in groups:
        if any(fnmatch(name, pattern) for name in here for pattern in group):
            return list(group)
    wanted = " or ".join(pattern for group in groups for pattern in group)
    raise FileNotFoundError(f"the repository has no {wanted}")


def _unavailable(asked: str, error: Exception, do: str) -> EncoderUnavailableError:
    reason = str(error).strip().splitlines()
    return EncoderUnavailableError(
        asked,
        f"the Hugging Face hub did not give it ({type(error).__name__}: "
        f"{reason[0][:160] if reason else 'no reason given'})",
        do,
    )

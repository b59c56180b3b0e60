"""Encoder folders from the Hugging Face hub, and from its cache on this machine."""

from __future__ import annotations

from pathlib import Path

from byname.encoders.layouts import is_complete
from byname.errors import EncoderUnavailableError

__all__ = ["cached_folder", "fetch"]

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
TIMEOUT_S = 5.0


def cached_folder(repo: str) -> Path | None:
    """Folder of a repository that was fetched before; None if it is not here, or only in part."""
    import huggingface_hub

    try:
        folder = Path(
            huggingface_hub.snapshot_download(repo, allow_patterns=PATTERNS, local_files_only=True)
        )
    except Exception:  # noqa: BLE001 - the hub's many classes all mean "not here"
        return None
    return folder if is_complete(folder) else None


def fetch(repo: str, asked: str) -> Path:
    """Folder of a repository, downloaded if need be.

    Raises
    ------
    EncoderUnavailableError
        If it cannot be had, with the commands that get it another way.
    """
    import huggingface_hub

    if (folder := cached_folder(repo)) is not None:
        return folder
    try:
        # one request first: without a network it fails at once, where a download would retry
        huggingface_hub.HfApi().model_info(repo, timeout=TIMEOUT_S)
        return Path(huggingface_hub.snapshot_download(repo, allow_patterns=PATTERNS))
    except Exception as error:  # noqa: BLE001 - network, HTTP and hub errors share no base class
        reason = str(error).strip().splitlines()
        raise EncoderUnavailableError(
            f"fetch encoder '{asked}' ({repo})",
            f"the Hugging Face hub did not give it ({type(error).__name__}: "
            f"{reason[0][:160] if reason else 'no reason given'})",
            f"On a machine with a network run 'hf download {repo} --local-dir FOLDER', bring the "
            "folder here and use '--encoder onnx:FOLDER'; or use '--encoder mini', which works "
            'offline but is far less accurate (pip install "byname[demo]").',
        ) from None

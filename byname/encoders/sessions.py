"""Opening ONNX Runtime sessions."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from byname.errors import EncoderError

__all__ = ["open_session", "processors", "split_threads"]

CALLERS = 8


def processors() -> int:
    """How many processors this process may use: a container or taskset may leave it a few.

    Examples
    --------
    >>> processors() >= 1
    True
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def split_threads(threads: int | None) -> tuple[int, int]:
    """How many calls to make at once, and how many threads to give to a session for them.

    A session of one thread works on its caller's, so that n callers share one set of weights and
    never wait for each other, as the threads of one operator do at its end: measured in
    docs/performance.md. Beyond ``CALLERS`` the rest are the session's own, which bounds memory.

    Examples
    --------
    >>> split_threads(2), split_threads(12)
    ((2, 1), (8, 5))
    """
    total = threads or processors()
    callers = min(total, CALLERS)
    return callers, total - callers + 1


def open_session(
    model: Path | bytes, name: str, *, threads: int | None = None, device: str = "cpu"
) -> Any:
    """An ``onnxruntime.InferenceSession``.

    Parameters
    ----------
    model : path or bytes
        A file (which may have its weights in files beside it), or a serialised model.
    name : str
        How to call the model in messages.
    threads : int, optional
        Threads within an operator; as many as ``processors()`` by default.
    device : {"cpu", "cuda"}

    Raises
    ------
    EncoderError
        If the model cannot be loaded, or the device is not there.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or processors()
    # Decoding goes on beside the session: a thread that waits must not spin on its processor.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    source = model if isinstance(model, bytes) else str(model)
    try:
        return ort.InferenceSession(source, options, providers=_providers(ort, name, device))
    except EncoderError:
        raise
    # onnxruntime raises a dozen classes of its own without a common base
    except Exception as error:  # noqa: BLE001
        reason = (
            str(error).strip().splitlines()[0][:200] if str(error).strip() else "no reason given"
        )
        raise EncoderError(
            f"load '{name}'",
            f"onnxruntime refused it ({type(error).__name__}: {reason})",
            "The file is cut short, is not an ONNX model, or needs a newer onnxruntime: "
            "download or export it again.",
        ) from None


def _providers(ort: Any, name: str, device: str) -> list[str]:
    if device == "cpu":
        return ["CPUExecutionProvider"]
    available = ort.get_available_providers()
    if device == "cuda" and "CUDAExecutionProvider" in available:
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]
    raise EncoderError(
        f"run '{name}' on device '{device}'",
        f"onnxruntime offers {', '.join(available)} here",
        "Use device 'cpu'"
        + (", or install onnxruntime-gpu for 'cuda'." if device == "cuda" else " or 'cuda'."),
    )

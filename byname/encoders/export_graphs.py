"""One tower of a torch model as one ONNX file, by whichever of torch's two exporters can."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byname.encoders.sessions import open_session
from byname.errors import EncoderError, EncoderUnavailableError
from byname.images.preprocess import Preprocess

__all__ = ["Tower", "image_tower", "need_onnx", "text_tower", "write_graph"]

INLINE_BYTES = 1_900_000_000
"""Weights up to this size lie in the graph itself; protobuf ends at 2 GiB."""
CLOSE = 0.9999
"""Least cosine on inputs of another shape at which a graph is taken for general."""


@dataclass(frozen=True)
class Tower:
    """What an exporter needs to know.

    Parameters
    ----------
    what : str
        For messages: ``"image tower"``.
    module : torch.nn.Module
    names : sequence of str
        Names of the inputs.
    output : str
    free : mapping of int to str
        Axes of the inputs that take any length, and what they are called.
    example, other : sequence of arrays
        Inputs to trace with, and inputs of another shape to check the graph with.
    """

    what: str
    module: Any
    names: Sequence[str]
    output: str
    free: Mapping[int, str]
    example: Sequence[NDArray[Any]]
    other: Sequence[NDArray[Any]]


def need_onnx(asked: str) -> None:
    """Check for the package before any work is done.

    Raises
    ------
    EncoderUnavailableError
        Where the package onnx is missing.
    """
    if importlib.util.find_spec("onnx") is None:
        raise EncoderUnavailableError(
            asked, "the package 'onnx' is missing", 'Run: pip install "byname[export]"'
        )


def image_tower(visual: Any, preprocess: Preprocess) -> Tower:
    """uint8 pixels (B, S, S, 3) to vectors; normalisation becomes part of the graph."""
    torch = importlib.import_module("torch")
    mean, std = (
        torch.tensor(values, dtype=torch.float64).reshape(1, 3, 1, 1)
        for values in (preprocess.mean, preprocess.std)
    )

    class Visual(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.tower = visual
            # (x / 255 - mean) / std in one product and one difference
            self.register_buffer("scale", (1 / (255 * std)).float())
            self.register_buffer("shift", (mean / std).float())

        def forward(self, pixels: Any) -> Any:
            x = pixels.permute(0, 3, 1, 2).to(torch.float32)
            return self.tower(x * self.scale - self.shift)

    rng = np.random.default_rng(0)
    shape = (preprocess.size, preprocess.size, 3)
    example, other = (rng.integers(0, 256, (n, *shape), np.uint8) for n in (2, 3))
    return Tower(
        "image tower",
        Visual().eval(),
        ("pixels",),
        "image_embeds",
        {0: "batch"},
        [example],
        [other],
    )


def text_tower(
    textual: Any, rows: Sequence[Sequence[int]], pad: int, context: int, *, free: bool, masked: bool
) -> Tower:
    """Token numbers (B, L) to vectors.

    Parameters
    ----------
    textual : torch.nn.Module
        Takes ``input_ids`` and ``attention_mask``.
    rows : sequence of sequences of int
        Tokens of some texts of different lengths.
    pad, context : int
        Padding token, and the longest row.
    free : bool
        Whether rows may be shorter than the context.
    masked : bool
        Whether the graph takes a mask; without one, every token is attended to.
    """
    torch = importlib.import_module("torch")

    class Textual(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.tower = textual

        def forward(self, input_ids: Any, attention_mask: Any = None) -> Any:
            mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
            return self.tower(input_ids, mask)

    def feed(chosen: Sequence[Sequence[int]]) -> list[NDArray[Any]]:
        length = max(map(len, chosen)) if free else context
        ids = np.full((len(chosen), length), pad, np.int64)
        mask = np.zeros_like(ids)
        for i, row in enumerate(chosen):
            ids[i, : len(row)], mask[i, : len(row)] = row, 1
        return [ids, mask] if masked else [ids]

    ordered = sorted(rows, key=len)
    return Tower(
        "text tower",
        Textual().eval(),
        ("input_ids", "attention_mask")[: 1 + masked],
        "text_embeds",
        {0: "batch", 1: "sequence"} if free else {0: "batch"},
        feed(ordered[1:3]),
        feed([ordered[0], ordered[-1], ordered[-1]]),
    )


def write_graph(tower: Tower, path: Path, opset: int, asked: str) -> str:
    """Write one graph; weights too large for one file go to ``<name>.data`` beside it.

    The graph is tried on inputs of another shape than it was traced with, since a tracer may take
    a size that it saw for a constant; the other exporter is tried then.

    Returns
    -------
    str
        Name of the exporter whose graph was kept.

    Raises
    ------
    EncoderError
        If no exporter gives a graph that runs; with what each of them said.
    """
    said: list[str] = []
    with tempfile.TemporaryDirectory(prefix=".graph-", dir=path.parent) as scratch:
        found: list[tuple[float, str, Path]] = []
        for name, exporter in EXPORTERS.items():
            raw = Path(scratch) / name / path.name
            raw.parent.mkdir()
            try:
                with _quiet():
                    exporter(tower, raw, opset)
                found.append((_agreement(tower, raw), name, raw))
            except OSError:
                raise
            # torch's exporters raise classes of their own and nearly every built-in one
            except Exception as error:  # noqa: BLE001
                said.append(f"{name}: {_short(error)}")
                continue
            if found[-1][0] >= CLOSE:
                break
            said.append(f"{name}: cosine {found[-1][0]:.6f} to torch on another shape")
        if not found:
            raise EncoderError(
                asked,
                f"torch cannot export its {tower.what} ({'; '.join(said)})",
                "Try another --opset, 'pip install onnxscript' for torch's newer exporter, or a "
                "newer torch; the encoder itself can be used without an export.",
            )
        _, name, raw = max(found, key=lambda one: one[0])
        _finish(raw, path, tower)
    return name


def _trace(tower: Tower, path: Path, opset: int) -> None:
    torch = importlib.import_module("torch")
    axes = {name: dict(tower.free) for name in tower.names}
    torch.onnx.export(
        tower.module,
        tuple(torch.from_numpy(a) for a in tower.example),
        str(path),
        input_names=list(tower.names),
        output_names=[tower.output],
        dynamic_axes={**axes, tower.output: {0: "batch"}},
        opset_version=opset,
        dynamo=False,
    )


def _dynamo(tower: Tower, path: Path, opset: int) -> None:
    torch = importlib.import_module("torch")
    free = dict.fromkeys(tower.free, torch.export.Dim.DYNAMIC)
    torch.onnx.export(
        tower.module,
        tuple(torch.from_numpy(a) for a in tower.example),
        str(path),
        input_names=list(tower.names),
        output_names=[tower.output],
        dynamic_shapes=tuple(free for _ in tower.names),
        opset_version=opset,
        dynamo=True,
        external_data=True,
        verbose=False,
    )


# The tracer first: it needs no further package, and is faster.
EXPORTERS: dict[str, Callable[[Tower, Path, int], None]] = {
    "torchscript": _trace,
    "dynamo": _dynamo,
}


@contextmanager
def _quiet() -> Iterator[None]:
    """No gradients, no warnings about tracing, and attention as plain operators."""
    torch = importlib.import_module("torch")
    fast = torch.backends.mha.get_fastpath_enabled()
    level = logging.root.manager.disable
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        logging.disable(logging.ERROR)
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        logging.disable(level)


def _agreement(tower: Tower, path: Path) -> float:
    """Least cosine between the graph and torch on inputs that it was not traced with."""
    torch = importlib.import_module("torch")
    options = importlib.import_module("onnxruntime").RunOptions()
    options.log_severity_level = 4  # what it would print is in the exception
    feed = dict(zip(tower.names, tower.other, strict=True))
    got = np.asarray(
        open_session(path, path.name).run([tower.output], feed, options)[0], np.float64
    )
    with torch.no_grad():
        want = tower.module(*(torch.from_numpy(a) for a in tower.other)).double().numpy()
    norms = np.linalg.norm(got, axis=1) * np.linalg.norm(want, axis=1)
    return float(np.nan_to_num((got * want).sum(1) / norms, nan=-1.0).min())


def _finish(raw: Path, path: Path, tower: Tower) -> None:
    """Drop what only a debugger reads (paths of this machine among it), name the free axes."""
    onnx = importlib.import_module("onnx")
    model = onnx.load(str(raw))
    graph = model.graph
    for node in graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.doc_string = ""
        del value.metadata_props[:]
    del graph.value_info[:]
    del graph.metadata_props[:], model.metadata_props[:]
    graph.doc_string = model.doc_string = ""
    graph.name = tower.output
    for value in (*graph.input, *graph.output):
        free = tower.free if value.name in tower.names else {0: "batch"}
        for axis, name in free.items():
            value.type.tensor_type.shape.dim[axis].dim_param = name
    large = sum(len(weight.raw_data) for weight in graph.initializer) > INLINE_BYTES
    onnx.save_model(
        model,
        str(path),
        save_as_external_data=large,
        all_tensors_to_one_file=True,
        location=f"{path.name}.data",
    )


def _short(error: Exception) -> str:
    """The first line that says something, without addresses and links."""
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip() for line in str(error).splitlines()]
    text = next((line for line in lines if line), "no reason given")
    return f"{type(error).__name__}: {text:.200}"

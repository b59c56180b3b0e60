"""Any dual encoder that is a torch module: what the loaders for the two libraries share."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from byname.encoders.arrays import as_pixels, as_texts, unit_rows
from byname.encoders.base import Encoder, EncoderInfo
from byname.encoders.memory import within_memory
from byname.encoders.tokens import groups_of_equal_length
from byname.encoders.torch_text import Tokens
from byname.errors import EncoderError, EncoderUnavailableError

__all__ = [
    "Model",
    "Precision",
    "TorchEncoder",
    "features_of",
    "need",
    "sha256_of_state",
    "tower",
]

Precision = Literal["fp32", "bf16", "fp16"]
TEXT_BATCH = 64
# Texts of different lengths, to see whether padding changes a vector.
PROBE = ("a", "a photo of a dog")
INSTALL = (
    'pip install "byname[torch]". For a CPU, install a CPU build of torch first '
    "(pip install torch --index-url https://download.pytorch.org/whl/cpu), or several GB of CUDA "
    "libraries come with it."
)


@dataclass(frozen=True)
class Model:
    """What a loader has found; everything that a :class:`TorchEncoder` is made of.

    Parameters
    ----------
    info : EncoderInfo
        Its ``dim`` may be a guess: the encoder measures it.
    visual : torch.nn.Module or None
        Normalised float pixels (B, 3, S, S) to (B, D); None where the model takes no images.
    textual : torch.nn.Module
        ``input_ids`` int64 (B, L) and ``attention_mask`` int64 (B, L) to (B, D).
    tokens : Tokens
    tokenizer_json : str or None
        Content of a ``tokenizer.json`` that gives the same rows.
    pad_id : int
    vocabulary : int or None
        Rows of the token embedding; None where unknown.
    may_cut : bool
        False for models that were trained to read padding (SigLIP): they always get full rows.
    mask_padding : bool
        Whether the mask is 0 at padding.
    """

    info: EncoderInfo
    visual: Any
    textual: Any
    tokens: Tokens
    tokenizer_json: str | None
    pad_id: int
    vocabulary: int | None = None
    may_cut: bool = True
    mask_padding: bool = True


class TorchEncoder(Encoder):
    """A torch model as an encoder.

    Parameters
    ----------
    model : Model
    device : str
        ``"cpu"``, ``"cuda"`` (also ``"cuda:1"``) or ``"mps"``.
    precision : {"fp32", "bf16", "fp16"}
        Of weights and activations. Vectors are always float32.
    threads : int, optional
        Threads of torch, for the whole process.

    Attributes
    ----------
    visual, textual : torch.nn.Module
        As in :class:`Model`; in evaluation mode, on the device, in the precision.
    tokenizer_json : str or None
    causal : bool
        Whether a text may be cut to its own length: seen to give the same vector with and without
        padding, and never true for models that read padding.
    pad_id : int
    mask_padding : bool

    Raises
    ------
    EncoderError
        If the device or precision cannot be used, the tokenizer does not belong to the model, or
        the towers do not fit together.

    Notes
    -----
    Images cross to the device as uint8 and are normalised there; their memory order, channels
    last, is the one that convolutions like best.
    """

    def __init__(
        self,
        model: Model,
        *,
        device: str = "cpu",
        precision: str = "fp32",
        threads: int | None = None,
    ) -> None:
        torch = need("torch", model.info.id)
        self.info = model.info
        self.device = _device(torch, device, self.info.id)
        self.dtype = _dtype(torch, precision, self.info.id)
        self.precision = precision
        if precision != "fp32":  # other vectors: cached ones must not mix with those of fp32
            mixed = f"{self.info.weights_sha256 or self.info.id}|{precision}"
            digest = hashlib.sha256(mixed.encode()).hexdigest()
            self.info = replace(self.info, weights_sha256=digest)
        if threads:
            torch.set_num_threads(threads)
        self.tokenizer_json, self.pad_id = model.tokenizer_json, model.pad_id
        self.mask_padding = model.mask_padding
        self._tokens, self._vocabulary = model.tokens, model.vocabulary
        self.visual: Any = None if model.visual is None else self._place(torch, model.visual)
        self.textual: Any = self._place(torch, model.textual)
        self.context = self.info.context_length
        self.causal = False
        widths = self._widths(torch)
        if len(set(widths)) != 1:
            raise EncoderError(
                f"use encoder '{self.info.id}'",
                f"its image vectors have width {widths[0]}, its text vectors {widths[1]}",
                "The two towers come from different models: get the weights again.",
            )
        if widths[0] != self.info.dim:
            self.info = replace(self.info, dim=widths[0])
        self.causal = self.context is None or (model.may_cut and self._padding_is_inert())

    def encode_images(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(B, size, size, 3) uint8 pixels to (B, D) unit rows."""
        asked = f"encode images with '{self.info.id}'"
        if self.visual is None or self.info.preprocess is None:
            raise EncoderError(
                asked,
                "it has no image tower",
                "Use it for texts, beside ready vectors: 'precomputed:FOLDER' or an (N, D) array.",
            )
        pixels = as_pixels(pixels, self.info.preprocess.size, self.info.id)
        if not len(pixels):
            return np.zeros((0, self.info.dim), np.float32)
        return self._unit(within_memory(asked, lambda: self._run_images(pixels), self._free), asked)

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """M texts to (M, D) unit rows; each distinct text is run once."""
        listed = as_texts(texts, self.info.id)
        unique = {text: i for i, text in enumerate(dict.fromkeys(listed))}
        if not unique:
            return np.zeros((0, self.info.dim), np.float32)
        rows = self.tokenize(list(unique))
        lengths = [max(len(row), 1) if self.causal else self.context or 1 for row in rows]
        vectors, asked = np.zeros((len(rows), self.info.dim)), f"encode texts with '{self.info.id}'"
        batch = TEXT_BATCH * (1 if self.device.type == "cpu" else 8)
        for group in groups_of_equal_length(lengths, batch):
            run = partial(self._run_rows, [rows[i] for i in group], lengths[group[0]])
            vectors[group] = within_memory(asked, run, self._free)
        unit = self._unit(vectors, asked, list(unique))
        return unit[[unique[text] for text in listed]]

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token numbers of each text, cut to the context; the end token stays the last one.

        Raises
        ------
        EncoderError
            If a number lies beyond the model's vocabulary.
        """
        rows = self._tokens.rows(texts)
        most = max((max(row, default=0) for row in rows), default=0)
        if self._vocabulary is not None and most >= self._vocabulary:
            first = next(t for t, row in zip(texts, rows, strict=True) if most in row)
            raise EncoderError(
                f"encode texts with '{self.info.id}'",
                f"its tokenizer gives the number {most:,} for {first!r:.60}, and the model knows "
                f"{self._vocabulary:,} tokens",
                "The tokenizer belongs to another model: get it from where the weights come from.",
            )
        return rows

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, uncut, markers included."""
        return self._tokens.counts(as_texts(texts, self.info.id))

    def close(self) -> None:
        """Free the weights."""
        self.visual = self.textual = None
        self._free()

    def _free(self) -> None:
        if self.device.type == "cuda":
            importlib.import_module("torch").cuda.empty_cache()

    def _place(self, torch: Any, module: Any) -> Any:
        module = module.eval().requires_grad_(False)
        return module.to(self.device, self.dtype, memory_format=torch.channels_last)

    def _run_images(self, pixels: NDArray[np.uint8]) -> NDArray[Any]:
        torch = importlib.import_module("torch")
        assert self.info.preprocess is not None
        # a tensor over read-only memory would be a trap, and torch warns of it
        array = np.ascontiguousarray(pixels)
        batch = torch.from_numpy(array if array.flags.writeable else array.copy())
        cuda = self.device.type == "cuda"
        batch = batch.pin_memory() if cuda else batch
        mean, std = (
            torch.tensor(values, device=self.device).view(1, 3, 1, 1)
            for values in (self.info.preprocess.mean, self.info.preprocess.std)
        )
        with torch.inference_mode():
            x = batch.to(self.device, non_blocking=cuda).permute(0, 3, 1, 2)
            x = ((x.to(torch.float32) / 255 - mean) / std).to(self.dtype)
            return self._numpy(self.visual(x), len(pixels), "image")

    def _run_rows(self, rows: Sequence[Sequence[int]], length: int) -> NDArray[Any]:
        torch = importlib.import_module("torch")
        ids = np.full((len(rows), length), self.pad_id, np.int64)
        mask = np.zeros_like(ids) if self.mask_padding else np.ones_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = row
            mask[i, : len(row)] = 1
        with torch.inference_mode():
            inputs = (torch.from_numpy(array).to(self.device) for array in (ids, mask))
            return self._numpy(self.textual(*inputs), len(rows), "text")

    def _numpy(self, out: Any, count: int, kind: str) -> NDArray[Any]:
        if tuple(out.shape[:1]) != (count,) or out.ndim != 2:
            raise EncoderError(
                f"use encoder '{self.info.id}'",
                f"its {kind} tower gives shape {tuple(out.shape)} for a batch of {count}",
                "Expected one vector a row; this kind of model is not supported.",
            )
        return np.asarray(out.float().cpu().numpy())

    def _unit(
        self, vectors: NDArray[Any], asked: str, names: Sequence[str] | None = None
    ) -> NDArray[np.float32]:
        try:
            return unit_rows(vectors, asked, names)
        except EncoderError as error:
            if self.precision == "fp32":
                raise
            do = f"{self.precision} may be too coarse for this model: try fp32 first."
            raise EncoderError(error.asked, error.seen, do) from None

    def _widths(self, torch: Any) -> list[int]:
        """Width of the vectors of each tower."""
        asked = f"use encoder '{self.info.id}'"
        try:
            rows = self.tokenize(PROBE[:1])
            found = [self._run_rows(rows, self.context or len(rows[0])).shape[1]]
            if self.visual is not None and self.info.preprocess is not None:
                size = self.info.preprocess.size
                blank = np.zeros((1, size, size, 3), np.uint8)
                found.insert(0, self._run_images(blank).shape[1])
        except (RuntimeError, ValueError, IndexError, AssertionError) as error:
            if isinstance(error, EncoderError):
                raise
            raise EncoderError(
                asked,
                f"it failed on one image and one text ({type(error).__name__}: {error!s:.200})",
                "Its description does not fit its weights, or the device lacks "
                f"{self.precision}: get the whole folder from one source, or try fp32.",
            ) from None
        return found

    def _padding_is_inert(self) -> bool:
        """Whether texts give the same vectors with and without padding."""
        context = self.context or 0
        limit = 1e-4 if self.precision == "fp32" else 0.05
        for text in PROBE:
            rows = self.tokenize([text])
            try:
                padded, bare = (self._run_rows(rows, n)[0] for n in (context, len(rows[0])))
            except (RuntimeError, ValueError, IndexError):
                return False  # the tower takes rows of one length only
            # written so that NaN says no
            if not np.abs(padded - bare).max() <= limit * np.abs(padded).max():
                return False
        return True


def need(module: str, asked: str) -> Any:
    """An optional library, imported.

    Raises
    ------
    EncoderUnavailableError
        If it is missing or cannot be imported, with the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise EncoderUnavailableError(
            f"use encoder '{asked}'", f"the package '{error.name}' is missing", f"Run {INSTALL}"
        ) from None
    except (ImportError, RuntimeError, OSError, AttributeError) as error:
        reason = f"{error!s:.200}"
        if "torchvision" in reason:
            raise EncoderUnavailableError(
                f"use encoder '{asked}'",
                "torchvision cannot be imported: it lacks its C++ operators, which happens when "
                f"its build does not match that of torch ({reason})",
                "Install both from one index: pip install --force-reinstall torch torchvision "
                "--index-url https://download.pytorch.org/whl/cpu. transformers also works without "
                "it: pip uninstall torchvision",
            ) from None
        raise EncoderUnavailableError(
            f"use encoder '{asked}'",
            f"'{module}' cannot be imported ({type(error).__name__}: {reason})",
            f"Install it again: {INSTALL}",
        ) from None


def tower(model: Any, call: Callable[..., Any]) -> Any:
    """One tower as a module of its own: ``call(model, *inputs)``, holding the model's weights."""
    torch = importlib.import_module("torch")

    class Tower(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *inputs: Any) -> Any:
            return call(self.model, *inputs)

    return Tower()


def features_of(out: Any) -> Any:
    """Up to version 4 of transformers the features themselves, from 5 on an object around them."""
    return out.pooler_output if hasattr(out, "pooler_output") else out


def sha256_of_state(state: Mapping[str, Any], extra: Iterable[str] = ()) -> str:
    """Hash over names, types, shapes and bytes of a state dict, for models without files.

    Parameters
    ----------
    state : mapping of str to tensor
    extra : iterable of str
        What else decides the vectors, such as the tokenizer.
    """
    torch = importlib.import_module("torch")
    total = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        total.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    for text in extra:
        total.update(hashlib.sha256(text.encode()).digest())
    return total.hexdigest()


def _device(torch: Any, device: str, asked: str) -> Any:
    kind = device.partition(":")[0]
    here = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    number = device.partition(":")[2] or "0"
    most = torch.cuda.device_count() if kind == "cuda" else 1
    if not here.get(kind, False) or not number.isdecimal() or int(number) >= most:
        raise EncoderError(
            f"run '{asked}' on device '{device}'",
            f"torch {torch.__version__} offers {', '.join(k for k, v in here.items() if v)} here",
            "Use one of these; for 'cuda' install a CUDA build of torch.",
        )
    return torch.device(device)


def _dtype(torch: Any, precision: str, asked: str) -> Any:
    if precision not in get_args(Precision):
        raise EncoderError(
            f"run '{asked}' in precision '{precision}'",
            f"a torch model runs in {', '.join(get_args(Precision))}",
            "Use one of these; for int8 on a CPU, export it first: byname export.",
        )
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]

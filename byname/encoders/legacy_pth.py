"""Tensors out of a legacy ``.pth`` file, without torch and without executing anything.

A legacy file is five pickles (magic number, version, machine, the state dict, the storage keys),
then for each key a little-endian int64 count and the raw numbers. The unpickler here resolves four
kinds of names, all to inert stand-ins of our own, and refuses every other name. A tensor is built
only after its offset, shape and strides were found to lie inside its storage.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byname.errors import UnsafeFileError

__all__ = ["read_legacy_pth"]

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
DTYPES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
MAX_DIMS = 8
MAX_MEMO = 2**22  # things that pickles refer back to; a state dict has a few for each tensor
_PUTS = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})
MAX_EMPTY = 2**31  # numpy refuses an empty array whose other sides multiply to too much


class _Bag(dict[Any, Any]):
    """Stands in for OrderedDict; whatever attributes the file wants to set on it are dropped."""

    def __setstate__(self, state: object) -> None:
        pass


class _Sealed:
    """Without this, the BUILD instruction could rewrite fields that were already checked."""

    def __setstate__(self, state: object) -> None:
        raise ValueError("a tensor with attributes")


@dataclass(frozen=True)
class _Storage(_Sealed):
    key: str
    dtype: str
    count: int


@dataclass(frozen=True)
class _Tensor(_Sealed):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_legacy_pth(data: bytes, name: str = "file") -> dict[str, NDArray[Any]]:
    """Name to array, for the content of a legacy ``.pth`` that holds a state dict.

    Parameters
    ----------
    data : bytes
        The whole file.
    name : str
        How to call it in error messages.

    Returns
    -------
    dict of str to array
        In the order of the file, each array its own contiguous copy.

    Raises
    ------
    UnsafeFileError
        If the file names anything but tensors, or its lengths do not add up.

    Examples
    --------
    >>> read_legacy_pth(b"not a checkpoint", "a.pth")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    byname.errors.UnsafeFileError: cannot read 'a.pth': it is not a legacy .pth file...
    """
    refuse = _refuser(name)
    stream = io.BytesIO(data)
    if _load(stream, refuse) != MAGIC or _load(stream, refuse) != PROTOCOL:
        raise refuse("it is not a legacy .pth file (wrong magic number or version)")
    machine = _load(stream, refuse)
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise refuse("it was not written on a little-endian machine")
    state, keys = _load(stream, refuse), _load(stream, refuse)
    if not isinstance(state, _Bag) or not all(
        isinstance(k, str) and isinstance(v, _Tensor) for k, v in state.items()
    ):
        raise refuse("it does not hold a plain mapping of names to tensors")
    wanted = _storages(state, refuse)
    if not (
        isinstance(keys, list)
        and all(isinstance(key, str) for key in keys)
        and sorted(keys) == sorted(wanted)
    ):
        raise refuse("its list of storages does not match its tensors")
    arrays = {key: _read_storage(stream, wanted[key], refuse) for key in keys}
    if stream.tell() != len(data):
        raise refuse(f"{len(data) - stream.tell()} bytes are left over at its end")
    return {k: _build(k, v, arrays[v.storage.key], refuse) for k, v in state.items()}


Refuse = Callable[[str], UnsafeFileError]


def _refuser(name: str) -> Refuse:
    def refuse(seen: str) -> UnsafeFileError:
        return UnsafeFileError(
            f"read '{name}'",
            seen,
            "Only tensors are accepted, and nothing in the file was executed. "
            "Get the file again from its source.",
        )

    return refuse


def _load(stream: io.BytesIO, refuse: Refuse) -> Any:
    # A malformed stream can raise almost anything from inside the unpickler; all of it means that
    # the file is not what it claims to be.
    try:
        _check_memo(stream)
        return _Restricted(stream, refuse).load()
    except UnsafeFileError:
        raise
    except Exception as error:  # noqa: BLE001
        raise refuse(
            f"it is not a legacy .pth file or is damaged ({type(error).__name__}: {error})"
        ) from None


def _check_memo(stream: io.BytesIO) -> None:
    """Refuse a pickle that numbers what it remembers beyond its own length.

    The unpickler makes a table as long as the largest number, so five bytes could ask for 30 GB.
    """
    start = stream.tell()
    for opcode, value, _ in pickletools.genops(stream):
        if opcode.name in _PUTS and int(value or 0) > MAX_MEMO:
            raise ValueError(f"it remembers a thing number {value}")
    stream.seek(start)


class _Rebuild(_Sealed):
    """Stands in for torch's function: checks its arguments and notes them down."""

    def __call__(self, *args: Any) -> _Tensor:
        match args:
            case (_Storage() as storage, int(offset), tuple(shape), tuple(strides), bool(), *_):
                numbers = (offset, *shape, *strides)
                if len(shape) == len(strides) <= MAX_DIMS and all(
                    type(n) is int and 0 <= n < 2**40 for n in numbers
                ):
                    return _Tensor(storage, offset, shape, strides)
        raise ValueError("a tensor described in an unknown way")


# The only unpickler of the package: no name resolves to anything that can act.
class _Restricted(pickle.Unpickler):
    def __init__(self, stream: io.BytesIO, refuse: Refuse) -> None:
        super().__init__(stream, encoding="utf-8")
        self._refuse = refuse

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return _Bag
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _Rebuild()
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        raise self._refuse(f"it asks for '{module}.{name}', which is not a tensor")

    def persistent_load(self, pid: Any) -> _Storage:
        match pid:
            case ("storage", str(dtype), str(key), str(), int(count), None):
                if dtype in DTYPES.values() and 0 <= count < 2**40:
                    return _Storage(key, dtype, count)
        raise self._refuse(f"it describes a storage in an unknown way: {pid!r:.100}")


def _storages(state: _Bag, refuse: Refuse) -> dict[str, _Storage]:
    found: dict[str, _Storage] = {}
    for tensor in state.values():
        if found.setdefault(tensor.storage.key, tensor.storage) != tensor.storage:
            raise refuse(f"storage {tensor.storage.key!r} is described in two ways")
    return found


def _read_storage(stream: io.BytesIO, storage: _Storage, refuse: Refuse) -> NDArray[Any]:
    head = stream.read(8)
    count = struct.unpack("<q", head)[0] if len(head) == 8 else None
    if count != storage.count:
        raise refuse(f"storage {storage.key!r} holds {count} numbers, {storage.count} declared")
    dtype = np.dtype(storage.dtype)
    body = stream.read(count * dtype.itemsize)
    if len(body) != count * dtype.itemsize:
        raise refuse(f"storage {storage.key!r} is cut short")
    return np.frombuffer(body, dtype)


def _build(name: str, tensor: _Tensor, storage: NDArray[Any], refuse: Refuse) -> NDArray[Any]:
    shape, strides = tensor.shape, tensor.strides
    size = math.prod(shape)
    last = tensor.offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    # size <= storage also bounds the copy of a tensor that repeats one number by stride 0
    if size and (last >= storage.size or size > storage.size):
        raise refuse(f"tensor {name!r} reaches beyond its storage")
    if not size:
        if math.prod(n for n in shape if n) > MAX_EMPTY:
            raise refuse(f"tensor {name!r} is empty, yet larger than any memory")
        return np.zeros(shape, storage.dtype)
    view = np.lib.stride_tricks.as_strided(
        storage[tensor.offset :], shape, [s * storage.itemsize for s in strides]
    )
    return view.copy()

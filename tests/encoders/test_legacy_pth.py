"""The restricted reader: tensors come out, nothing else gets in, nothing runs."""

from __future__ import annotations

import contextlib
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from byname.encoders.legacy_pth import MAGIC, PROTOCOL, read_legacy_pth
from byname.errors import UnsafeFileError

MACHINE = {"protocol_version": PROTOCOL, "little_endian": True, "type_sizes": {"int": 4}}
STORAGES = {"f4": "FloatStorage", "f8": "DoubleStorage", "f2": "HalfStorage", "i8": "LongStorage"}


def ops(value: Any) -> bytes:
    """The instructions that push a value, without protocol and stop."""
    return pickle.dumps(value, 2)[2:-1]


def tensor_ops(
    key: str,
    count: int,
    offset: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    storage: bytes = b"ctorch\nFloatStorage\n",
    call: bytes = b"ctorch._utils\n_rebuild_tensor_v2\n",
) -> bytes:
    pid = b"(" + ops("storage") + storage + ops(key) + ops("cpu") + ops(count) + b"NtQ"
    rest = ops(offset) + ops(shape) + ops(strides) + b"\x89ccollections\nOrderedDict\n)R"
    return call + b"(" + pid + rest + b"tR"


def state_ops(items: dict[str, bytes], after: bytes = b"") -> bytes:
    body = b"".join(ops(name) + value for name, value in items.items())
    return b"\x80\x02ccollections\nOrderedDict\n)R(" + body + b"u" + after + b"."


def legacy_file(
    state: bytes,
    storages: dict[str, np.ndarray],
    magic: Any = MAGIC,
    machine: Any = MACHINE,
    keys: Any = None,
) -> bytes:
    head = pickle.dumps(magic, 2) + pickle.dumps(PROTOCOL, 2) + pickle.dumps(machine, 2)
    listed = pickle.dumps(list(storages) if keys is None else keys, 2)
    raw = b"".join(struct.pack("<q", a.size) + a.tobytes() for a in storages.values())
    return head + state + listed + raw


def simple(**changes: Any) -> bytes:
    """One tensor of two by three numbers, with something changed."""
    data = np.arange(6, dtype="<f4")
    arguments = {"key": "1", "count": 6, "offset": 0, "shape": (2, 3), "strides": (3, 1)}
    return legacy_file(state_ops({"w": tensor_ops(**arguments | changes)}), {"1": data})


def test_reads_a_tensor() -> None:
    np.testing.assert_array_equal(
        read_legacy_pth(simple())["w"], np.arange(6, dtype="f4").reshape(2, 3)
    )
    flipped = read_legacy_pth(simple(shape=(3, 2), strides=(1, 3)))["w"]
    np.testing.assert_array_equal(flipped, np.arange(6, dtype="f4").reshape(2, 3).T)


@given(
    dtype=st.sampled_from(sorted(STORAGES)),
    shapes=st.lists(st.lists(st.integers(0, 4), max_size=3).map(tuple), min_size=1, max_size=4),
)
def test_round_trip(dtype: str, shapes: list[tuple[int, ...]]) -> None:
    rng = np.random.default_rng(0)
    arrays = {f"t{i}": (rng.random(s) * 9).astype(f"<{dtype}") for i, s in enumerate(shapes)}
    storage = f"ctorch\n{STORAGES[dtype]}\n".encode()
    items = {
        name: tensor_ops(
            name, a.size, 0, a.shape, tuple(s // a.itemsize for s in a.strides), storage
        )
        for name, a in arrays.items()
    }
    got = read_legacy_pth(legacy_file(state_ops(items), arrays))
    assert list(got) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(got[name], array)
        assert got[name].dtype == array.dtype


def test_shared_storage_and_offset() -> None:
    items = {
        "a": tensor_ops("1", 6, 0, (2,), (1,)),
        "b": tensor_ops("1", 6, 4, (2,), (1,)),
        "scalar": tensor_ops("1", 6, 3, (), ()),
    }
    got = read_legacy_pth(legacy_file(state_ops(items), {"1": np.arange(6, dtype="<f4")}))
    assert got["a"].tolist() == [0, 1]
    assert got["b"].tolist() == [4, 5]
    assert got["scalar"].tolist() == 3


class _Shell:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch '{self.path}'",)


@pytest.mark.parametrize("place", ["magic", "machine", "state", "keys"])
def test_hostile_pickle_is_refused_and_never_runs(tmp_path: Path, place: str) -> None:
    trap = tmp_path / "executed"
    shell = _Shell(trap)
    good = state_ops({"w": tensor_ops("1", 6, 0, (2, 3), (3, 1))})
    state = pickle.dumps({"w": shell}, 2) if place == "state" else good
    changes = {} if place == "state" else {place: shell}
    data = legacy_file(state, {"1": np.arange(6, dtype="<f4")}, **changes)
    with pytest.raises(UnsafeFileError) as caught:
        read_legacy_pth(data, "evil.pth")
    message = str(caught.value)
    assert f"'{os.system.__module__}.system', which is not a tensor" in message
    assert "cannot read 'evil.pth'" in message
    assert "nothing in the file was executed" in message
    assert not trap.exists()


@pytest.mark.parametrize(
    "name",
    [
        "builtins\neval",
        "torch\nload",
        "torch.storage\n_load_from_bytes",
        "collections\nnamedtuple",
        "byname.encoders.legacy_pth\n_Bag",
        "torch._utils\n_rebuild_parameter",
    ],
)
def test_every_other_name_is_refused(name: str) -> None:
    data = legacy_file(b"\x80\x02c" + name.encode() + b"\n(" + ops("1+1") + b"tR.", {})
    with pytest.raises(UnsafeFileError, match=name.replace("\n", r"\.")):
        read_legacy_pth(data)


@pytest.mark.parametrize(
    ("changes", "seen"),
    [
        ({"shape": (2, 4)}, "reaches beyond its storage"),
        ({"offset": 1}, "reaches beyond its storage"),
        ({"strides": (4, 1)}, "reaches beyond its storage"),
        ({"shape": (10**6, 10**6), "strides": (0, 0)}, "reaches beyond its storage"),
        ({"shape": (2**39, 2**39, 2**39, 0), "strides": (1, 1, 1, 1)}, None),
        ({"offset": -1}, "unknown way"),
        ({"strides": (-3, 1)}, "unknown way"),
        ({"shape": (2, 3, 1)}, "unknown way"),
        ({"shape": (1,) * 9, "strides": (1,) * 9}, "unknown way"),
        ({"shape": (True, 3)}, "unknown way"),
        ({"count": 7}, "holds 6 numbers, 7 declared"),
        ({"count": -1}, "storage in an unknown way"),
        ({"key": "2"}, "list of storages does not match"),
        ({"storage": b"ctorch\nBFloat16Storage\n"}, "torch.BFloat16Storage"),
        ({"storage": ops("<f4")}, None),
    ],
)
def test_lengths_and_bounds(changes: dict[str, Any], seen: str | None) -> None:
    if seen is None:  # odd, but harmless: it must not crash or take memory
        with contextlib.suppress(UnsafeFileError):
            assert read_legacy_pth(simple(**changes))["w"].size <= 6
        return
    with pytest.raises(UnsafeFileError, match=seen):
        read_legacy_pth(simple(**changes))


def test_checked_fields_cannot_be_rewritten() -> None:
    build = ops({"offset": 10**6}) + b"b"
    item = tensor_ops("1", 6, 0, (2, 3), (3, 1)) + build
    data = legacy_file(state_ops({"w": item}), {"1": np.arange(6, dtype="<f4")})
    with pytest.raises(UnsafeFileError, match="a tensor with attributes"):
        read_legacy_pth(data)


def test_attributes_of_the_mapping_are_dropped() -> None:
    state = state_ops({"w": tensor_ops("1", 6, 0, (6,), (1,))}, ops({"_metadata": 1}) + b"b")
    got = read_legacy_pth(legacy_file(state, {"1": np.arange(6, dtype="<f4")}))
    assert list(got) == ["w"]


@pytest.mark.parametrize(
    ("changes", "seen"),
    [
        ({"magic": 1}, "not a legacy .pth file"),
        ({"machine": {"little_endian": False}}, "little-endian"),
        ({"machine": [1]}, "little-endian"),
        ({"keys": ["1", "2"]}, "list of storages"),
        ({"keys": [1]}, "list of storages"),
        ({"keys": "1"}, "list of storages"),
    ],
)
def test_other_headers(changes: dict[str, Any], seen: str) -> None:
    state = state_ops({"w": tensor_ops("1", 6, 0, (6,), (1,))})
    data = legacy_file(state, {"1": np.arange(6, dtype="<f4")}, **changes)
    with pytest.raises(UnsafeFileError, match=seen):
        read_legacy_pth(data)


def test_trailing_bytes_and_other_content() -> None:
    with pytest.raises(UnsafeFileError, match="3 bytes are left over"):
        read_legacy_pth(simple() + b"abc")
    state = b"\x80\x02]."
    with pytest.raises(UnsafeFileError, match="plain mapping of names to tensors"):
        read_legacy_pth(legacy_file(state, {}))
    with pytest.raises(UnsafeFileError, match="plain mapping of names to tensors"):
        read_legacy_pth(legacy_file(state_ops({"w": ops(1)}), {}))


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(UnsafeFileError):
        read_legacy_pth(data)


@given(st.integers(0, len(simple()) - 1))
def test_truncation_is_refused(length: int) -> None:
    with pytest.raises(UnsafeFileError):
        read_legacy_pth(simple()[:length])


@given(st.integers(0, len(simple()) - 1), st.integers(0, 255))
def test_a_changed_byte_never_escapes(position: int, byte: int) -> None:
    data = bytearray(simple())
    data[position] = byte
    try:
        read = read_legacy_pth(bytes(data))
    except UnsafeFileError:
        return
    assert all(isinstance(array, np.ndarray) and array.size <= 6 for array in read.values())

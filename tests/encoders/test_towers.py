"""Batches cut into calls, calls on threads, threads shared out."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="builds small models with the package onnx")

from byname.encoders import sessions, towers
from byname.encoders.onnx import OnnxEncoder
from byname.encoders.sessions import split_threads
from byname.encoders.tokens import groups_of_equal_length
from byname.errors import EncoderError
from tests.encoders import tiny

PIXELS = np.random.default_rng(1).integers(0, 256, (37, 8, 8, 3), dtype=np.uint8)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_number_of_threads_changes_no_bit(tmp_path: Path, threads: int) -> None:
    encoder = OnnxEncoder(tiny.byname_folder(tmp_path), threads=threads)
    alone = np.concatenate([encoder.encode_images(PIXELS[i : i + 8]) for i in range(0, 37, 8)])
    np.testing.assert_array_equal(encoder.encode_images(PIXELS), alone)
    np.testing.assert_allclose(alone, tiny.expected_images(PIXELS), atol=1e-5)


def test_batches_are_cut_and_spread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = OnnxEncoder(tiny.byname_folder(tmp_path), threads=2)
    seen: list[tuple[int, str]] = []
    run, both = towers._Tower._run, threading.Barrier(2, timeout=20)

    def spy(self: towers._Tower, feed: dict[str, np.ndarray]) -> np.ndarray:
        both.wait()  # passes only where two calls are made at once
        seen.append((len(feed["pixel_values"]), threading.current_thread().name))
        return run(self, feed)

    monkeypatch.setattr(towers._Tower, "_run", spy)
    encoder.encode_images(PIXELS[:32])
    assert [rows for rows, _ in seen] == [8, 8, 8, 8]
    assert len({name for _, name in seen}) == 2


def test_an_encoder_that_is_closed_has_no_threads_left(tmp_path: Path) -> None:
    encoder = OnnxEncoder(tiny.byname_folder(tmp_path), threads=2)
    encoder.encode_images(PIXELS)
    before = threading.active_count()
    encoder.close()
    assert threading.active_count() < before


def test_calls_from_many_threads(tmp_path: Path) -> None:
    encoder = OnnxEncoder(tiny.byname_folder(tmp_path), threads=2)
    wanted = encoder.encode_images(PIXELS)
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: encoder.encode_images(PIXELS), range(12)):
            np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("threads", [1, 2, 4, 8, 9, 64])
def test_threads_are_shared_out(threads: int) -> None:
    callers, each = split_threads(threads)
    assert callers + each - 1 == threads
    assert (each == 1) == (threads <= 8)


def test_only_the_processors_of_this_process_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions.os, "cpu_count", lambda: 64)
    monkeypatch.setattr(sessions.os, "sched_getaffinity", lambda _: {3, 5}, raising=False)
    assert split_threads(None) == (2, 1)
    assert sessions.open_session(tiny.visual(), "x").get_session_options().intra_op_num_threads == 2
    monkeypatch.delattr(sessions.os, "sched_getaffinity")
    assert split_threads(None) == (8, 57)


def test_one_thread_runs_one_call_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where two batches in flight are a single part each."""
    encoder = OnnxEncoder(tiny.byname_folder(tmp_path), threads=1)
    run, seen = towers._Tower._run, []

    def spy(self: towers._Tower, feed: dict[str, np.ndarray]) -> np.ndarray:
        seen.append(threading.current_thread().name)
        return run(self, feed)

    monkeypatch.setattr(towers._Tower, "_run", spy)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(encoder.encode_images, [PIXELS[:8], PIXELS[8:16]]))
    encoder.encode_texts(["a dog"])
    assert len(seen) == 3
    assert set(seen) == {"onnx_0"}


def test_groups_hold_so_many_tokens() -> None:
    lengths = [5] * 7 + [2] * 5 + [90]
    groups = [g.tolist() for g in groups_of_equal_length(lengths, batch=4, tokens=10)]
    assert groups == [[7, 8, 9, 10], [11], [0, 1], [2, 3], [4, 5], [6], [12]]


def test_a_tokenizer_of_another_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More words than the graph has vectors for."""
    monkeypatch.setattr(tiny, "WORDS", [*tiny.WORDS, "zebra"])
    folder = tiny.write(
        tiny.byname_folder(tmp_path, None, None), {"tokenizer.json": tiny.tokenizer()}
    )
    monkeypatch.undo()
    tiny.write(folder, {"textual.onnx": tiny.textual()})
    encoder = OnnxEncoder(folder)
    assert encoder.encode_texts(["a dog"]).shape == (1, tiny.DIM)
    with pytest.raises(EncoderError) as caught:
        encoder.encode_texts(["a zebra"])
    assert caught.value.seen == (
        "its tokenizer gives token number 10, for which the graph has no vector"
    )
    assert "The tokenizer belongs to another model" in caught.value.do

"""The report on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

import byname.doctor
from byname.doctor import EXTRAS, examine
from byname.errors import EncoderUnavailableError
from tests.helpers import FakeEncoder


def test_without_network_and_speed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BYNAME_CACHE", str(tmp_path / "cache"))
    report = examine(network=False, speed=False)
    assert list(report) == ["versions", "processors", "extras", "encoders_offline", "cache"]
    assert {"byname", "python", "numpy", "onnxruntime"} <= set(report["versions"])
    assert report["processors"] >= 1
    assert set(report["extras"]) == set(EXTRAS)
    assert all(isinstance(missing, list) for missing in report["extras"].values())
    assert report["cache"] == {"usable": True, "folder": str(tmp_path / "cache"), "megabytes": 0.0}
    assert json.loads(json.dumps(report)) == report


@pytest.mark.parametrize("value", ["1", "true", "YES", "on"])
def test_offline_mode_asks_nobody(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setattr(httpx, "head", fail)
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    report = examine(speed=False)
    assert report["hub"] == {"reachable": False, "why": "HF_HUB_OFFLINE is set"}


@pytest.mark.parametrize(
    "error",
    [
        httpx.ConnectError("no route"),
        httpx.InvalidURL("bad proxy"),
        ValueError("Unknown scheme for proxy URL"),
        ImportError("socksio is missing"),
        FileNotFoundError(2, "No such file: certificates"),
    ],
)
def test_a_network_that_does_not_work(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(httpx, "head", fail)
    hub = examine(speed=False)["hub"]
    assert hub["reachable"] is False
    assert hub["why"] == f"{type(error).__name__}: {error}"


@pytest.mark.parametrize(("status", "reachable"), [(200, True), (403, False)])
def test_the_hub_or_its_mirror(
    monkeypatch: pytest.MonkeyPatch, status: int, reachable: bool
) -> None:
    asked = []

    def head(url: str, **kwargs: Any) -> httpx.Response:
        asked.append(url)
        return httpx.Response(status)

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    monkeypatch.setattr(httpx, "head", head)
    hub = examine(speed=False)["hub"]
    assert hub == {"reachable": reachable, "why": f"HTTP {status}"}
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example")
    examine(speed=False)
    assert asked == ["https://huggingface.co", "https://mirror.example"]


def test_a_cache_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setenv("BYNAME_CACHE", str(tmp_path / "cache"))
    cache = examine(network=False, speed=False)["cache"]
    assert cache["usable"] is False
    assert cache["why"].startswith(f"cannot use the cache folder '{tmp_path / 'cache'}'")


def test_speed_with_and_without_mini(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(byname.doctor, "load_encoder", lambda name: FakeEncoder())
    speed = examine(network=False)["speed"]
    assert speed["matrix_gflops"] > 0
    assert speed["mini_images_per_second"] > 0

    def absent(name: str) -> None:
        raise EncoderUnavailableError("load 'mini'", "it is not installed")

    monkeypatch.setattr(byname.doctor, "load_encoder", absent)
    assert list(examine(network=False)["speed"]) == ["matrix_gflops"]

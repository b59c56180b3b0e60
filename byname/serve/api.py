"""What each address does: requests in, replies out, the work in threads."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import anyio.to_thread
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from byname.errors import BynameError
from byname.progress import listening
from byname.serve.encoder import Superseded
from byname.serve.problems import Problem, Reply, as_json, refusal
from byname.serve.session import ScoreRequest, Session
from byname.serve.uploads import read_json_bytes, read_uploads

if TYPE_CHECKING:
    from starlette.requests import Request

__all__ = ["Api"]

DECODES = 2  # images that are decoded and encoded at once
UPLOADS = 4  # requests whose images are read at once
WAITING = 64  # further requests of one kind that may wait for their turn
SILENCE = 30.0  # seconds without a byte after which a request is given up
PATIENCE = 600.0  # seconds after which a body must be whole, however it drips
LOOK = 0.1  # seconds between looks at whether a client still waits
T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)


class Correction(BaseModel):
    """The body of ``PUT /api/corrections``."""

    model_config = ConfigDict(extra="ignore")

    image: str = Field(max_length=40)
    class_id: str | None = Field(max_length=300)


class Queue:
    """So many at once, so many waiting, and no more.

    Examples
    --------
    >>> async def work() -> str:
    ...     async with Queue("score", 1, 0):
    ...         return "done"
    >>> anyio.run(work)
    'done'
    """

    def __init__(self, what: str, at_once: int, waiting: int) -> None:
        self.what, self.most, self.inside = what, at_once + waiting, 0
        self._places = anyio.Semaphore(at_once)

    async def __aenter__(self) -> None:
        if self.inside >= self.most:
            seen = f"{self.inside} requests are ahead of it"
            raise Problem(429, self.what, seen, "Try again in a second.")
        self.inside += 1
        try:
            await self._places.acquire()
        except BaseException:
            self.inside -= 1
            raise

    async def __aexit__(self, *_: object) -> None:
        self.inside -= 1
        self._places.release()


class Api:
    """The addresses below ``/api``, over one session."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._uploads = Queue("take the images", UPLOADS, WAITING)
        # Scores, reasons and reports are made one at a time: each uses all processors.
        self._scores = Queue("score the images", 1, WAITING)
        self._decodes = anyio.CapacityLimiter(DECODES)
        self._thumbs = anyio.CapacityLimiter(DECODES)

    async def state(self, request: Request) -> Reply:
        """``GET /api/state``."""
        return as_json(self.session.state())

    async def progress(self, request: Request) -> Reply:
        """``GET /api/progress``."""
        return as_json(self.session.progress())

    async def add_images(self, request: Request) -> Reply:
        """``POST /api/images``: each file by itself; what was taken in before an error stays."""
        added: list[dict[str, str]] = []
        refused: list[dict[str, str]] = []
        limits = self.session.limits
        kind = request.headers.get("content-type", "")
        try:
            async with self._uploads:
                async for upload in read_uploads(_patient(request), kind, limits):
                    if upload.data is None:
                        why = f"larger than the limit of {limits.file / 1e6:g} MB"
                        refused.append({"name": upload.name, "error": why})
                        continue
                    try:
                        picture = await anyio.to_thread.run_sync(
                            self.session.add_upload,
                            upload.name,
                            upload.data,
                            limiter=self._decodes,
                        )
                    except BynameError as error:
                        refused.append({"name": upload.name, "error": str(error)})
                    else:
                        added.append({"id": picture.id, "name": picture.name})
        except Problem as problem:
            return refusal(problem, added=added, refused=refused)
        return as_json({"added": added, "refused": refused})

    async def remove_image(self, request: Request) -> Reply:
        """``DELETE /api/images/{id}``."""
        return as_json({"images": self.session.remove(request.path_params["image"])})

    async def thumb(self, request: Request) -> Reply:
        """``GET /api/thumb/{id}``."""
        image = request.path_params["image"]
        made = await anyio.to_thread.run_sync(self.session.store.thumb, image, limiter=self._thumbs)
        return Reply(made, "image/jpeg")

    async def score(self, request: Request) -> Reply:
        """``POST /api/score``."""
        asked = await self._body(request, ScoreRequest)
        return as_json(await self._heavy(request, lambda: self.session.score(asked)))

    async def why(self, request: Request) -> Reply:
        """``GET /api/why/{id}``."""
        image, recipe = request.path_params["image"], request.query_params.get("recipe")
        return as_json(await self._heavy(request, lambda: self.session.why(image, recipe)))

    async def correct(self, request: Request) -> Reply:
        """``PUT /api/corrections``."""
        asked = await self._body(request, Correction)
        return as_json({"corrections": self.session.correct(asked.image, asked.class_id)})

    async def corrections(self, request: Request) -> Reply:
        """``GET /api/corrections.csv``."""
        return _file(self.session.corrections(), "text/csv; charset=utf-8", "corrections.csv")

    async def report(self, request: Request) -> Reply:
        """``GET /api/report``."""
        recipe = request.query_params.get("recipe")
        made = await self._heavy(request, lambda: self.session.report(recipe))
        return _file(made.encode("utf-8", "replace"), "text/html; charset=utf-8", "report.html")

    async def _heavy(self, request: Request, work: Callable[[], T]) -> T:
        """Work in a thread, in its turn; none for a client that has gone away while waiting."""
        async with self._scores:
            if await request.is_disconnected():
                raise Problem(400, "answer this request", "it was taken back", "")
            return await _while_awaited(request, work)

    async def _body(self, request: Request, model: type[M]) -> M:
        asked = "read the request"
        data = await read_json_bytes(_patient(request), self.session.limits.json)
        try:
            return model.model_validate(json.loads(data))
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            # What pydantic says of a body that is no object names a class of ours.
            seen = f"{where}: {first['msg']}" if where else "its body is not a JSON object"
            raise Problem(400, asked, seen, "See docs/serve.md for what is expected.") from None
        except (ValueError, RecursionError):
            raise Problem(400, asked, "its body is not JSON", "Send JSON in UTF-8.") from None


def _file(data: bytes, kind: str, name: str) -> Reply:
    return Reply(data, kind, headers={"Content-Disposition": f'attachment; filename="{name}"'})


async def _while_awaited(request: Request, work: Callable[[], T]) -> T:
    """Work in a thread; it ends at its next step where the client has gone away.

    The page drops its question when a newer one is asked. What is done tells how far it is, between
    blocks of texts and between stages; the listener ends it there.
    """
    gone = threading.Event()

    def check(what: str, done: int, total: int | None) -> None:
        if gone.is_set():
            raise Superseded

    found: list[T] = []
    failed: list[Exception] = []  # a task group would wrap what is raised in it

    def run() -> None:
        try:
            with listening(check, bars=False):
                found.append(work())
        except Exception as error:  # noqa: BLE001 - it is raised below
            failed.append(error)

    async def watch() -> None:
        while not await request.is_disconnected():
            await anyio.sleep(LOOK)
        gone.set()

    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        await anyio.to_thread.run_sync(run)
        group.cancel_scope.cancel()
    if failed and isinstance(failed[0], Superseded):
        raise Problem(400, "answer this request", "it was taken back")
    if failed:
        raise failed[0]
    return found[0]


async def _patient(request: Request) -> AsyncIterator[bytes]:
    """The body as it comes; a client that falls silent or drips is not waited for."""
    stream: Any = request.stream()
    spent = 0.0  # waiting for the client, not for work on what it sent
    while True:
        begin = time.monotonic()
        try:
            with anyio.fail_after(min(SILENCE, PATIENCE - spent)):
                chunk = await anext(stream, None)
        except TimeoutError:
            slow = spent + time.monotonic() - begin >= PATIENCE
            told = f"it took more than {PATIENCE:g} seconds to send"
            seen = told if slow else f"nothing came for {SILENCE:g} seconds"
            raise Problem(408, "read the request", seen, "Send it again.") from None
        spent += time.monotonic() - begin
        if chunk is None:
            return
        yield chunk


Handler = Callable[["Request"], Awaitable[Reply]]

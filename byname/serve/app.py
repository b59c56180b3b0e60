"""The application: addresses to handlers, errors to JSON, everything behind the guard."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib import resources
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from byname.errors import BynameError, UsageError
from byname.serve.api import Api, Handler
from byname.serve.guard import Guard, unexpected
from byname.serve.problems import Problem, Reply, refusal
from byname.serve.session import Session

if TYPE_CHECKING:
    from starlette.requests import Request

__all__ = ["make_app", "need_serve", "static_files"]

_log = logging.getLogger("byname.serve")
KINDS = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
}


def need_serve() -> None:
    """Raise a UsageError that says what to install, where the extra is missing."""
    for package in ("starlette", "uvicorn", "python_multipart", "threadpoolctl"):
        try:
            found = find_spec(package)
        except (ImportError, ValueError):
            found = None
        if found is None:
            seen = f"the package '{package.replace('_', '-')}' is not installed"
            raise UsageError("serve a page", seen, 'Install it: pip install "byname[serve]"')


def static_files() -> dict[str, Reply]:
    """The files of the page by address, read once: a request never opens a file.

    Examples
    --------
    >>> static_files()["/"].kind
    'text/html; charset=utf-8'
    """
    found = {}
    for file in resources.files("byname.serve").joinpath("static").iterdir():
        kind = KINDS.get(file.name.rpartition(".")[2])
        if kind is not None:
            address = "/" if file.name == "index.html" else f"/static/{file.name}"
            found[address] = Reply(file.read_bytes(), kind)
    return dict(sorted(found.items()))


def make_app(
    session: Session,
    *,
    token: str,
    hosts: frozenset[str],
    static: Mapping[str, Reply] | None = None,
) -> Guard:
    """The whole application (ASGI).

    Parameters
    ----------
    session : Session
    token : str
        What requests below ``/api`` must carry as ``X-Byname-Token``.
    hosts : frozenset of str
        See :func:`byname.serve.guard.allowed_hosts`.
    static : mapping of str to Reply, optional
        The files of the page by address.
    """
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.routing import Route

    api = Api(session)
    table: list[tuple[str, str, Handler]] = [
        ("/api/state", "GET", api.state),
        ("/api/progress", "GET", api.progress),
        ("/api/images", "POST", api.add_images),
        ("/api/images/{image}", "DELETE", api.remove_image),
        ("/api/thumb/{image}", "GET", api.thumb),
        ("/api/score", "POST", api.score),
        ("/api/why/{image}", "GET", api.why),
        ("/api/corrections", "PUT", api.correct),
        ("/api/corrections.csv", "GET", api.corrections),
        ("/api/report", "GET", api.report),
    ]
    given = static_files() if static is None else static
    table += [(address, "GET", _fixed(reply)) for address, reply in given.items()]
    app = Starlette(
        routes=[Route(path, _endpoint(work), methods=[method]) for path, method, work in table],
        exception_handlers={HTTPException: _http_error},
    )
    # A redirect would be made of the Host header.
    app.router.redirect_slashes = False
    return Guard(app, hosts=hosts, token=token)


def _fixed(reply: Reply) -> Handler:
    async def answer(request: Request) -> Reply:
        return reply

    return answer


def _endpoint(work: Handler) -> Any:
    """A handler as Starlette takes it; errors of the user's become JSON."""
    from starlette.requests import ClientDisconnect

    async def endpoint(request: Request) -> Any:
        try:
            reply = await work(request)
        except BynameError as error:
            reply = refusal(error)
        except ClientDisconnect:
            reply = refusal(Problem(400, "read the request", "the client went away"))
        except Exception:  # noqa: BLE001 - Starlette would answer it with a text of its own
            _log.exception("an error inside byname serve")
            reply = refusal(unexpected())
        return _response(reply)

    return endpoint


def _response(reply: Reply) -> Any:
    from starlette.responses import Response

    return Response(reply.body, reply.status, reply.headers, media_type=reply.kind)


async def _http_error(request: Request, error: Any) -> Any:
    known = {
        404: ("there is nothing at this address", "See docs/serve.md for the addresses."),
        405: ("this address does not take that method", "See docs/serve.md for the addresses."),
    }
    seen, do = known.get(error.status_code, ("it could not be understood", ""))
    reply = refusal(Problem(error.status_code, "answer this request", seen, do))
    return _response(reply)

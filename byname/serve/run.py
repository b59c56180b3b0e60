"""The server: bound before any work, ended by Ctrl-C or SIGTERM without losing what is finished."""

from __future__ import annotations

import ipaddress
import logging
import socket
from typing import Any

from byname.errors import UsageError

__all__ = ["bind", "hush", "one_blas_thread", "serve", "warning_of"]


CONNECTIONS = 256  # open at once; more get 503 from uvicorn


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens there; port 0 takes any free one.

    Raises
    ------
    UsageError
        Where that is not possible.

    Examples
    --------
    >>> with bind("127.0.0.1", 0) as found:
    ...     found.getsockname()[0]
    '127.0.0.1'
    """
    asked = f"serve at {host}, port {port}"
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        made = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise UsageError(asked, error.strerror or str(error), "Give another --host.") from None
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen(128)
    except OSError as error:
        made.close()
        seen = error.strerror or str(error)
        raise UsageError(asked, seen, "Give another --port; 0 takes any free one.") from None
    return made


def warning_of(host: str) -> str:
    """What it means to listen there; "" where only this machine is reached.

    Examples
    --------
    >>> warning_of("127.0.0.1"), "not encrypted" in warning_of("0.0.0.0")
    ('', True)
    """
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    if local:
        return ""
    return (
        f"--host {host} opens the page to other machines of the network: whoever has the address "
        "with its token sees the images and may add some, and the traffic is not encrypted. Other "
        "names of this machine than that must be allowed with --allow-host."
    )


def one_blas_thread() -> Any:
    """A context in which NumPy multiplies with one thread.

    The matrices of a page are small, and threads that wait for each other beside those of the
    encoder make a product up to twenty times slower where other programs use the processors too.
    """
    from threadpoolctl import threadpool_limits

    return threadpool_limits(limits=1, user_api="blas")


def hush() -> None:
    """Keep what strangers can make these packages say off the terminal; errors stay.

    A damaged request or upload would be a line each, and some hold what was sent.

    Examples
    --------
    >>> hush()
    >>> logging.getLogger("python_multipart").level == logging.ERROR
    True
    """
    for name in ("uvicorn.error", "python_multipart"):
        logging.getLogger(name).setLevel(logging.ERROR)


def serve(app: Any, listening: socket.socket) -> None:
    """Run until Ctrl-C or SIGTERM; requests under way get some seconds to end."""
    import uvicorn

    hush()
    config = uvicorn.Config(
        app,
        log_level="error",
        access_log=False,
        server_header=False,
        date_header=False,
        ws="none",
        lifespan="off",
        timeout_graceful_shutdown=3,
        proxy_headers=False,
        limit_concurrency=CONNECTIONS,
    )
    with one_blas_thread():
        uvicorn.Server(config).run(sockets=[listening])

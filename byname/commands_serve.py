"""``byname serve``: everything is checked, then the page is opened, then the images are read."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Sequence
from pathlib import Path

from byname.console import collect_warnings, say, text_progress
from byname.embeddings import Embeddings
from byname.encoders import load_encoder
from byname.errors import BynameError, UsageError
from byname.images.places import shown
from byname.images.sources import Source
from byname.inputs import open_images
from byname.promptchoice import chosen_prompts
from byname.recipes import get_recipe
from byname.serve.app import make_app, need_serve
from byname.serve.encoder import SharedEncoder, Stopped
from byname.serve.guard import allowed_hosts
from byname.serve.run import bind, serve, warning_of
from byname.serve.session import Session
from byname.serve.uploads import Limits
from byname.taxonomy_io import read_taxonomy

__all__ = ["run_serve"]


def run_serve(
    images: str | None,
    *,
    classes: str,
    lineage: Sequence[str] | None,
    encoder: str | None,
    recipe: str,
    host: str,
    port: int,
    allow_host: Sequence[str],
    max_upload_mb: int,
    max_images: int,
    threads: int | None,
    device: str,
    cache: bool,
    quiet: bool,
) -> None:
    """Arguments first, then texts, then the server; images are embedded while it answers."""
    need_serve()
    with collect_warnings():
        taxonomy = read_taxonomy(classes, lineage=lineage)
        chosen = get_recipe(recipe)
        prompts = chosen_prompts(chosen.prompts, taxonomy)
        source = None if images is None else _opened(images, max_images)
        with bind(host, port) as listening:
            shared = SharedEncoder(load_encoder(encoder, device=device, threads=threads))
            session = Session(
                taxonomy,
                shared,
                recipe=recipe,
                title="byname" if images is None else Path(shown(images)).name or images,
                limits=Limits(file=max_upload_mb * 1_000_000, images=max_images),
            )
            with text_progress(quiet) as advance:
                session.warm(prompts, cache, advance)
            actual = int(listening.getsockname()[1])
            token = secrets.token_urlsafe(24)
            app = make_app(session, token=token, hosts=allowed_hosts(actual, host, allow_host))
            _announce(host, actual, token, quiet)
            reader = _reader(session, source, cache, quiet)
            try:
                serve(app, listening)
            except KeyboardInterrupt:
                pass  # how a server is ended; uvicorn has closed everything by now
            finally:
                session.stop()
                if reader is not None:
                    reader.join(timeout=10)
                if not quiet:
                    say("stopped")


def _opened(images: str, most: int) -> Source | Embeddings:
    found = open_images(images)
    if len(found) > most:
        seen = f"there are {len(found)}, more than the {most} that may be held"
        raise UsageError(f"serve the images '{images}'", seen, "Raise --max-images, or give fewer.")
    for text in found.warnings if isinstance(found, Source) else ():
        say(f"warning: {text}")
    return found


def _announce(host: str, port: int, token: str, quiet: bool) -> None:
    if told := warning_of(host):
        say(f"warning: {told}")
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    # On standard output and whole, for people and programs; the token is the key of the page.
    print(f"http://{shown}:{port}/?token={token}", flush=True)
    if not quiet:
        say("open this address in a browser; end with Ctrl-C")


def _reader(
    session: Session, source: Source | Embeddings | None, cache: bool, quiet: bool
) -> threading.Thread | None:
    """Embed the images of the start beside the server, which shows how far that is."""
    if source is None:
        return None

    def work() -> None:
        try:
            session.embed(source, cache=cache)
        except Stopped:
            say("images already read are kept: the same command goes on where this one ended")
        except BynameError as error:
            say(f"error: {error}")
        else:
            if (bad := len(session.unreadable)) and not quiet:
                left = "1 image" if bad == 1 else f"{bad} images"
                say(f"warning: {left} could not be read: left out")
            if not quiet:
                say(f"{len(session.store)} images are ready")

    thread = threading.Thread(target=work, name="images", daemon=True)
    thread.start()
    return thread

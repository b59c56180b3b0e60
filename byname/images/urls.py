"""URLs as text: which are read, and how they are written where people can see them."""

from __future__ import annotations

import hashlib
import re
from urllib.parse import unquote

from byname.images.refs import key_of

__all__ = [
    "GIVEN",
    "LISTED",
    "REFUSED",
    "host_end",
    "is_url",
    "key_of_url",
    "listed_url",
    "local_path",
    "lower_scheme",
    "public_url",
    "scheme_of",
    "tell_apart",
]

LISTED = frozenset({"http", "https", "s3", "gs", "gcs", "az", "abfs", "hf"})
"""Schemes that a list may name. Lists come from outside: nothing that reads this machine's files,
and no chain of file systems (``a::b``)."""
GIVEN = LISTED | {"s3a", "abfss", "memory"}
"""Schemes that the user may give as a source."""
REFUSED = "refused"
"""Scheme that stands for a listed URL of another kind; it can never be read."""

_HOST = re.compile(r"(\[[^\]]*\]|[^:]*)(:\d*)?")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def scheme_of(text: str) -> str:
    """Lower-case scheme of a URL; empty for a path.

    Examples
    --------
    >>> scheme_of("S3://bucket/a.jpg"), scheme_of("photos/a.jpg")
    ('s3', '')
    """
    found = _SCHEME.match(text)
    return found[1].lower() if found else ""


def is_url(text: str) -> bool:
    """Whether a text has the form of a URL.

    Examples
    --------
    >>> is_url("gs://b/a.jpg"), is_url("b//a.jpg")
    (True, False)
    """
    return "://" in text and _SCHEME.match(text) is not None


def lower_scheme(url: str) -> str:
    """The same URL with its scheme as libraries know it.

    Examples
    --------
    >>> lower_scheme("S3://Bucket/A.jpg")
    's3://Bucket/A.jpg'
    """
    scheme, mark, rest = url.partition("://")
    return f"{scheme.lower()}{mark}{rest}"


def host_end(url: str) -> int:
    """Where the path of a URL begins."""
    slash = url.find("/", url.index("://") + 3)
    return len(url) if slash < 0 else slash


def local_path(url: str) -> str:
    """The path of a ``file://`` URL.

    Examples
    --------
    >>> local_path("file:///data/a%20b")
    '/data/a b'
    """
    return unquote(re.sub(r"^[Ff][Ii][Ll][Ee]://(localhost(?=/))?", "", url))


def listed_url(text: str) -> str:
    """A URL out of a list as it will be read: itself, or one that never can be.

    Examples
    --------
    >>> listed_url("https://host/a.jpg"), listed_url("file:///etc/passwd")
    ('https://host/a.jpg', 'refused://file')
    """
    text = lower_scheme(text)
    scheme = scheme_of(text)
    chained = "::" in re.sub(r"^[^/]+://[^/]*\]", "", text)  # but for the host [::1]
    return text if scheme in LISTED and not chained else f"{REFUSED}://{scheme}"


def public_url(url: str) -> str:
    """A URL without what may be secret in it: user, password, query and fragment.

    Examples
    --------
    >>> public_url("https://me:word@host/a.jpg?signature=abc#x")
    'https://host/a.jpg'
    """
    if not any(mark in url for mark in "?#@"):
        return url
    scheme, _, rest = url.partition("://")
    http = scheme.lower() in ("http", "https")
    rest = re.split(r"[?#]" if http else r"\?", rest, maxsplit=1)[0]
    host, slash, path = rest.partition("/")
    user, at, plain = host.rpartition("@")
    if http and not at and not _HOST.fullmatch(host):
        return f"{scheme}://..."  # such as a password with "/" or "?" in it, not escaped
    # abfs://container@account holds no secret
    host = plain if at and (http or ":" in user) else host
    return f"{scheme}://{host}{slash}{path}"


def key_of_url(url: str) -> str:
    """Key of a listed URL: the URL without its secrets.

    Examples
    --------
    >>> key_of_url("https://host/a.jpg?signature=abc")
    'https://host/a.jpg'
    """
    return key_of(public_url(url))


def tell_apart(url: str) -> str:
    """Key of a URL where others differ from it in the query only.

    Examples
    --------
    >>> tell_apart("https://host/get?id=1") == tell_apart("https://host/get?id=2")
    False
    """
    mark = hashlib.blake2b(url.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()
    return f"{key_of_url(url)}#{mark}"

"""The way back: from the key of a row to the image that it is about."""

# Paths are text here, since they may hold bytes that are not UTF-8.
# ruff: noqa: PTH112, PTH113, PTH118, PTH120

from __future__ import annotations

import os

from byname.errors import SourceError
from byname.images.lists import LIST_EXTENSIONS
from byname.images.places import shown
from byname.images.refs import IMAGE_EXTENSIONS, ImageRef, make_ref, name_of
from byname.images.sources import open_source
from byname.images.tables import holds_images
from byname.images.urls import is_url
from byname.images.walk import extension

__all__ = ["Finder"]


class Finder:
    """Finds the images of an output by their keys.

    Parameters
    ----------
    root : str
        ``Source.root``: a folder, an image, a list, a tar or Parquet file, a pattern of such, or
        the URL of one of these.
    kind : str
        ``Source.kind``; "" where it is unknown.
    folder : str
        Current folder of that time, which relative paths of a list may start from.
    image_column : str, optional
        As given to :func:`open_source`.

    Raises
    ------
    SourceError
        Where the root is not there.
    """

    def __init__(
        self, root: str, kind: str = "", folder: str = "", image_column: str | None = None
    ) -> None:
        base = root if is_url(root) else os.path.join(folder, root)
        if not is_url(base) and not os.path.lexists(base):
            base = name_of(base)
        suffix = extension(base)
        self.packed: dict[str, ImageRef] = {}
        """Images by key that are no files of their own here: inside tars, behind URLs."""
        self._places: list[str] = []
        packed = kind in ("tar", "parquet") or suffix == ".tar" or is_url(base)
        if packed or (os.path.isfile(base) and suffix == ".parquet" and holds_images(base)):
            try:
                source = open_source(base, image_column=image_column)
                self.packed = {ref.key: ref for ref in source.refs}
            except SourceError as error:
                raise SourceError(error.asked, f"'{shown(root)}': {error.seen}", error.do) from None
        elif os.path.isdir(base):
            self._places = [base]
        elif os.path.isfile(base) and suffix in LIST_EXTENSIONS:
            self._places = [os.path.dirname(base), folder]
        elif os.path.isfile(base) and suffix in IMAGE_EXTENSIONS:
            self._places = [os.path.dirname(base)]
        else:
            raise SourceError(f"find the photos in '{root}'", f"'{root}' is no folder", "")

    def __call__(self, key: str) -> ImageRef | None:
        """The image of that key; None where it is gone."""
        if self.packed:
            return self.packed.get(key)
        for place in self._places:
            for name in dict.fromkeys((name_of(key), key)):
                if os.path.isfile(path := os.path.join(place, name)):
                    return make_ref(name, path)
        return None

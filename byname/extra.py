"""What else is known of the images, and of other images: the optional inputs of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byname.embeddings import Embeddings, is_embeddings_file
from byname.encoders import Encoder, load_encoder
from byname.errors import EmbeddingsError, EncoderError, NeedsError, UsageError
from byname.extrafiles import read_captions, read_class_probs, read_support
from byname.gathered import (
    Gathered,
    Means,
    Part,
    are_vectors,
    check_kinds,
    common,
    every_key,
    join_all,
    only_vectors,
    same_value,
    shown,
)
from byname.images.sources import Source
from byname.images.views import Attention, Rule, Uniform, parse_rule
from byname.inputs import as_embeddings, check_vectors, opened
from byname.recipes import Recipe
from byname.stage import Batch, SecondTexts, Support
from byname.textvectors import inputs_of, maker_of, text_vectors
from byname.wrapped import LogVarEncoder, ViewEncoder

__all__ = ["Extras"]

SOURCE_TEMPLATE = "a photo of a {}."


class Extras:
    """The optional inputs as a user gives them, opened once, gathered for every batch of images.

    Parameters
    ----------
    given : mapping of str to object
        By kind, as in ``KINDS``; in Python also an Encoder or Embeddings as ``second``, images in
        any form as ``reference``, a :class:`byname.flow.Support` as ``support``, a mapping as
        ``captions``, a tuple (probabilities, names, file names) as ``class_probs``.

    Examples
    --------
    >>> Extras({"second": "mini"}).given
    {'second': 'mini'}
    """

    _expected: str | None  # fingerprint of the second encoder when this was pickled

    def __init__(self, given: Mapping[str, Any] | None = None) -> None:
        self.given = {kind: value for kind, value in (given or {}).items() if value is not None}
        check_kinds(self.given)
        self._forget()

    @classmethod
    def of(cls, given: Mapping[str, Any] | Extras | None) -> Extras:
        """Extras as they are, and else made of what is given."""
        return given if isinstance(given, Extras) else cls(given)

    def __getstate__(self) -> dict[str, Any]:
        # Encoders that have a name, and files, are opened again.
        return {"given": self.given, "second": self._second_print()}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.given = state["given"]
        self._forget()
        self._expected = state["second"]

    def __repr__(self) -> str:
        return f"Extras({self.parameters()})"

    def __bool__(self) -> bool:
        return bool(self.given)

    def _forget(self) -> None:
        self._opened: tuple[str, str] | None = None
        self._expected = None
        self._made: dict[str, Any] = {}
        self._told: dict[str, dict[str, Any]] = {}
        self._second: Encoder | Embeddings | None = None
        self._makers: dict[tuple[str, str, int], Encoder] = {}

    def parameters(self) -> dict[str, str]:
        """What was given, by kind, ready for JSON."""
        return {kind: shown(value) for kind, value in self.given.items()}

    def made_of(self, given: Mapping[str, Any] | Extras | None) -> bool:
        """Whether these are the inputs that are given now."""
        if isinstance(given, Extras):
            return given is self
        now = {kind: value for kind, value in (given or {}).items() if value is not None}
        same = now.keys() == self.given.keys()
        return same and all(same_value(self.given[kind], value) for kind, value in now.items())

    # -- before any image

    @property
    def passes(self) -> int:
        """How many times every image is read, once opened."""
        second = isinstance(self._second, Encoder) and self._second.info.preprocess is not None
        return 1 + second + ("views" in self.given)

    def reopen(self) -> None:
        """Read the files again at the next use; a loaded encoder stays."""
        self._opened = None

    def open(self, means: Means) -> None:
        """Read the files and load the encoder; idempotent.

        Raises
        ------
        BynameError
            For whatever can be found wrong before images are looked at.
        """
        self._means, given = means, self.given
        key = (means.encoder.info.image_fingerprint(), means.taxonomy.fingerprint())
        if not given or self._opened == key:
            return
        self._made, self._told = {}, {kind: {"given": shown(v)} for kind, v in given.items()}
        self._second = self._open_second()
        self._views = self._open_views()
        self._captions = read_captions(given["captions"]) if "captions" in given else None
        self._probs = read_class_probs(given["class_probs"]) if "class_probs" in given else None
        self._reference = self._open_reference()
        self._support: Any = given.get("support")
        if self._support is not None and not isinstance(self._support, Support):
            self._support = read_support(self._support, means.taxonomy)
        self._opened = key

    def _open_second(self) -> Encoder | Embeddings | None:
        given, means = self.given.get("second"), self._means
        if given is None or isinstance(given, Embeddings):
            return given
        if isinstance(given, str | Path) and is_embeddings_file(Path(given)):
            return Embeddings.load(Path(given))
        encoder = self._second
        if not isinstance(encoder, Encoder):
            encoder = load_encoder(given, device=means.device, threads=means.threads)
        info = encoder.info
        if info.preprocess is None and encoder.lookup([]) is None:
            seen = "it takes no pixels and holds no vectors of images"
            raise UsageError(f"use '{info.id}' as second encoder", seen, "Choose another.")
        if self._expected not in (None, info.image_fingerprint()):
            raise EncoderError(
                f"use '{info.id}' as second encoder",
                "it is another one than when this classifier was pickled",
                "Restore the encoder's files, or call fit again.",
            )
        self._expected = None
        self._told["second"] |= {"encoder": info.id, "fingerprint": info.image_fingerprint()}
        return encoder

    def _second_print(self) -> str | None:
        second = self._second
        return second.info.image_fingerprint() if isinstance(second, Encoder) else None

    def _open_views(self) -> ViewEncoder | None:
        given = self.given.get("views")
        if given is None:
            return None
        rule: Rule = given if isinstance(given, Uniform | Attention) else parse_rule(str(given))
        self._told["views"]["rule"] = asdict(rule)
        return ViewEncoder(self._means.encoder, rule)

    def _open_reference(self) -> Any:
        given = self.given.get("reference")
        found = None if given is None else opened(given)
        if isinstance(found, Embeddings):
            check_vectors(found, self._means.encoder.info)
        return found

    def second_texts(self, texts: Sequence[str], must: bool) -> SecondTexts | None:
        """The texts through the second encoder; None where it knows none, unless they ``must`` be.

        Raises
        ------
        NeedsError
            Where they must be had, and it cannot encode them.
        """
        second, asked = self._second, "encode the texts through the second encoder"
        if second is None:
            return None
        try:
            if isinstance(second, Embeddings):
                second = self._maker(second)
            asked = f"encode the texts with '{second.info.id}'"
            vectors = text_vectors(second, self._means.cache)(list(texts))
        except EncoderError as error:
            if must:
                raise NeedsError(asked, error.seen, error.do) from None
            return None
        return SecondTexts(vectors, second.info.logit_scale, second.info.logit_bias)

    def _maker(self, stored: Embeddings) -> Encoder:
        """The encoder that made the vectors of a file; it is loaded once."""
        key = (stored.encoder, stored.fingerprint, stored.dim)
        if key not in self._makers:
            means = self._means
            load = partial(load_encoder, device=means.device, threads=means.threads)
            self._makers[key] = maker_of(stored, load)
        return self._makers[key]

    # -- with images

    def match(self, X: Any) -> None:
        """Refuse, before one of these images is read, inputs that do not belong to them."""
        if not self.given:
            return
        stored = are_vectors(X)
        if stored and self._views is not None:
            raise only_vectors("views")
        if isinstance(self._second, Encoder) and (stored or self._second.info.preprocess is None):
            self._known(X)
        self._join_all(every_key(X))

    def _known(self, X: Any) -> None:
        """An encoder of ready vectors must know these images, and vectors go to no other."""
        assert isinstance(self._second, Encoder)
        keys = [ref.key for ref in X.refs] if isinstance(X, Source) else getattr(X, "keys", ())
        if self._second.lookup(keys) is None:
            raise only_vectors("second")

    def _join_all(self, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
        """What the files say of these images, by kind and key."""
        given: dict[str, Mapping[str, Any]] = {}
        if isinstance(self._second, Embeddings):
            names = (*self._second.keys, *self._second.errors)
            given["second"] = {name: i for i, name in enumerate(names)}
        if self._captions is not None:
            given["captions"] = self._captions
        if self._probs is not None:
            given["class_probs"] = self._probs.rows
        return join_all(keys, given, self.parameters())

    def gather(self, X: Any, embeddings: Embeddings, wanted: frozenset[str]) -> Gathered:
        """Everything that is known of images, in one batch.

        Parameters
        ----------
        X : images
            As opened: see :func:`byname.inputs.opened`.
        embeddings : Embeddings
            The same images through the main encoder.
        wanted : frozenset of str
            What the recipe looks at; variances are asked for only where they are among it.
        """
        encoder = self._means.encoder
        X = embeddings if are_vectors(X) else X
        log_var = "log_var" in wanted and "images" in encoder.gives_log_var
        if log_var and isinstance(X, Embeddings):
            log_var = encoder.lookup_log_var(X.keys) is not None
        if not self.given and not log_var:
            return Gathered(embeddings, Batch(embeddings.vectors))
        # over all images: whether a base name is unique must not depend on what could be read
        joined = self._join_all(every_key(embeddings)) if self.given else {}
        parts = self._parts(X, joined)
        if log_var:
            found = self._embed(X, LogVarEncoder(encoder), "variances")
            parts["log_var"] = Part.of(found, LogVarEncoder.log_var(found.vectors), "variances")
        embeddings, rows = common(embeddings, parts)
        made: dict[str, Any] = {kind: parts[kind].array[rows[kind]] for kind in parts}
        if "class_probs" in made:
            made["class_probs"] = (made["class_probs"], self._class_vectors())
        if "captions" in joined:
            made["captions"] = self._caption_vectors(embeddings.keys, joined["captions"])
        return Gathered(embeddings, Batch(embeddings.vectors, **made, **self.others()))

    def _parts(self, X: Any, joined: Mapping[str, Mapping[str, int]]) -> dict[str, Part]:
        parts: dict[str, Part] = {}
        if not self.given:
            return parts
        if isinstance(self._second, Encoder):
            found = self._embed(X, self._second, "second")
            parts["second"] = Part.of(found, found.vectors, "second")
        elif self._second is not None:
            parts["second"] = Part.joined(self._second, joined["second"])
        if self._views is not None:
            found = self._embed(X, self._views, "views")
            parts["views"] = Part.of(found, self._views.views(found), "views")
        if self._probs is not None:
            why = "class_probs: its file holds no row for it"
            parts["class_probs"] = Part(self._probs.probabilities, joined["class_probs"], {}, why)
        return parts

    def others(self) -> dict[str, Any]:
        """``reference`` and ``support``: what is known beside the images; embedded once."""
        made = self._made
        if "reference" in self.given and "reference" not in made:
            found = self._embed(self._reference, self._means.encoder, "reference")
            self._note("reference", found, "reference")
            made["reference"] = found.vectors
        if "support" in self.given and "support" not in made:
            made["support"] = self._support_vectors()
        return {kind: made[kind] for kind in ("reference", "support") if kind in made}

    def _support_vectors(self) -> Support:
        given = self._support
        if isinstance(given, Support):
            return given
        found = self._embed(given.source, self._means.encoder, "support")
        self._note("support", found, "support")
        told = [given.rows[key] for key in found.keys]
        index = np.array([k for k, _ in told], np.intp)
        self._told["support"] |= {"kind": given.kind, "classes": len(set(index.tolist()))}
        captions = None
        if any(text for _, text in told):
            captions = self._vectors([[text] if text else [] for _, text in told])[:, 0]
        return Support(found.vectors, index, given.kind, captions)

    def _class_vectors(self) -> NDArray[np.float32]:
        if "class_vectors" not in self._made:
            assert self._probs is not None
            texts = [SOURCE_TEMPLATE.replace("{}", name) for name in self._probs.names]
            encode = text_vectors(self._means.encoder, self._means.cache)
            self._made["class_vectors"] = encode(texts)
            self._told["class_probs"]["classes"] = len(texts)
        found: NDArray[np.float32] = self._made["class_vectors"]
        return found

    def _caption_vectors(
        self, keys: Sequence[str], given: Mapping[str, Sequence[str]]
    ) -> NDArray[np.float32]:
        without = sum(not given.get(key) for key in keys)
        self._told["captions"] |= {"images_without": without}
        return self._vectors([given.get(key, ()) for key in keys])

    def _vectors(self, texts: Sequence[Sequence[str]]) -> NDArray[np.float32]:
        """(N, J, D) vectors of up to J texts each, rows of zeros where there are fewer."""
        listed = list(dict.fromkeys(text for own in texts for text in own))
        place = {text: i for i, text in enumerate(listed)}
        encode = text_vectors(self._means.encoder, self._means.cache)
        most = max((len(own) for own in texts), default=0)
        found = np.zeros((len(texts), max(most, 1), self._means.encoder.info.dim), np.float32)
        vectors = encode(listed) if listed else found[0, :0]
        for i, own in enumerate(texts):
            found[i, : len(own)] = vectors[[place[text] for text in own]]
        return found

    def _embed(self, X: Any, encoder: Encoder, what: str) -> Embeddings:
        means = self._means
        if isinstance(X, Embeddings) and what not in ("reference", "support"):
            found = encoder.lookup(X.keys)
            if found is None:
                raise only_vectors(what)
            known = tuple(key for key in X.keys if key not in found[1])
            return Embeddings(known, found[0], encoder.info.id, "", found[1])
        size = means.batch_size
        if isinstance(encoder, ViewEncoder):
            size = max(1, size // encoder.rule.n)

        def advance(done: int, encoded: bool) -> None:
            if what not in ("reference", "support"):
                means.progress(done, False)  # what was encoded is counted by the main encoder

        made = as_embeddings(X, encoder, batch_size=size, cache=means.cache, progress=advance)
        if what in ("reference", "support"):
            check_vectors(made, encoder.info)
        return made

    def _note(self, kind: str, found: Embeddings, what: str) -> None:
        self._told[kind] |= {"images": len(found), "unreadable": len(found.errors)}
        if not len(found):
            first = next(iter(found.errors.values()), "there is none")
            seen = f"none of its images could be read ({first})"
            raise EmbeddingsError(f"use {what}={shown(self.given[kind])}", seen, "Give others.")

    # -- what is said of them

    def record(self) -> dict[str, dict[str, Any]]:
        """What was given and found, by kind, ready for JSON."""
        return {kind: dict(told) for kind, told in self._told.items()}

    def notes(self, recipe: Recipe) -> list[str]:
        """What a user should know: inputs that nobody looks at, and, once gathered, gaps."""
        wanted = frozenset[str]().union(*inputs_of(recipe))
        found = [
            f"the recipe '{recipe.name}' does not look at {kind}"
            for kind in self.given
            if not {kind, f"{kind}_texts"} & wanted
        ]
        for kind, told in self._told.items():
            if told.get("unreadable"):
                found.append(f"{told['unreadable']} images of {kind} could not be read: left out")
            if told.get("images_without"):
                found.append(f"{told['images_without']} images have no caption")
        return found

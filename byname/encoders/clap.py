"""CLAP: texts and sounds in one space."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byname.encoders.arrays import unit_rows
from byname.encoders.torch_base import TorchEncoder, features_of, need
from byname.errors import EncoderError, UsageError

__all__ = ["ClapEncoder"]

LOUDEST = 1.001  # full range, and what rounding adds


class ClapEncoder(TorchEncoder):
    """CLAP: texts, and sounds in place of images.

    Sounds reach the rest of byname as ready vectors: encode them here, then give the (N, D) array,
    or ``Embeddings.from_arrays(vectors, keys)``, where images are asked for.
    """

    def connect(self, library: Any, model: Any, folder: Path) -> None:
        """Keep the audio tower and what prepares sounds for it."""
        self._model = model
        self._extractor = None
        if (folder / "preprocessor_config.json").is_file():
            extractor = library.ClapFeatureExtractor
            self._extractor = extractor.from_pretrained(str(folder), local_files_only=True)

    def encode_images(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Always an error: it hears and does not see."""
        raise EncoderError(
            f"encode images with '{self.info.id}'",
            "it has no image tower: it is a model for sounds",
            "Encode sounds with its encode_audio in Python, and give the vectors in place of "
            "images; for images, choose another encoder.",
        )

    def encode_audio(self, sounds: list[NDArray[np.float32]], rate: int) -> NDArray[np.float32]:
        """N mono waveforms, floats in -1 to 1, to (N, D) unit rows.

        Parameters
        ----------
        sounds : list of array, each of shape (samples,)
            Of what is longer than the model hears (10 s), the middle is taken: the library's own
            choice would be a random part.
        rate : int
            Samples a second; the one that the model was trained with, 48,000 as a rule.

        Raises
        ------
        EncoderError
            For another rate, or a folder without preprocessor_config.json.
        UsageError
            For what is no list of mono float waveforms.
        """
        asked = f"encode sounds with '{self.info.id}'"
        if self._extractor is None:
            raise EncoderError(
                asked, "its folder has no preprocessor_config.json", "Add it from the source."
            )
        if rate != self._extractor.sampling_rate:
            raise EncoderError(
                asked,
                f"the rate is {rate} Hz, and it hears {self._extractor.sampling_rate} Hz",
                "Resample the sounds first.",
            )
        if not isinstance(sounds, list | tuple):
            raise _unfit(asked, f"got one {type(sounds).__name__}")
        for i, sound in enumerate(sounds):
            _check_sound(sound, i, asked)
        torch = need("torch", self.info.id)
        rows = [np.zeros((0, self.info.dim), np.float32)]
        for sound in sounds:
            start = max(0, len(sound) - self._extractor.nb_max_samples) // 2
            part = np.asarray(sound)[start : start + self._extractor.nb_max_samples]
            inputs = self._extractor(part, sampling_rate=rate, return_tensors="pt")
            features = inputs["input_features"].to(self.device, self.dtype)
            with torch.inference_mode():
                out = self._model.get_audio_features(features, is_longer=inputs.get("is_longer"))
            rows.append(unit_rows(features_of(out).float().cpu().numpy(), asked))
        return np.concatenate(rows)


def _check_sound(sound: object, i: int, asked: str) -> None:
    if not isinstance(sound, np.ndarray) or not np.issubdtype(sound.dtype, np.floating):
        kind = sound.dtype if isinstance(sound, np.ndarray) else type(sound).__name__
        hint = " Divide int16 by 32768." if str(kind) == "int16" else ""
        raise _unfit(asked, f"sound {i} is of type {kind}", hint)
    if sound.ndim != 1:
        hint = " Take the mean of its channels."
        raise _unfit(asked, f"sound {i} has shape {sound.shape}", hint)
    if not len(sound):
        raise _unfit(asked, f"sound {i} is empty")
    largest = float(np.abs(sound).max())
    if not largest <= LOUDEST:  # written so that NaN says no
        raise _unfit(asked, f"sound {i} reaches {largest:g}", " Scale it to its full range.")


def _unfit(asked: str, seen: str, hint: str = "") -> UsageError:
    do = "Give a list of mono waveforms, each a 1-D array of floats in -1 to 1."
    return UsageError(asked, seen, do + hint)

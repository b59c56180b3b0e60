"""Encoders: images and texts to unit vectors in one space."""

from byname.encoders.base import Encoder, EncoderInfo
from byname.encoders.load import list_encoders, load_encoder

__all__ = ["Encoder", "EncoderInfo", "list_encoders", "load_encoder"]

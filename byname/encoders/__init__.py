"""Encoders: images and texts to unit vectors in one space."""

from byname.encoders.base import Encoder, EncoderInfo
from byname.encoders.load import list_encoders, load_encoder
from byname.encoders.precomputed import PrecomputedEncoder

__all__ = ["Encoder", "EncoderInfo", "PrecomputedEncoder", "list_encoders", "load_encoder"]

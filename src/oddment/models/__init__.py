"""The autoencoders, one file a family, behind one registry."""

from oddment.models._base import Autoencoder, Batch, Leftover, valid_mask
from oddment.models._registry import ModelSpec, Shape, build, get_spec, model_names, register

__all__ = [
    "Autoencoder",
    "Batch",
    "Leftover",
    "ModelSpec",
    "Shape",
    "build",
    "get_spec",
    "model_names",
    "register",
    "valid_mask",
]

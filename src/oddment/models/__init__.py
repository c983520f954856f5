"""The autoencoders, one file a family, behind one registry."""

from oddment.models._base import Autoencoder, Batch, Leftover, Passes, valid_mask
from oddment.models._keras import keras_layers, keras_parameters, keras_weights, load_keras_weights
from oddment.models._registry import ModelSpec, Shape, build, get_spec, model_names, register, spec_for

__all__ = [
    "Autoencoder",
    "Batch",
    "Leftover",
    "ModelSpec",
    "Passes",
    "Shape",
    "build",
    "get_spec",
    "keras_layers",
    "keras_parameters",
    "keras_weights",
    "load_keras_weights",
    "model_names",
    "register",
    "spec_for",
    "valid_mask",
]

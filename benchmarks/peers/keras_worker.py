"""Keras 3 with TensorFlow: the networks of reference systems 1 and 4, trained and scored as their authors do."""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from _worker import Clock, answer, ask, serve
from keras import layers as L  # noqa: N812

_models: dict[str, Any] = {}


def dense(hidden: list[int]) -> Any:  # noqa: ANN401 - Keras has no types
    """Return system 1's dense models: 784, hidden down, hidden up, 784."""
    widths = [*hidden, *hidden[-2::-1]]
    return keras.Sequential([L.Input((784,)), *(L.Dense(width, "relu") for width in widths), L.Dense(784, "sigmoid")])


def pooling(side: int = 28) -> Any:  # noqa: ANN401
    """Return system 1's convolutional_autoencoder."""

    def conv(filters: int, activation: str = "relu") -> Any:  # noqa: ANN401
        return L.Conv2D(filters, 3, activation=activation, padding="same")

    down = [conv(32), L.MaxPooling2D(), conv(16), L.MaxPooling2D(), conv(8)]
    up = [L.UpSampling2D(), conv(16), L.UpSampling2D(), conv(32), conv(1, "sigmoid")]
    return keras.Sequential([L.Input((side, side, 1)), *down, *up])


def strided() -> Any:  # noqa: ANN401
    """Return system 4's autoencoder for colour photographs of 256×256."""
    stack: list[Any] = [L.Input((256, 256, 3))]
    for filters in (16, 32, 64):
        stack += [L.Conv2D(filters, 3, 2, "same"), L.LeakyReLU(0.3), L.BatchNormalization()]
    stack += [L.Flatten(), L.Dense(32), L.Dense(32 * 32 * 64), L.Reshape((32, 32, 64))]
    for filters in (64, 32, 16):
        stack += [L.Conv2DTranspose(filters, 3, 2, "same"), L.LeakyReLU(0.3), L.BatchNormalization()]
    return keras.Sequential([*stack, L.Conv2DTranspose(3, 3, 1, "same", activation="sigmoid")])


BUILDERS = {
    "dense": lambda: dense([64]),
    "dense-deep": lambda: dense([128, 64]),
    "conv-pooling": pooling,
    "conv-strided-deep": strided,
}


def read(path: str, count: int, name: str) -> Any:  # noqa: ANN401
    """Return float32 images in the shape that the network takes."""
    images = np.load(path)[:count].astype(np.float32) / 255
    return images.reshape(len(images), -1) if name.startswith("dense") else images.reshape(*images.shape[:3], -1)


def train(name: str, images: str, count: int, held: str, epochs: int, batch: int) -> dict[str, Any]:
    """Train epoch by epoch, each when it is asked for."""
    keras.utils.set_random_seed(0)
    training, validation = read(images, count, name), read(held, max(1, count // 6), name)
    model = BUILDERS[name]()
    model.compile(optimizer="adam", loss="mse")
    _models[name] = model
    answer(ready=True)
    for epoch in range(epochs):
        ask()
        clock = Clock()
        seen = model.fit(
            training, training, epochs=1, batch_size=batch, validation_data=(validation, validation), verbose=0
        ).history
        result = {"images": len(training), "loss": seen["val_loss"][0], **clock.read()}
        if epoch + 1 < epochs:
            answer(**result)
    return result


def score(name: str, images: str, count: int, batch: int) -> dict[str, Any]:
    """Score arrays of uint8: scale, `predict`, mean squared error."""
    if name not in _models:
        _models[name] = BUILDERS[name]()
        _models[name].compile(optimizer="adam", loss="mse")
    raw = np.load(images)[:count]
    clock = Clock()
    scaled = raw.astype(np.float32) / 255
    scaled = scaled.reshape(len(raw), -1) if name.startswith("dense") else scaled.reshape(*raw.shape[:3], -1)
    drawn = _models[name].predict(scaled, batch_size=batch, verbose=0)
    errors = np.square(scaled - drawn).reshape(len(raw), -1).mean(1)
    return {"images": len(raw), "mean": float(errors.mean()), **clock.read()}


def versions() -> dict[str, Any]:
    """Return what this is."""
    return {"versions": f"keras {keras.__version__}, tensorflow {tf.__version__}, numpy {np.__version__}"}


serve(train=train, score=score, versions=versions)

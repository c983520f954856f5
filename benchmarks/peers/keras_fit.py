"""A whole Keras program, as a user would write it: read images, train system 1's network, choose a threshold, save.

python keras_fit.py FOLDER MODEL.keras EPOCHS
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers as L  # noqa: N812
from PIL import Image

folder, target, epochs = sys.argv[1:]
keras.utils.set_random_seed(0)
images = np.stack([np.asarray(Image.open(path)) for path in sorted(Path(folder).iterdir())])
images = images[..., None].astype("float32") / 255
held = max(1, len(images) // 5)
calibration, training = images[:held], images[held:]


def conv(filters: int, activation: str = "relu") -> L.Layer:
    """Return a convolution."""
    return L.Conv2D(filters, 3, activation=activation, padding="same")


model = keras.Sequential(
    [
        L.Input(images.shape[1:]),
        *(conv(32), L.MaxPooling2D(), conv(16), L.MaxPooling2D(), conv(8)),
        *(L.UpSampling2D(), conv(16), L.UpSampling2D(), conv(32), conv(1, "sigmoid")),
    ]
)
model.compile(optimizer="adam", loss="mse")
model.fit(training, training, epochs=int(epochs), batch_size=64, validation_data=(calibration, calibration), verbose=0)
errors = np.square(calibration - model.predict(calibration, verbose=0)).mean((1, 2, 3))
model.save(target)
Path(target).with_suffix(".txt").write_text(str(np.quantile(errors, 0.99)))

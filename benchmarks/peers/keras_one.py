"""A whole Keras program that says whether one image is an anomaly: python keras_one.py IMAGE MODEL.keras."""

from __future__ import annotations

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from PIL import Image

path, target = sys.argv[1:]
model = keras.models.load_model(target)
image = np.asarray(Image.open(path))[None, ..., None].astype("float32") / 255
score = float(np.square(image - model.predict(image, verbose=0)).mean())
print(path, score, score > 0.02)

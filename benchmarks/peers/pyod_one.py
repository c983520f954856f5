"""A whole PyOD program that says whether one image is an anomaly: python pyod_one.py IMAGE MODEL [make]."""

from __future__ import annotations

import sys
import warnings

import joblib
import numpy as np
from PIL import Image

warnings.simplefilter("ignore")
path, target, *make = sys.argv[1:]
row = (np.asarray(Image.open(path)).astype("float32") / 255).reshape(1, -1)
if make:
    from pyod.models.auto_encoder import AutoEncoder

    rows = np.random.default_rng(0).random((256, row.shape[1]), "float32")
    joblib.dump(AutoEncoder(hidden_neuron_list=[64], epoch_num=1, batch_size=64, verbose=0).fit(rows), target)
model = joblib.load(target)
print(path, float(model.decision_function(row)[0]), bool(model.predict(row)[0]))

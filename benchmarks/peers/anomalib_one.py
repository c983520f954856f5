"""A whole anomalib program that says whether one image is an anomaly: python anomalib_one.py IMAGE MODEL [make]."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

import _vision  # noqa: F401

warnings.simplefilter("ignore")
os.environ["TRUST_REMOTE_CODE"] = "1"  # its models are pickles
path, target, *make = sys.argv[1:]
if make:
    import shutil

    import torch
    from anomalib.models import Padim

    made = Padim(pre_trained=False)
    made.model.train()
    with torch.no_grad():
        made.model(torch.rand(8, 3, 256, 256))
    made.model.fit()
    shutil.copy(made.eval().to_torch(Path(target).parent / "anomalib-made"), target)
from anomalib.deploy import TorchInferencer  # noqa: E402 - after what it looks at in the environment

answer = TorchInferencer(path=target, device="cpu").predict(path)
print(path, float(answer.pred_score), bool(answer.pred_label))

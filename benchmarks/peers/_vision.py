"""Lets torchvision be imported beside a torch without CUDA, where it does not find its operators; none is used here."""

from __future__ import annotations

import torch

try:
    import torchvision  # noqa: F401
except RuntimeError:
    OPERATORS = torch.library.Library("torchvision", "DEF")
    for _name in ("nms", "qnms"):
        OPERATORS.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

"""Import this before torchvision, where its compiled part may not fit PyTorch."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch


def declare_operators() -> None:
    """Lightning, timm and an example import torchvision, which must be of the same build as PyTorch.

    The torchvision of the package index is built for CUDA. Beside a PyTorch for CPUs its compiled part cannot be
    loaded, and then its import fails, since it describes two operators that are not there. So they are declared here;
    nothing calls them.
    """
    spec = importlib.util.find_spec("torchvision")
    assert spec is not None
    assert spec.origin is not None
    try:
        torch.ops.load_library(Path(spec.origin).with_name("_C.so"))
    except OSError:
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


declare_operators()

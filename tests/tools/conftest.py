"""The tests import the examples by their plain names, as Python does when it runs one."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import torch

EXAMPLES = Path(__file__).parents[2] / "examples" / "tools"

sys.path.append(str(EXAMPLES))


def declare_operators() -> None:
    """Lightning and timm import torchvision, which must be of the same build as PyTorch.

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

"""Ordinary steps in PyTorch."""

from __future__ import annotations

from contenders.recipes import moving_later
from contenders.torch_models import Step, make_model, make_optimizer, make_step
from rigl_backends.torch import sparsify


class TorchSteps:
    """See `contenders.protocol.Steps`."""

    def __init__(self, model: str, optimizer: str) -> None:
        self.dense = _step(model, optimizer, sparse=False)
        self.sparse = _step(model, optimizer, sparse=True)


make = TorchSteps


def _step(model: str, optimizer: str, *, sparse: bool) -> Step:
    network, inputs = make_model(model)
    stepper = make_optimizer(optimizer, network)
    if sparse:
        sparsify(network, stepper, moving_later())
    return make_step(network, inputs, stepper)

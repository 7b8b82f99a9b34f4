"""Ordinary steps of rigl-torch 0.5.2. It finds no weights in a GRU; in a transformer it sparsifies the norms, too."""

from __future__ import annotations

from contenders.rigl_torch_update import stand_in_for_torchvision
from contenders.torch_models import Step, make_model, make_optimizer, make_step
from subjects import SPARSITY


class RigLTorchSteps:
    """See `contenders.protocol.Steps`."""

    def __init__(self, model: str, optimizer: str) -> None:
        self.dense = _step(model, optimizer, sparse=False)
        self.sparse = _step(model, optimizer, sparse=True)


make = RigLTorchSteps


def _step(model: str, optimizer: str, *, sparse: bool) -> Step:
    network, inputs = make_model(model)
    stepper = make_optimizer(optimizer, network)
    if not sparse:
        return make_step(network, inputs, stepper)
    stand_in_for_torchvision()
    from rigl_torch.RigL import RigLScheduler

    scheduler = RigLScheduler(
        network, stepper, 1 - SPARSITY, T_end=10**9, delta=10**6, alpha=0.3, ignore_linear_layers=False
    )
    train = make_step(network, inputs, stepper)

    def step() -> None:
        train()
        scheduler()

    return step

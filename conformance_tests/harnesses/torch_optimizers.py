"""The suite's optimizers in PyTorch."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from rigl_core.testing.harness import OptimizerSpec


class CenteredSGD(torch.optim.SGD):
    def step(self, closure: Any = None) -> Any:
        for param in self.param_groups[0]["params"]:
            if param.grad is not None:
                param.grad.sub_(param.grad.mean())
        return super().step(closure)


class _Twice(torch.optim.Optimizer):
    """It evaluates the loss, moves along the gradients, evaluates the loss again, moves back, and makes its step."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        evaluate = torch.enable_grad()(closure)
        evaluate()
        params = [param for group in self.param_groups for param in group["params"] if param.grad is not None]
        old = [param.clone() for param in params]
        for param in params:
            param.add_(param.grad, alpha=0.5)
        loss = evaluate()
        for param, weight in zip(params, old, strict=True):
            param.copy_(weight)
        super().step()
        return loss


class TwiceSGD(_Twice, torch.optim.SGD):
    pass


class TwiceAdamW(_Twice, torch.optim.AdamW):
    pass


def make_optimizer(spec: OptimizerSpec, params: list[nn.Parameter]) -> torch.optim.Optimizer:
    twice = spec.evaluations == 2
    if spec.kind == "sgd":
        make = CenteredSGD if spec.centered else TwiceSGD if twice else torch.optim.SGD
        return make(params, spec.lr, spec.momentum, weight_decay=spec.weight_decay)
    if spec.kind == "adagrad":
        return torch.optim.Adagrad(params, spec.lr, initial_accumulator_value=0.1)
    return (TwiceAdamW if twice else torch.optim.AdamW)(params, spec.lr, weight_decay=spec.weight_decay)

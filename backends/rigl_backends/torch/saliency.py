"""Scores for topologies that are chosen once, before training, by a model's own derivatives: GraSP and SynFlow.

Give them to ``sparsify``, with a recipe that asks for them::

    scores = grasp_scores(model, torch.nn.functional.cross_entropy, images, labels)
    sparsify(model, optimizer, rigl_core.GraSP(0.9), scores=scores)

Both work on a copy of the model: its weights, gradients, buffers (batch-norm's statistics) and modes stay as they are,
and so do the user's random numbers.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_leaves, tree_map

from rigl_backends.torch.layers import choose_layers, parameters_of
from rigl_backends.torch.namespace import widen
from rigl_core.adapter import check_layers, decimal, prune_in_rounds

Scores = dict[str, Tensor]
Weights = dict[str, Tensor]
"""Parameters by layer name."""


def grasp_scores(
    model: nn.Module,
    loss: Callable[..., Tensor],
    inputs: Any,
    targets: Any,
    *,
    temperature: float = 1.0,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
) -> Scores:
    """weight * (Hessian times gradient): how much the gradient flow needs each connection (Wang et al. 2020).

    The largest scores are kept: to first order, removing a weight changes the squared norm of the gradient by
    -2 * weight * Hg. The paper's own score is -weight * Hg (equation 8), of which it removes the largest. Gradient
    and Hessian are those of the layers' weights, as in the published code.

    Args:
        model: any module, in the mode in which it is to run (in the published code, training).
        loss: a scalar of ``(outputs, targets)``, such as ``torch.nn.functional.cross_entropy``.
        inputs: of one batch: what the model is called with, a tuple for several arguments. The published code takes
            ten examples of each class.
        targets: of that batch.
        temperature: divides the outputs; 200 in the published code. With 1 they may be anything that ``loss`` takes.
        include: name patterns of parameters to choose besides the default ones, as for `sparsify`.
        exclude: name patterns of parameters not to choose, as for `sparsify`.

    Returns:
        By layer name, in the layer's shape and dtype.

    Raises:
        TypeError, ValueError: naming the parameter.
    """
    if decimal(temperature, "temperature") <= 0:
        raise ValueError(f"temperature is {temperature}: it must be positive.")
    twin, weights = _copy(model, include, exclude)
    with _twice_differentiable(twin):
        outputs = twin(*_arguments(inputs))
        gradients = _derivatives(loss(outputs if temperature == 1 else outputs / temperature, targets), weights)
        squares = [(widen(gradient.detach()) * widen(gradient)).sum() for gradient in gradients.values()]
        products = _derivatives(torch.stack(squares).sum(), weights)
    return {name: (weight * products[name]).detach() for name, weight in weights.items()}


def synflow_scores(
    model: nn.Module,
    inputs: Any,
    sparsity: float,
    *,
    rounds: int = 100,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
) -> Scores:
    """|weight| * d flow / d |weight|, pruned in rounds (Tanaka et al. 2020, algorithm 1).

    The flow is the sum of the network's outputs for an input of ones. As in the published code, all parameters and
    buffers count by their magnitudes, in evaluation mode; here always in float64, for flows are large.

    Args:
        model: any module.
        inputs: what the model is called with, a tuple for several arguments. Of floating-point tensors only the
            shapes count: one example is enough.
        sparsity: of the recipe, over all layers that share its budget: exclude those that it pins.
        rounds: of pruning; the paper takes 100.
        include: name patterns of parameters to choose besides the default ones, as for `sparsify`.
        exclude: name patterns of parameters not to choose, as for `sparsify`.

    Returns:
        Float64 by layer name, in the layer's shape; -1 where the rounds have pruned.

    Raises:
        TypeError, ValueError: naming the parameter; also if the flow is too large even for float64.
    """
    twin, weights = _copy(model, include, exclude)
    twin.double().eval()
    with torch.no_grad():
        for tensor in (*twin.parameters(), *twin.buffers()):
            tensor.abs_()
    ones = tree_map(_as_ones, _arguments(inputs))

    def scores(masks: Mapping[str, npt.NDArray[np.bool_]]) -> dict[str, npt.NDArray[np.float64]]:
        with torch.no_grad():
            for name, mask in masks.items():
                weights[name].mul_(torch.from_numpy(mask).to(weights[name].device))
        with _twice_differentiable(twin):
            outputs = [output.sum() for output in tree_leaves(twin(*ones)) if isinstance(output, Tensor)]
            flow = torch.stack(outputs).sum()
            slopes = _derivatives(flow, weights)
        if not flow.isfinite():
            raise ValueError("model has a flow that float64 cannot hold: scale its weights down before synflow_scores.")
        return {name: (weight * slopes[name]).abs().detach().cpu().numpy() for name, weight in weights.items()}

    shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
    pruned = prune_in_rounds(scores, shapes, sparsity, rounds)
    return {name: torch.from_numpy(values).to(weights[name].device) for name, values in pruned.items()}


def _copy(model: nn.Module, include: Sequence[str], exclude: Sequence[str]) -> tuple[nn.Module, Weights]:
    """A copy of a model, and its layers' parameters. The copy can be differentiated by these alone."""
    layers = check_layers(choose_layers(model, include, exclude))
    twin = copy.deepcopy(model).requires_grad_(False)
    parameters = parameters_of(twin, layers)
    return twin, {layer.name: own.requires_grad_() for layer, own in zip(layers, parameters, strict=True)}


@contextmanager
def _twice_differentiable(model: nn.Module) -> Iterator[None]:
    """Do without fused operations that can be differentiated only once; leave the user's random numbers alone."""
    devices = {parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"}
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    cudnn = torch.backends.cudnn.flags(enabled=False) if recurrent else nullcontext()
    with torch.random.fork_rng(list(devices)), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), cudnn:
        yield


def _derivatives(value: Tensor, weights: Weights) -> Weights:
    """The derivatives of a scalar by each weight, which can be differentiated again; zeros where it does not depend."""
    slopes = torch.autograd.grad(
        value, list(weights.values()), create_graph=True, allow_unused=True, materialize_grads=True
    )
    return dict(zip(weights, slopes, strict=True))


def _arguments(inputs: Any) -> tuple[Any, ...]:
    return inputs if isinstance(inputs, tuple) else (inputs,)


def _as_ones(value: Any) -> Any:
    is_float = isinstance(value, Tensor) and value.is_floating_point()
    return torch.ones_like(value, dtype=torch.float64) if is_float else value

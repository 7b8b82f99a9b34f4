"""RigL for MLX, written outside of rigl-core: a namespace, `sparsify`, and the handle that it gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.optimizers import Optimizer
from mlx.utils import tree_flatten, tree_map, tree_map_with_path

from rigl_core import Connections, Layer, Namespace, Plan, Recipe, errors, make_plan, random_key, survivors
from rigl_core.checkpoint import check_state, make_state
from rigl_core.clock import Clock
from rigl_core.random import INITIAL

Tree = Any  # nested dicts and lists of arrays, as MLX keeps parameters, gradients and optimizer state
Masks = Mapping[str, mx.array]


def _kth_largest(scores: mx.array, k: int) -> mx.array:
    position = scores.size - max(k, 1)
    return mx.partition(scores, position)[position] if scores.size else mx.zeros((), scores.dtype)


mlx_namespace: Namespace = SimpleNamespace(
    abs=mx.abs,
    where=mx.where,
    zeros_like=mx.zeros_like,
    full_like=mx.full_like,
    count=mx.sum,
    cumulative_count=lambda mask: mx.cumsum(mask.astype(mx.int32)),
    smallest_normal=lambda x: mx.finfo(x.dtype).smallest_normal,
    shift_right=mx.right_shift,
    kth_largest=_kth_largest,
)


def sparsify(
    model: nn.Module, optimizer: Optimizer, recipe: Recipe, *, layers: Sequence[Layer] | None = None
) -> SparseTraining:
    """Make ``model`` sparse and let ``optimizer.update(model, gradients)`` follow the recipe from now on.

    The gradients given to it are dense; if you clip or log them before, pass them through
    `SparseTraining.mask_gradients` first. Compile the loss and its gradient, but not the update: it counts steps.
    By default the ``layers`` are the weights of linear and convolutional modules.
    """
    if "apply_gradients" in vars(optimizer):
        raise errors.already_sparsified("optimizer")
    plan = make_plan(recipe, find_layers(model) if layers is None else layers)
    params = dict(tree_flatten(model.trainable_parameters()))
    for layer in plan.layers:
        if layer.name not in params or params[layer.name].shape != layer.shape:
            raise errors.no_such_array(layer)
        errors.check_dtype(layer, params[layer.name].dtype)
    return SparseTraining(plan, model, optimizer)


def find_layers(model: nn.Module) -> list[Layer]:
    """The weights of linear and convolutional modules, which MLX stores as (out, kernel, in)."""
    modules, layers = dict(model.named_modules()), []
    for name, param in tree_flatten(model.trainable_parameters()):
        module = modules.get(name.removesuffix("weight").rstrip("."))
        if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            layers.append(Layer(name, param.shape, (param.ndim - 1,), (0,), groups=getattr(module, "groups", 1)))
    return layers


class SparseTraining:
    """The handle of a sparse training, made by `sparsify`."""

    def __init__(self, plan: Plan, model: nn.Module, optimizer: Optimizer) -> None:
        self.plan, self._model, self._optimizer = plan, model, optimizer
        self._clock, masks = Clock(plan.recipe.schedule), {}
        weights = dict(tree_flatten(model.trainable_parameters()))
        for layer, active in zip(plan.layers, plan.active, strict=True):
            connections = self._connections(layer, INITIAL, weights[layer.name])
            masks[layer.name] = plan.recipe.initial_mask(connections, active, xp=mlx_namespace).reshape(layer.shape)
        optimizer.init(model.trainable_parameters())
        self._set_masks(masks)
        optimizer.apply_gradients = self._apply_gradients  # what optimizer.update(model, gradients) calls

    @property
    def masks(self) -> dict[str, mx.array]:
        """Copies of the masks, by layer name, in the layers' shapes."""
        return {name: mx.array(mask) for name, mask in self._masks.items()}

    @property
    def step(self) -> int:
        """The number of the coming optimizer step."""
        return self._clock.step

    def mask_gradients(self, gradients: Tree) -> Tree:
        """The gradients as a truly sparse network has them; dense at a step whose update reads them."""
        dense = self._clock.due is not None and self.plan.recipe.reads_gradient
        return gradients if dense else _survivors(gradients, self._masks, self._masks)

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed training needs besides the parameters and the optimizer's state."""
        return make_state(self.plan, self._clock, {name: np.array(mask) for name, mask in self._masks.items()})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` gave."""
        check_state(self.plan, state)
        self._clock.step, self._clock.deferred = state["step"], state["deferred"]
        self._set_masks({name: mx.array(mask) for name, mask in state["masks"].items()})

    def _set_masks(self, masks: Masks) -> None:
        self._masks = dict(masks)
        self._model.update(_survivors(self._model.trainable_parameters(), masks, masks))
        self._keep_state(masks, masks)

    def _keep_state(self, old: Masks, new: Masks) -> None:
        for optimizer in getattr(self._optimizer, "optimizers", [self._optimizer]):  # those of a MultiOptimizer
            optimizer.state = _survivors(optimizer.state, old, new)

    def _apply_gradients(self, gradients: Tree, parameters: Tree) -> Tree:
        """One step, an update or the optimizer's own; gives the new parameters."""
        mx.eval(gradients)  # an error inside mx.compile, where steps would be counted only once
        recipe, update = self.plan.recipe, self._clock.due
        if update is not None and recipe.reads_gradient and not _all_finite(gradients):
            self._clock.defer()
            update = None
        if update is not None and recipe.on_update == "replace":
            parameters = tree_map(lambda _, param: param, gradients, parameters)
        else:
            sparse = _survivors(gradients, self._masks, self._masks)
            stepped = type(self._optimizer).apply_gradients(self._optimizer, sparse, parameters)
            parameters = _survivors(stepped, self._masks, self._masks)
        if update is not None:
            parameters = self._move(update, parameters, dict(tree_flatten(gradients)))
        self._clock.advance(updated=update is not None)
        return parameters

    def _move(self, update: int, parameters: Tree, gradients: Mapping[str, mx.array]) -> Tree:
        """The topology update of every layer that has a gradient; gives what survives of the parameters."""
        old, weights = dict(self._masks), dict(tree_flatten(parameters))
        for position in self.plan.sparse_layers:
            layer, k = self.plan.layers[position], int(self.plan.drop_counts[update, position])
            if layer.name in gradients:
                connections = self._connections(layer, update, weights[layer.name], gradients[layer.name].reshape(-1))
                mask, keep = old[layer.name].reshape(-1), self.plan.active[position] - k
                new = self.plan.recipe.updated_mask(connections, mask, keep, k, xp=mlx_namespace)
                self._masks[layer.name] = new.reshape(layer.shape)
        self._keep_state(old, self._masks)
        return _survivors(parameters, old, self._masks)

    def _connections(self, layer: Layer, update: int, weight: mx.array, gradient: mx.array = None) -> Connections:
        key = random_key(self.plan.recipe.seed, layer.name, update)
        return Connections(weight.reshape(-1), gradient, mx.arange(layer.size, dtype=mx.int32), key)


def _survivors(tree: Tree, old: Masks, new: Masks) -> Tree:
    """Parameters, gradients or optimizer state: what belongs to a layer's weights is zeroed but for the survivors."""

    def keep(path: str, values: mx.array) -> mx.array:
        name = path if path in new else path.rpartition(".")[0]  # Adam's mean of fc.weight is at fc.weight.m
        if name not in new or values.shape != new[name].shape:
            return values
        return survivors(values, old[name], new[name], xp=mlx_namespace)

    return tree_map_with_path(keep, tree)


def _all_finite(gradients: Tree) -> bool:
    return all(mx.isfinite(gradient).all().item() for _, gradient in tree_flatten(gradients))

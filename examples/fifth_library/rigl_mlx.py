"""RigL, and every other method of rigl-core, for MLX, written outside of it: `sparsify`, and the handle it gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.optimizers import Optimizer
from mlx.utils import tree_flatten, tree_map_with_path

from rigl_core import Counts, Layer, Plan, Recipe, initial_masks, make_plan, move_pool
from rigl_core.arrays.random import INITIAL
from rigl_core.step import errors
from rigl_core.step.checkpoint import check_state, make_state
from rigl_core.step.clock import Clock
from rigl_mlx_layer import SparseLayer
from rigl_mlx_namespace import mlx_namespace

Tree = Any  # nested dicts and lists of arrays, as MLX keeps parameters, gradients and optimizer state
Arrays = dict[str, mx.array]  # the same, by path


def sparsify(
    model: nn.Module,
    optimizer: Optimizer,
    recipe: Recipe,
    *,
    layers: Sequence[Layer] | None = None,
    scores: Mapping[str, mx.array] | None = None,
) -> SparseTraining:
    """Make ``model`` sparse and let ``optimizer.update(model, gradients)`` follow the recipe from now on.

    The gradients given to it are dense; if you clip or log them before, pass them through
    `SparseTraining.mask_gradients` first. Compile the loss and its gradient, but not the update: it counts steps.
    By default the ``layers`` are the weights of linear and convolutional modules. ``scores``, by layer name, choose
    the initial topology for recipes that ask for them (GraSP, SynFlow, lottery tickets).
    """
    if "apply_gradients" in vars(optimizer):
        raise errors.already_sparsified("optimizer")
    plan = make_plan(recipe, find_layers(model) if layers is None else layers)
    params = dict(tree_flatten(model.trainable_parameters()))
    for layer in plan.layers:
        if layer.name not in params or params[layer.name].shape != layer.shape:
            raise errors.no_such_array(layer)
        errors.check_dtype(layer, params[layer.name].dtype)
    errors.check_scores(plan, scores)
    return SparseTraining(plan, model, optimizer, scores or {})


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

    def __init__(self, plan: Plan, model: nn.Module, optimizer: Optimizer, scores: Mapping[str, mx.array]) -> None:
        self.plan, self._model, self._optimizer = plan, model, optimizer
        self._clock = Clock(plan.recipe.schedule)
        self._layers = {i: SparseLayer(plan.layers[i], plan.recipe) for i in plan.sparse_layers}
        for pool in plan.pools:
            self._start(pool, scores)
        optimizer.init(model.trainable_parameters())
        self._zero_outside()
        optimizer.apply_gradients = self._apply_gradients  # what optimizer.update(model, gradients) calls

    @property
    def masks(self) -> Arrays:
        """Copies of the masks, by layer name, in the layers' shapes."""
        dense = {layer.name: mx.ones(layer.shape, mx.bool_) for layer in self.plan.layers}
        return dense | {name: mx.array(mask) for name, mask in self._masks.items()}

    @property
    def step(self) -> int:
        """The number of the coming optimizer step."""
        return self._clock.step

    def mask_gradients(self, gradients: Tree) -> Tree:
        """The gradients as a truly sparse network has them; dense at a step that reads dense ones."""
        recipe = self.plan.recipe
        dense = recipe.reads_every_gradient or (self._clock.due is not None and recipe.reads_gradient)
        return gradients if dense else _kept(gradients, self._masks)

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed training needs besides the parameters and the optimizer's state."""
        memory = {
            kind: {layer.name: mx.array(layer.memory[kind]) for layer in self._layers.values()}
            for kind in self.plan.recipe.memories
        }
        return make_state(self.plan, self._clock, self.masks, memory)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` gave."""
        check_state(self.plan, state)
        self._clock.step, self._clock.deferred = state["step"], state["deferred"]
        for layer in self._layers.values():
            layer.mask = mx.array(state["masks"][layer.name])
            layer.memory = {kind: mx.array(arrays[layer.name]) for kind, arrays in state["memory"].items()}
        self._zero_outside()

    @property
    def _masks(self) -> Arrays:
        return {layer.name: layer.mask for layer in self._layers.values()}

    @property
    def _shadow(self) -> bool:
        """Whether weights outside the masks go on learning, and so keep their optimizer state."""
        return "shadow" in self.plan.recipe.memories

    def _start(self, pool: Sequence[int], scores: Mapping[str, mx.array]) -> None:
        layers, weights = [self._layers[i] for i in pool], dict(tree_flatten(self._model.parameters()))
        connections = [
            layer.connections(INITIAL, weights[layer.name], scores=scores.get(layer.name)) for layer in layers
        ]
        active = [self.plan.initial_active[i] for i in pool]
        masks = initial_masks(self.plan.recipe, connections, active, xp=mlx_namespace)
        for layer, own, mask in zip(layers, connections, masks, strict=True):
            layer.start(own, mask)

    def _zero_outside(self) -> None:
        self._model.update(_kept(self._model.parameters(), self._masks))
        self._keep_state(self._masks)

    def _keep_state(self, survivors: Arrays) -> None:
        if not self._shadow:
            for optimizer in getattr(self._optimizer, "optimizers", [self._optimizer]):  # those of a MultiOptimizer
                optimizer.state = _kept(optimizer.state, survivors)

    def _apply_gradients(self, gradients: Tree, parameters: Tree) -> Tree:
        """One step: an update, the optimizer's own, or both; gives the new parameters."""
        # An error inside mx.compile, where steps would be counted only once; and lazy memory would keep all its past.
        mx.eval(gradients, [layer.memory for layer in self._layers.values()])
        recipe, update, dense = self.plan.recipe, self._clock.due, dict(tree_flatten(gradients))
        if update is not None and recipe.reads_gradient and not _all_finite(dense):
            self._clock.defer()
            update = None
        for layer in self._layers.values():
            if layer.name in dense:
                layer.observe(dense[layer.name])
        if isinstance(parameters, nn.Module):
            parameters = parameters.parameters()
        if update is None or recipe.on_update == "after":
            parameters = self._gradient_step(gradients, parameters)
        if update is not None:
            parameters = self._move(update, parameters, dense)
        self._clock.advance(updated=update is not None)
        return parameters

    def _gradient_step(self, gradients: Tree, parameters: Tree) -> Tree:
        """The optimizer's own step, of the sparse network; or of all weights, if they go on learning."""
        weights = dict(tree_flatten(parameters))
        whole = {layer.name: layer.whole_weight(weights[layer.name]) for layer in self._layers.values()}
        parameters = _replaced(parameters, whole)
        sparse = gradients if self._shadow else self._for_optimizer(gradients, weights)
        stepped = type(self._optimizer).apply_gradients(self._optimizer, sparse, parameters)
        weights |= whole | dict(tree_flatten(stepped))
        for layer in self._layers.values():
            layer.remember(weights[layer.name])
        return _kept(_replaced(parameters, weights), self._masks)

    def _for_optimizer(self, gradients: Tree, weights: Arrays) -> Tree:
        """The gradients of active weights, with what the recipe adds to them."""
        if self.plan.recipe.changes_gradient:
            dense = dict(tree_flatten(gradients))
            used = [layer for layer in self._layers.values() if layer.name in dense]
            noisy = {layer.name: layer.noisy(weights[layer.name], dense[layer.name], self.step) for layer in used}
            gradients = _replaced(gradients, noisy)
        return _kept(gradients, self._masks)

    def _move(self, update: int, parameters: Tree, dense: Arrays) -> Tree:
        """The topology update; a layer on its own without a gradient keeps its topology, if gradients are read."""
        recipe, row, weights = self.plan.recipe, self.plan.row(update), dict(tree_flatten(parameters))
        survivors = {}
        for number, pool in enumerate(self.plan.pools):
            layers = [self._layers[i] for i in pool]
            if recipe.reads_gradient and len(pool) == 1 and layers[0].name not in dense:
                continue
            connections = [layer.connections(update, weights[layer.name], dense.get(layer.name)) for layer in layers]
            keep, grow = (int(table[row, number]) for table in (self.plan.keep_counts, self.plan.grow_counts))
            counts = Counts(keep, grow, mx.array(self.plan.digits[row]))
            flat = [layer.mask.reshape(-1) for layer in layers]
            moved = move_pool(recipe, connections, flat, counts, xp=mlx_namespace)
            for layer, own, new in zip(layers, connections, moved, strict=True):
                weights[layer.name], survivors[layer.name] = layer.move_to(own, new)
        self._keep_state(survivors)
        return _replaced(parameters, weights)


def _replaced(tree: Tree, arrays: Arrays) -> Tree:
    """Some of a tree's arrays replaced, by their paths."""
    return tree_map_with_path(lambda path, array: arrays.get(path, array), tree)


def _kept(tree: Tree, masks: Arrays) -> Tree:
    """Parameters, gradients or optimizer state: what belongs to a layer's weights is zeroed outside its mask."""

    def keep(path: str, values: mx.array) -> mx.array:
        name = path if path in masks else path.rpartition(".")[0]  # Adam's mean of fc.weight is at fc.weight.m
        if name not in masks or values.shape != masks[name].shape:
            return values
        return mx.where(masks[name], values, mx.zeros_like(values))

    return tree_map_with_path(keep, tree)


def _all_finite(arrays: Arrays) -> bool:
    return all(mx.isfinite(array).all().item() for array in arrays.values())

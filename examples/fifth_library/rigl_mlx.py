"""RigL, and every other method of rigl-core, for MLX, written outside of it: `sparsify`, and the handle it gives."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.optimizers import Optimizer
from mlx.utils import tree_flatten, tree_map_with_path

from rigl_core import adapter
from rigl_core.adapter import Initial, Layer, Plan, Recipe, errors, make_plan, start_from
from rigl_mlx_layer import Arrays, SparseLayer

Tree = Any  # nested dicts and lists of arrays, as MLX keeps parameters, gradients and optimizer state


def sparsify(
    model: nn.Module,
    optimizer: Optimizer,
    recipe: Recipe,
    *,
    layers: Sequence[Layer] | None = None,
    scores: Arrays | None = None,
    initial: Initial | None = None,
) -> SparseTraining:
    """Make ``model`` sparse and let ``optimizer.update(model, gradients)`` follow the recipe from now on.

    The gradients given to it are dense; if you clip or log them before, pass them through
    `SparseTraining.mask_gradients` first. Compile the loss and its gradient, but not the update: it counts steps.
    By default the ``layers`` are those of `choose_layers`. ``scores``, by layer name, choose the initial topology for
    recipes that ask for them (GraSP, SynFlow, lottery tickets). ``initial`` gives the masks to begin with.
    """
    if "apply_gradients" in vars(optimizer):
        raise errors.already_sparsified("optimizer")
    recipe, scores = start_from(recipe, choose_layers(model) if layers is None else layers, initial, scores)
    planned = plan(model, recipe, layers=layers)
    errors.check_scores(planned, scores)
    return SparseTraining(planned, model, optimizer, scores)


def plan(model: nn.Module, recipe: Recipe, *, layers: Sequence[Layer] | None = None) -> Plan:
    """What ``recipe`` would do to ``model``, which stays as it is: ``print`` it."""
    made = make_plan(recipe, choose_layers(model) if layers is None else layers)
    params = dict(tree_flatten(model.trainable_parameters()))
    for layer in made.layers:
        if layer.name not in params or params[layer.name].shape != layer.shape:
            raise errors.no_such_array(layer)
        errors.check_dtype(layer, params[layer.name].dtype)
    return made


def choose_layers(model: nn.Module) -> list[Layer]:
    """The weights of linear and convolutional modules, which MLX stores as (out, kernel, in)."""
    modules, layers = dict(model.named_modules()), []
    for name, param in tree_flatten(model.trainable_parameters()):
        module = modules.get(name.removesuffix("weight").rstrip("."))
        if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            layers.append(Layer(name, param.shape, (param.ndim - 1,), (0,), groups=getattr(module, "groups", 1)))
    return layers


class SparseTraining(adapter.SparseTraining[SparseLayer]):
    """The handle of a sparse training, made by `sparsify`."""

    def __init__(self, plan: Plan, model: nn.Module, optimizer: Optimizer, scores: Arrays | None) -> None:
        self._model, self._optimizer = model, optimizer
        self._params: Arrays = dict(tree_flatten(model.parameters()))  # the newest of each, for the layers
        layers = {i: SparseLayer(plan.layers[i], plan.recipe, self._params, optimizer) for i in plan.sparse_layers}
        super().__init__(plan, layers)
        optimizer.init(model.trainable_parameters())
        self.start(scores)
        model.update(self._replaced(model.parameters()))
        optimizer.apply_gradients = self._apply_gradients  # what optimizer.update(model, gradients) calls

    def mask_gradients(self, gradients: Tree) -> Tree:
        """The gradients as a truly sparse network has them; dense at a step that reads dense ones."""
        return gradients if self.reads_gradients else self._changed(gradients, SparseLayer.zero_outside)

    def load_state_dict(self, state: Mapping[str, Any], *, changed: Collection[str] = ()) -> None:
        """Continue from what `state_dict` gave, with the model's own parameters."""
        self._params.update(tree_flatten(self._model.parameters()))
        super().load_state_dict(state, changed=changed)
        self._model.update(self._replaced(self._model.parameters()))

    def tell_outside(self) -> None:
        """Warn if weights of the model lie outside the masks."""
        self._params.update(tree_flatten(self._model.parameters()))
        super().tell_outside()

    def _apply_gradients(self, gradients: Tree, parameters: Tree) -> Tree:
        """One step; gives the new parameters."""
        # An error inside mx.compile, where steps would be counted only once; and lazy memory would keep all its past.
        mx.eval(gradients, [layer.memory for layer in self._layers.values()])
        tree = parameters.parameters() if isinstance(parameters, nn.Module) else parameters
        self._params.update(tree_flatten(tree))
        super().tell_outside()
        dense = dict(tree_flatten(gradients))
        flat = {i: dense[one.layer.name].reshape(-1) for i, one in self._layers.items() if one.layer.name in dense}
        self.take_step(flat, lambda: self._gradient_step(gradients, tree), finite=lambda: _all_finite(dense))
        return self._replaced(tree)

    def _gradient_step(self, gradients: Tree, parameters: Tree) -> None:
        for layer in self._layers.values():
            layer.show_shadow()
        if not self._rule.shadow:
            gradients = self._changed(gradients, lambda layer, gradient: layer.for_optimizer(gradient, self.step))
        stepped = type(self._optimizer).apply_gradients(self._optimizer, gradients, self._replaced(parameters))
        self._params.update(tree_flatten(stepped))
        for layer in self._layers.values():
            layer.hide_shadow()
            layer.zero_what_is_outside()

    def _changed(self, gradients: Tree, change: Callable[[SparseLayer, mx.array], mx.array]) -> Tree:
        """The gradients, with those of the sparse layers changed."""
        layers = {layer.layer.name: layer for layer in self._layers.values()}

        def changed(path: str, gradient: mx.array) -> mx.array:
            return change(layers[path], gradient.reshape(-1)).reshape(gradient.shape) if path in layers else gradient

        return tree_map_with_path(changed, gradients)

    def _replaced(self, parameters: Tree) -> Tree:
        """The parameters as they are after a step, or in the middle of one."""
        return tree_map_with_path(lambda path, param: self._params.get(path, param), parameters)

    def _mask(self, position: int) -> mx.array:
        layer = self.plan.layers[position]
        mask = self._layers[position].mask if position in self._layers else mx.ones(layer.size, mx.bool_)
        return self._copy(mask).reshape(layer.shape)

    _array = _copy = staticmethod(mx.array)  # a copy, since users can write to MLX's arrays

    def _may_use_threads(self) -> bool:
        return False


def _all_finite(arrays: Arrays) -> bool:
    return all(mx.isfinite(array).all().item() for array in arrays.values())

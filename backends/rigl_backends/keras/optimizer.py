"""A sparse training as Keras sees it, on JAX and on PyTorch: an optimizer around the user's own."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from rigl_backends.keras.framework import framework
from rigl_backends.keras.layer import SparseLayer
from rigl_backends.keras.state import PerWeight, check_offered, check_optimizer, per_weight_state
from rigl_backends.keras.training import SparseTraining
from rigl_backends.keras_common.described import Described
from rigl_backends.keras_common.layers import find_layers, named_as
from rigl_core.adapter import (
    Layer,
    Plan,
    check_pool,
    check_saved_recipe,
    first_masks,
    from_bytes,
    to_bytes,
    warn_about,
)


@keras.saving.register_keras_serializable(package="rigl_backends")
class SparseOptimizer(Described):
    """The optimizer that `sparsify` makes; used as any other of Keras.

    The weights become sparse when it is built: by `sparsify` if that is given the model, by
    ``build(model.trainable_variables)``, or by ``fit()``. Masks and step are variables, saved and restored with it.
    """

    def __init__(self, inner_optimizer: keras.optimizers.Optimizer, *args: Any, **options: Any) -> None:
        """Args are those of `rigl_backends.tf.SparseOptimizer`, without ``changed``."""
        super().__init__(inner_optimizer, *args, **options)
        self._training: SparseTraining | None = None

    @property
    def step(self) -> int:
        """The number of the coming optimizer step."""
        return int(ops.convert_to_numpy(self._iterations))

    def check_start(self, plan: Plan, variables: Sequence[Any]) -> list[int]:
        """Refuse what `build` would refuse, before anything changes; the positions of the layers' variables."""
        return find_layers(plan.layers, variables, self._positions)

    def build(self, variables: Sequence[Any]) -> None:
        """Make the masks and the optimizer's state, and zero the weights outside the initial topology.

        Args:
            variables: what the optimizer trains, such as ``model.trainable_variables``.

        Raises:
            TypeError, ValueError: naming the parameter; nothing has been changed then.
        """
        if self.built:
            return
        variables = list(variables)
        plan = self._make_plan(variables)
        positions = self.check_start(plan, variables)
        if not self.inner_optimizer.built:
            self.inner_optimizer.build(variables)
        state = per_weight_state(self.inner_optimizer, variables)
        super().build(variables)
        self._layers, self._positions = plan.layers, tuple(positions)
        deferred = self._add_array("", "deferred", np.zeros((), np.bool_))
        own = {i: (plan.layers[i], variables[positions[i]], state[positions[i]]) for i in plan.sparse_layers}
        layers = {i: self._make_layer(*layer) for i, layer in own.items()}
        self.__dict__["_plan"] = dataclasses.replace(
            plan, layers=named_as([variables[position] for position in positions], plan.layers)
        )
        self._training = SparseTraining(plan, layers, self._iterations, deferred, self.inner_optimizer)
        with framework.no_gradients():
            for i, mask in first_masks(plan, layers, {}).items():
                layers[i].start(layers[i].at_start(), mask)
        warn_about(plan)

    def _make_layer(self, layer: Layer, variable: keras.Variable, state: Sequence[PerWeight]) -> SparseLayer:
        return SparseLayer(layer, self.recipe, variable, state, functools.partial(self._add_array, f"{layer.name}_"))

    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None) -> None:
        """A gradient step, or the topology update that takes its place.

        Args:
            grads: the dense gradients; None for a variable that was not used.
            trainable_variables: their variables, by default those that the optimizer was built with.
        """
        grads = list(grads)
        if not grads:
            return
        if trainable_variables is None:
            self._built_training()
            trainable_variables = self._trainable_variables
        variables = list(trainable_variables)
        self.build(variables)
        training = self._built_training()
        self._check_variables_are_known(variables)
        with framework.no_gradients():
            training.apply(list(zip(grads, variables, strict=True)), [*self._trainable_variables, *self.variables])

    def finalize_variable_values(self, var_list: Sequence[Any]) -> None:
        """At the end of ``fit()``: tell weights outside the masks, and zero them."""
        if any(variable._value is None for variable in var_list):
            return  # a step of JAX has failed, and Keras is about to raise its error
        self.inner_optimizer.finalize_variable_values(var_list)
        with framework.no_gradients():
            self._built_training().tell_outside()
            self._built_training().zero_what_is_outside()

    def save_own_variables(self, store: Any) -> None:
        """Save the variables, and the recipe."""
        if self.built:
            self._built_training().tell_outside()
        super().save_own_variables(store)
        store["recipe"] = to_bytes(self.recipe.to_dict())

    def load_own_variables(self, store: Mapping[str, Any]) -> None:
        """Restore what Keras saved.

        Raises:
            ValueError: if it is of another recipe, layers or optimizer; nothing has been changed then.
        """
        training, variables = self._built_training(), self.variables
        if "recipe" not in store.keys():  # noqa: SIM118 (Keras's stores have nothing else)
            raise ValueError("state holds no recipe: it was saved by an optimizer that was not sparsified.")
        saved = from_bytes(np.asarray(store["recipe"][...], np.uint8))
        check_saved_recipe(training.plan, {key: value for key, value in saved.items() if key != "active"})
        values = [store[str(i)][...] for i in range(len(store.keys()) - 1)]
        shapes = [tuple(value.shape) for value in values]
        if shapes != [tuple(variable.shape) for variable in variables]:
            raise ValueError(
                f"state holds {len(values)} variables, which are not of the shapes of the optimizer's "
                f"{len(variables)}: make it as the one that was saved."
            )
        saved_as = {id(variable): value for variable, value in zip(variables, values, strict=True)}
        for pool in training.plan.pools:
            check_pool(training.plan, pool, [saved_as[id(training.layers[i].mask_variable)] for i in pool])
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)

    def _make_plan(self, variables: Sequence[Any]) -> Plan:
        check_optimizer(self.inner_optimizer)
        check_offered(self.recipe)
        return super()._make_plan(variables)

    def _built_training(self) -> SparseTraining:
        if self._training is None:
            raise ValueError("optimizer is not built: call build(model.trainable_variables), or train one step.")
        return self._training

"""A sparse training as Keras sees it: an optimizer around the user's own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Self

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from rigl_backends.tf.clock import TracedClock
from rigl_backends.tf.layers import choose_layers, find_layers
from rigl_backends.tf.outer import OuterOptimizer, single_optimizers
from rigl_backends.tf.parts import registered_parts
from rigl_backends.tf.sparse_layer import SparseLayer
from rigl_backends.tf.start import start
from rigl_backends.tf.state import per_weight_state
from rigl_backends.tf.training import SparseTraining
from rigl_core.model.layers import Layer
from rigl_core.model.table import SparsityTable
from rigl_core.plan import Plan, make_plan
from rigl_core.recipe import Recipe
from rigl_core.step import errors
from rigl_core.step.checkpoint import check_pool


@keras.saving.register_keras_serializable(package="rigl_backends")
class SparseOptimizer(OuterOptimizer):
    """The optimizer that `sparsify` makes; used as any other of Keras.

    The weights become sparse when it is built: by `sparsify` if that is given the model, by
    ``build(model.trainable_variables)``, by ``fit()`` before its first step, or else by the first
    ``apply()``. In a loop of your own and in an eager ``fit()`` the last comes after a dense forward pass,
    so build it before. Masks and step are variables, saved and restored with the optimizer.

    Args:
        inner_optimizer: makes the gradient steps.
        recipe: how to train sparsely.
        layers: the layers to sparsify; by default those of `rigl_backends.tf.layers.choose_layers`.
        positions: where they are among the variables; by default found by name. A loaded model's paths are
            not always those it was saved under, but the order of its variables is.
        include: name patterns of variables to sparsify besides the default ones.
        exclude: name patterns of variables to leave alone, outside every count.
        scores: arrays by layer name, for recipes that ask for them. They are no part of the configuration.
        name: the optimizer's name.
    """

    def __init__(
        self,
        inner_optimizer: keras.optimizers.Optimizer,
        recipe: Recipe,
        *,
        layers: Sequence[Layer] | None = None,
        positions: Sequence[int] | None = None,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        scores: Mapping[str, Any] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(inner_optimizer, name)
        self.recipe = recipe
        self._layers = None if layers is None else tuple(layers)
        self._positions = None if positions is None else tuple(positions)
        self._include = tuple(include)
        self._exclude = tuple(exclude)
        self.__dict__["_scores"] = scores  # an attribute would be wrapped by Keras, and saved
        self._awaits_state = False
        self._training: SparseTraining | None = None

    @property
    def plan(self) -> Plan:
        """The exact counts."""
        return self._built_training().plan

    @property
    def masks(self) -> dict[str, npt.NDArray[np.bool_]]:
        """Copies of the masks, by layer name, in the layers' shapes."""
        sparse = self._built_training().layers
        return {
            layer.name: sparse[i].mask.numpy().copy() if i in sparse else np.ones(layer.shape, np.bool_)
            for i, layer in enumerate(self.plan.layers)
        }

    @property
    def step(self) -> int:
        """The number of the coming optimizer step."""
        return int(self._iterations.numpy())

    @property
    def table(self) -> SparsityTable:
        """Density, active and zero weights of each layer."""
        active = tuple(int(np.count_nonzero(mask)) for mask in self.masks.values())
        return SparsityTable(self.plan.layers, active)

    def build(self, variables: Sequence[Any]) -> None:
        """Make the masks and the optimizer's state, and zero the weights outside the initial topology.

        Args:
            variables: what the optimizer trains, such as ``model.trainable_variables``.

        Raises:
            TypeError, ValueError: naming the parameter; nothing has been changed then.
        """
        if self.built:
            return
        with tf.init_scope():  # the first call may be traced, and the weights must change once
            variables = list(variables)
            self._check_replicas()
            given = self._layers
            layers = choose_layers(variables, self._include, self._exclude) if given is None else given
            plan = make_plan(self.recipe, layers)
            of_layers = find_layers(plan.layers, variables, self._positions)
            self._check_start(plan)
            self.inner_optimizer.build(variables)
            super().build(variables)
            self._layers = plan.layers
            self._positions = tuple(self._get_variable_index(variable) for variable in of_layers)
            self._add_training(plan, of_layers)

    @tf.autograph.experimental.do_not_convert  # type: ignore[untyped-decorator]
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
        self._check_variables_are_known(variables)
        if self._awaits_state:
            raise ValueError(
                "optimizer was made from its configuration, which holds no scores: load its state before it trains "
                "(model.load_weights), or call sparsify with scores."
            )
        self._built_training().apply(list(zip(grads, variables, strict=True)))

    def finalize_variable_values(self, var_list: Sequence[Any]) -> None:
        """Let the inner optimizer set the final weights (a moving average, say), and keep them sparse."""
        self.inner_optimizer.finalize_variable_values(var_list)
        self._built_training().project()

    def load_own_variables(self, store: Mapping[str, Any]) -> None:
        """Restore what Keras saved.

        Raises:
            ValueError: if it is of another recipe, layers or optimizer; nothing has been changed then.
        """
        training, plan = self._built_training(), self.plan
        if len(store.keys()) != len(self.variables):
            raise ValueError(
                f"state holds {len(store.keys())} variables, and the optimizer has {len(self.variables)}: "
                "make it as the one that was saved."
            )
        index = {id(variable): str(i) for i, variable in enumerate(self._variables)}
        for pool in plan.pools:
            check_pool(plan, pool, [store[index[id(training.layers[i].mask)]][...] for i in pool])
        super().load_own_variables(store)
        self._awaits_state = False

    def get_config(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "name": self.name,
            "inner_optimizer": keras.saving.serialize_keras_object(self.inner_optimizer),
            "recipe": self.recipe.to_dict(),
            "layers": None if self._layers is None else [dataclasses.asdict(layer) for layer in self._layers],
            "positions": None if self._positions is None else list(self._positions),
            "include": list(self._include),
            "exclude": list(self._exclude),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> Self:
        """The optimizer that `get_config` described, on the same layers.

        Parts of your own in the recipe, such as criteria, are found as Keras finds any custom object: by their name
        or kind, in ``custom_objects``, a scope of them, or among what is registered.
        """
        values = dict(config)
        values["inner_optimizer"] = keras.saving.deserialize_keras_object(values["inner_optimizer"], custom_objects)
        values["recipe"] = Recipe.from_dict(values["recipe"], registered_parts(values["recipe"], custom_objects))
        if values["layers"] is not None:
            values["layers"] = [Layer(**layer) for layer in values["layers"]]
        made = cls(**values)
        made._awaits_state = made.recipe.initial.reads_scores
        return made

    def _check_start(self, plan: Plan) -> None:
        if sum(plan.initial_active) == sum(layer.size for layer in plan.layers):
            self._awaits_state = False  # there is nothing to choose
        if not self._awaits_state:
            errors.check_scores(plan, self.__dict__["_scores"])
        if "shadow" in plan.recipe.memories and any(one.use_ema for one in single_optimizers(self.inner_optimizer)):
            raise ValueError(
                "optimizer averages weights (use_ema), and with this recipe those outside the mask learn too: the "
                "average would be dense. Leave use_ema out, or take a recipe without shadow."
            )

    def _check_replicas(self) -> None:
        if self._distribution_strategy.num_replicas_in_sync > 1:
            raise ValueError("optimizer runs on several replicas, whose topologies would differ: use one device.")

    def _add_training(self, plan: Plan, variables: Sequence[Any]) -> None:
        """Make the masks and memories, for the variables of the plan's layers, and what works with them."""
        state = per_weight_state(self.inner_optimizer, self._trainable_variables)
        deferred = self._add_array("deferred", tf.constant(False))
        starts = start(plan, variables, self.__dict__.pop("_scores"))
        layers = {}
        for i in plan.sparse_layers:
            # A checkpoint that was restored before gives the variables their values here, in place of the initial ones.
            layer, variable = plan.layers[i], variables[i]
            mask = self._add_array(f"{layer.name}_mask", tf.reshape(starts[i].mask, layer.shape))
            memory = {kind: self._add_array(f"{layer.name}_{kind}", own) for kind, own in starts[i].memory.items()}
            own_state = state[self._get_variable_index(variable)]
            layers[i] = SparseLayer(layer, plan.recipe, variable, mask, memory, own_state)
        clock = TracedClock(plan.recipe.schedule, self._iterations, deferred)
        self._training = SparseTraining(plan, layers, clock, self.inner_optimizer)
        self._training.project()

    def _add_array(self, name: str, values: tf.Tensor) -> keras.Variable:
        name = name.replace("/", "_")
        return self.add_variable(values.shape, lambda shape, dtype: values, dtype=values.dtype.name, name=name)

    def _built_training(self) -> SparseTraining:
        if self._training is None:
            raise ValueError("optimizer is not built: call build(model.trainable_variables), or train one step.")
        return self._training

"""A sparse training as Keras sees it: an optimizer around the user's own."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, Self

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from rigl_backends.tf.layer import SparseLayer
from rigl_backends.tf.layers import choose_layers, find_layers
from rigl_backends.tf.parts import registered_parts
from rigl_backends.tf.state import of_inner_optimizer, single_optimizers, state_of
from rigl_backends.tf.training import SparseTraining
from rigl_core.adapter import Axes, Layer, Plan, Recipe, SparsityTable, check_pool, errors, make_plan


@keras.saving.register_keras_serializable(package="rigl_backends")
class SparseOptimizer(keras.optimizers.Optimizer):  # type: ignore[misc]
    """The optimizer that `sparsify` makes; used as any other of Keras.

    The weights become sparse when it is built: by `sparsify` if that is given the model, by
    ``build(model.trainable_variables)``, by ``fit()`` before its first step, or else by the first
    ``apply()``. In a loop of your own and in an eager ``fit()`` the last comes after a dense forward pass,
    so build it before. Masks and step are variables, saved and restored with the optimizer.

    Args:
        inner_optimizer: makes the gradient steps.
        recipe: how to train sparsely.
        layers: the layers to sparsify; by default those of `rigl_backends.tf.choose_layers`.
        positions: where they are among the variables; by default found by name. A loaded model's paths are
            not always those it was saved under, but the order of its variables is.
        include: name patterns of variables to sparsify besides the default ones.
        exclude: name patterns of variables to leave alone, outside every count.
        axes: in and out axes by name pattern.
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
        axes: Axes | None = None,
        scores: Mapping[str, Any] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(learning_rate=0.0, name=name)
        self.inner_optimizer = inner_optimizer
        self.recipe = recipe
        self._layers = None if layers is None else tuple(layers)
        self._positions = None if positions is None else tuple(positions)
        self._include, self._exclude = tuple(include), tuple(exclude)
        self.__dict__.update(_axes=axes, _scores=scores)  # Keras would wrap attributes, and save them
        self._awaits_state = False
        self._training: SparseTraining | None = None

    iterations = of_inner_optimizer("iterations")  # it stands still while a topology moves
    learning_rate = of_inner_optimizer("learning_rate")
    loss_scale_factor = of_inner_optimizer("loss_scale_factor")
    scale_loss = of_inner_optimizer("scale_loss")
    exclude_from_weight_decay = of_inner_optimizer("exclude_from_weight_decay")
    # Keras's SwapEMAWeights looks for it in what a LossScaleOptimizer holds.
    _model_variables_moving_average = of_inner_optimizer("_model_variables_moving_average")

    @property
    def variables(self) -> list[keras.Variable]:
        """Its own, such as masks, and the inner optimizer's."""
        return [*self._variables, *self.inner_optimizer.variables]

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Set all `variables`."""
        for variable, weight in zip(self.variables, weights, strict=True):
            variable.assign(weight)

    @property
    def plan(self) -> Plan:
        """The exact counts."""
        return self._built_training().plan

    @property
    def masks(self) -> dict[str, npt.NDArray[np.bool_]]:
        """Copies of the masks, by layer name, in the layers' shapes."""
        masks = {layer.name: np.ones(layer.shape, np.bool_) for layer in self.plan.layers}
        for layer in self._built_training().layers.values():
            masks[layer.layer.name][...] = layer.shaped(layer.mask).numpy()
        return masks

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
            given, axes = self._layers, self.__dict__["_axes"]
            layers = choose_layers(variables, self._include, self._exclude, axes) if given is None else given
            plan = make_plan(self.recipe, layers)
            of_layers = find_layers(plan.layers, variables, self._positions)
            self._check_start(plan)
            self.inner_optimizer.build(variables)
            super().build(variables)
            self._layers = plan.layers
            self._positions = tuple(self._get_variable_index(variable) for variable in of_layers)
            self._start(plan, of_layers)

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
        self._built_training().zero_what_was_written()

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
            check_pool(plan, pool, [store[index[id(training.layers[i].mask_variable)]][...] for i in pool])
        super().load_own_variables(store)
        self._awaits_state = False

    def get_config(self) -> dict[str, Any]:
        """Plain data."""
        axes = self.__dict__["_axes"]
        return {
            "name": self.name,
            "inner_optimizer": keras.saving.serialize_keras_object(self.inner_optimizer),
            "recipe": self.recipe.to_dict(),
            "layers": None if self._layers is None else [dataclasses.asdict(layer) for layer in self._layers],
            "positions": None if self._positions is None else list(self._positions),
            "include": list(self._include),
            "exclude": list(self._exclude),
            "axes": axes and {pattern: [list(own) for own in pair] for pattern, pair in axes.items()},
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
        if plan.recipe.rule.shadow and any(one.use_ema for one in single_optimizers(self.inner_optimizer)):
            raise ValueError(
                "optimizer averages weights (use_ema), and with this recipe those outside the mask learn too: the "
                "average would be dense. Leave use_ema out, or take a recipe without shadow."
            )

    def _check_replicas(self) -> None:
        if self._distribution_strategy.num_replicas_in_sync > 1:
            raise ValueError("optimizer runs on several replicas, whose topologies would differ: use one device.")

    def _start(self, plan: Plan, variables: Sequence[Any]) -> None:
        """Make the training, and its variables, on the variables of the plan's layers."""
        state = state_of(self.inner_optimizer, self._trainable_variables)
        deferred = self._add_array("", "deferred", tf.constant(False))
        layers = {}
        for i in plan.sparse_layers:
            layer, own_state = plan.layers[i], state[self._get_variable_index(variables[i])]
            add = functools.partial(self._add_array, f"{layer.name}_")
            layers[i] = SparseLayer(layer, plan.recipe, variables[i], own_state, add)
        self._training = SparseTraining(plan, layers, self._iterations, deferred, self.inner_optimizer)
        self._training.start(self.__dict__.pop("_scores"))

    def _add_array(self, prefix: str, kind: str, values: tf.Tensor) -> keras.Variable:
        name = f"{prefix}{kind}".replace("/", "_")
        return self.add_variable(values.shape, lambda shape, dtype: values, dtype=values.dtype.name, name=name)

    def _built_training(self) -> SparseTraining:
        if self._training is None:
            raise ValueError("optimizer is not built: call build(model.trainable_variables), or train one step.")
        return self._training

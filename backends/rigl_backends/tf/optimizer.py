"""A sparse training as Keras sees it: an optimizer around the user's own."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from rigl_backends.keras_common.described import Described
from rigl_backends.keras_common.layers import find_layers, named_as
from rigl_backends.tf.replicas import ReplicatedTraining
from rigl_backends.tf.saving import SavedRecipe
from rigl_backends.tf.state import PerWeight, check_averages, per_weight_state
from rigl_backends.tf.storage import check_counts, layers_in
from rigl_backends.tf.strategies import across_replicas, replicas_of, strategy_of, where_variables_are_made
from rigl_backends.tf.training import SparseTraining
from rigl_core.adapter import Axes, Layer, Plan, Recipe, errors, refit, warn_about


@keras.saving.register_keras_serializable(package="rigl_backends")
class SparseOptimizer(Described):
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
        stacked: axes along which layers are stacked, by name pattern.
        fused: parts that are fused along an axis, by name pattern.
        scores: arrays by layer name, for recipes that ask for them. They are no part of the configuration.
        changed: fields of the recipe that may differ from the recipe of a state that is loaded; see `sparsify`.
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
        stacked: Mapping[str, Any] | None = None,
        fused: Mapping[str, Any] | None = None,
        scores: Mapping[str, Any] | None = None,
        changed: Collection[str] = (),
        name: str | None = None,
    ) -> None:
        choice: dict[str, Any] = {"include": include, "exclude": exclude, "axes": axes, "scores": scores, "name": name}
        choice |= {"stacked": stacked, "fused": fused}
        super().__init__(inner_optimizer, recipe, layers=layers, positions=positions, **choice)
        self.__dict__["_kept"] = None
        self._saved_recipe = SavedRecipe(recipe, changed, self._tell_outside)
        self._training: SparseTraining | None = None

    def check_start(self, plan: Plan, variables: Sequence[Any]) -> list[int]:
        """Refuse what `build` would refuse, before anything changes; the positions of the layers' variables."""
        strategy_of([self, self.inner_optimizer], variables)
        errors.check_scores(plan, self.__dict__["_scores"])
        check_averages(self.inner_optimizer, plan.recipe)
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
        with where_variables_are_made(strategy_of([self, self.inner_optimizer], variables)):
            plan = self._make_plan(variables)
            positions = find_layers(plan.layers, variables, self._positions)
            of_layers = [variables[position] for position in positions]
            check_counts(plan, of_layers)
            active = [i for i, variable in enumerate(of_layers) if hasattr(variable, "link")]
            self._saved_recipe.belongs_to(plan, active)
            if not self.inner_optimizer.built:
                self.inner_optimizer.build(variables)
            state = per_weight_state(self.inner_optimizer, variables, [positions[i] for i in plan.sparse_layers])
            super().build(variables)
            self._layers, self._positions = plan.layers, tuple(positions)
            self._start(plan, variables, state)
            warn_about(plan)

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
        across_replicas(lambda: self.build(variables))
        training = self._built_training()
        self._check_variables_are_known(variables)
        if self._awaits_state:
            raise ValueError(
                "optimizer was made from its configuration, which holds no scores: load its state before it trains "
                "(model.load_weights), or call sparsify with scores."
            )
        training.apply(list(zip(grads, variables, strict=True)))

    def finalize_variable_values(self, var_list: Sequence[Any]) -> None:
        """Let the inner optimizer set the final weights (a moving average, say), and keep them sparse."""
        self._tell_outside()
        self.inner_optimizer.finalize_variable_values(var_list)
        self._built_training().zero_what_was_written()

    def save_own_variables(self, store: Any) -> None:
        """Save the variables, and the recipe."""
        if self.built:
            self._built_training()
        super().save_own_variables(store)
        self._saved_recipe.write(store)

    def load_own_variables(self, store: Mapping[str, Any]) -> None:
        """Restore what Keras saved.

        Raises:
            ValueError: if it is of another recipe, storage, layers or optimizer; nothing has been changed then.
        """
        masks = {i: layer.mask_variable for i, layer in self._built_training().masked.items()}
        self._saved_recipe.check(store, self.variables, masks)
        for i, variable in enumerate(self.variables):
            variable.assign(store[str(i)])
        self._awaits_state = False

    def _make_plan(self, variables: Sequence[Any]) -> Plan:
        plan = super()._make_plan(variables)
        check_averages(self.inner_optimizer, plan.recipe)
        return plan

    def _start(self, plan: Plan, variables: Sequence[Any], state: Mapping[int, Sequence[PerWeight]]) -> None:
        """Make the training, and its variables; ``state`` is for each weight of the variables, by their positions."""
        assert self._positions is not None
        of_layers = [variables[position] for position in self._positions]
        held = [state.get(position, ()) for position in self._positions]
        deferred = self._add_array("", "deferred", tf.constant(False))
        layers = layers_in(plan, of_layers, held, self._add_array)
        # A loaded model may have other names. Random choices keep those that it was sparsified with.
        self.__dict__["_plan"] = dataclasses.replace(plan, layers=named_as(of_layers, plan.layers))
        names = [layer.name for layer in self.__dict__["_plan"].layers]
        training = ReplicatedTraining if replicas_of(variables[0]) > 1 else SparseTraining
        self._training = training(plan, layers, names, self._iterations, deferred, self.inner_optimizer)
        self._training.start(self.__dict__.pop("_scores"), self.__dict__.pop("_kept"))

    def _tell_outside(self) -> None:
        if self._training is not None and tf.executing_eagerly():  # which a SavedModel is not written in
            self._training.tell_outside()

    def _built_training(self) -> SparseTraining:
        if self._training is None:
            raise ValueError(
                "optimizer is not built: call build(model.trainable_variables), or train one step. After "
                "rigl_backends.tf.resume, use the optimizer that it returned."
            )
        if self._saved_recipe.refits:
            self._saved_recipe.refits = False
            with tf.init_scope():  # a step may be traced
                refit(self._training.plan, self._training.layers, self.step)
        return self._training

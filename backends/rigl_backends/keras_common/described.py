"""A sparse optimizer's description: what to train, and how; it goes into a model's configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Self

import keras
import numpy as np
import numpy.typing as npt

from rigl_backends.keras_common.layers import layers_of, others_among
from rigl_backends.keras_common.wrapper import Wrapper
from rigl_core.adapter import (
    Axes,
    Fused,
    Layer,
    Plan,
    Recipe,
    SparsityTable,
    Stacked,
    errors,
    make_plan,
    tell_of_waste_in,
)


class Described(Wrapper):
    """An optimizer that trains sparsely, as far as no framework is involved. Args are for `sparsify`'s optimizers."""

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
        stacked: Stacked | None = None,
        fused: Fused | None = None,
        scores: Mapping[str, Any] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(inner_optimizer, name)
        self.recipe = recipe
        self._layers = None if layers is None else tuple(layers)
        self._positions = None if positions is None else tuple(positions)
        self._include, self._exclude = tuple(include), tuple(exclude)
        # Keras would wrap attributes, and save them.
        self.__dict__.update(_axes=(axes, stacked, fused), _scores=scores, _others=None)
        self._awaits_state = False

    @property
    def plan(self) -> Plan:
        """The exact counts."""
        self._built_training()
        own: Plan = self.__dict__["_plan"]
        return own

    @property
    def masks(self) -> dict[str, npt.NDArray[np.bool_]]:
        """Copies of the masks, by layer name, in the layers' shapes. Like `table`, it warns of weights outside them."""
        training, layers = self._built_training(), self.plan.layers
        training.tell_outside()
        masks = {layer.name: np.ones(layer.shape, np.bool_) for layer in layers}
        for i, layer in training.layers.items():
            masks[layers[i].name][...] = keras.ops.convert_to_numpy(layer.mask).reshape(layer.layer.shape)
        return masks

    @property
    def table(self) -> SparsityTable:
        """Density, active and zero weights of each layer.

        After updates it warns, once, if many outputs of the layers have no active connection.
        """
        masks, layers = self.masks, self.plan.layers
        if self.step and not self.__dict__.get("_told_waste"):
            self.__dict__["_told_waste"] = tell_of_waste_in(self.plan, masks)
        return SparsityTable(layers, tuple(int(np.count_nonzero(mask)) for mask in masks.values()))

    def _built_training(self) -> Any:
        """The framework's steps of the training.

        Raises:
            ValueError: if the optimizer is not built.
        """
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """Plain data."""
        axes, stacked, fused = self.__dict__["_axes"]
        return {
            "name": self.name,
            "inner_optimizer": keras.saving.serialize_keras_object(self.inner_optimizer),
            "recipe": self.recipe.to_dict(),
            "layers": None if self._layers is None else [dataclasses.asdict(layer) for layer in self._layers],
            "positions": None if self._positions is None else list(self._positions),
            "include": list(self._include),
            "exclude": list(self._exclude),
            "axes": axes and {pattern: [list(own) for own in pair] for pattern, pair in axes.items()},
            "stacked": stacked and dict(stacked),
            "fused": fused and dict(fused),
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

    def _make_plan(self, variables: Sequence[Any]) -> Plan:
        layers, others = self._layers, self.__dict__["_others"]
        if layers is None:
            layers = layers_of(variables, None, self._include, self._exclude, *self.__dict__["_axes"])
            others = others_among(variables, layers)
        plan = make_plan(self.recipe, layers, others)
        if sum(plan.initial_active) == sum(layer.size for layer in plan.layers):
            self._awaits_state = False  # there is nothing to choose
        if not self._awaits_state:
            errors.check_scores(plan, self.__dict__["_scores"])
        return plan


def registered_parts(recipe: Mapping[str, Any], custom_objects: Mapping[str, Any] | None) -> list[Any]:
    """The custom objects that a recipe's plain data names.

    Args:
        recipe: as `rigl_core.Recipe.to_dict` gives it.
        custom_objects: by the name of a criterion or of the function that makes it, or by the kind of another part.
            Keras then looks in a ``keras.saving.custom_object_scope``, and among what is registered.
    """
    found = []
    for value in recipe.values():
        name = value.get("name", value.get("kind")) if isinstance(value, Mapping) else value
        if isinstance(name, str) and name:
            part = keras.saving.get_registered_object(name, custom_objects)
            # A function that makes criteria goes by its own name.
            if name in [getattr(part, attribute, None) for attribute in ("kind", "name", "__name__")]:
                found.append(part)
    return found

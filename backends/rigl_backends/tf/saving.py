"""What is saved with a training: its recipe, with parts of the user's own; and the state that the best weights had."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from rigl_core.adapter import Plan, Recipe, check_changed, check_pool, check_saved_recipe, from_bytes, to_bytes

_ACTIVE = "active"
"""The key, among the fields of a saved recipe, of the positions of layers that hold active weights."""


class SavedRecipe(tf.train.experimental.PythonState):  # type: ignore[misc]
    """A recipe in what Keras and `tf.train.Checkpoint` save; it refuses to restore what was saved under another one.

    Attributes:
        refits: whether masks were restored that the present recipe may have other counts for.
    """

    def __init__(self, recipe: Recipe, changed: Collection[str], tell: Callable[[], None]) -> None:
        """Args are for `SparseOptimizer`.

        Args:
            recipe: the recipe.
            changed: its fields that may differ from those of a saved recipe.
            tell: called before anything is saved.
        """
        check_changed(changed)
        self._recipe, self._changed, self._tell = recipe, tuple(changed), tell
        self._plan: Plan | None = None
        self._active: Sequence[int] = ()
        self._restored: Any = None
        self._restored_active: Sequence[int] = ()
        self.refits = False

    def belongs_to(self, plan: Plan, active: Sequence[int]) -> None:
        """Refuse what does not fit this plan from now on, and what was restored before.

        Args:
            plan: the plan.
            active: the positions of its layers that hold active weights.
        """
        self._check(plan, active)
        self._plan, self._active = plan, tuple(active)

    def serialize(self) -> bytes:
        """The recipe as it is saved, and which layers hold active weights."""
        self._tell()
        return to_bytes({**self._recipe.to_dict(), _ACTIVE: list(self._active)}).tobytes()

    def deserialize(self, saved: bytes) -> None:
        """Take a saved recipe. TensorFlow calls it before it restores any variable."""
        self._restored = dict(from_bytes(np.frombuffer(saved, np.uint8)))
        self._restored_active = self._restored.pop(_ACTIVE, ())
        if self._plan is not None:
            self._check(self._plan, self._active)

    def _check(self, plan: Plan, active: Sequence[int]) -> None:
        if self._restored is not None:
            check_saved_recipe(plan, self._restored, self._changed)
            _check_storage(plan, self._restored_active, active)
            self.refits = bool(self._changed)

    def write(self, store: Any) -> None:
        """Put the recipe into a store of Keras."""
        store["recipe"] = np.frombuffer(self.serialize(), np.uint8)

    def check(self, store: Mapping[str, Any], variables: Sequence[Any], masks: Mapping[int, Any]) -> None:
        """Refuse what Keras saved of another recipe, other layers or another optimizer.

        Args:
            store: values of the variables by their numbers, and the recipe.
            variables: what is to be restored.
            masks: those among them that are masks, by the positions of their layers; others hold active weights.

        Raises:
            ValueError: the message names the difference.
        """
        assert self._plan is not None
        if "recipe" not in store.keys():  # noqa: SIM118 (Keras's stores have nothing else)
            raise ValueError("state holds no recipe: it was saved by an optimizer that was not sparsified.")
        self.deserialize(np.asarray(store["recipe"][...], np.uint8).tobytes())
        saved, own = len(store.keys()) - 1, len(variables)
        if saved != own:
            raise ValueError(
                f"state holds {saved} variables, and the optimizer has {own}: make it as the one that was saved."
            )
        number = {id(variable): str(i) for i, variable in enumerate(variables)}
        for variable in variables:
            if (shape := tuple(store[number[id(variable)]].shape)) != tuple(variable.shape):
                raise ValueError(f"state has the shape {shape} for {variable.path!r}: it must be {variable.shape}.")
        pools = [pool for pool in self._plan.pools if pool[0] in masks]
        for pool in pools:
            saved_masks = [store[number[id(masks[i])]][...] for i in pool]
            check_pool(self._plan, pool, saved_masks, counted=not self._changed)


def _check_storage(plan: Plan, saved: Sequence[int], active: Sequence[int]) -> None:
    """Refuse a state whose active layers, given by their positions, are others than now."""
    others = {"active": set(saved) - set(active), "masks": set(active) - set(saved)}
    for word, positions in others.items():
        if positions:
            name = plan.layers[min(positions)].name
            raise ValueError(
                f"state was saved with storage={word!r} for {name!r}, which has another one now: load it with the "
                "storage that it was saved with, and call rigl_backends.tf.resume, which changes the storage."
            )


class EarlyStopping(keras.callbacks.EarlyStopping):  # type: ignore[misc]
    """`keras.callbacks.EarlyStopping`, which restores the masks, the step and the optimizer's state too.

    With ``restore_best_weights=True``, Keras's own callback brings back weights of an earlier topology, and leaves
    the masks as they are. Use this one in its place; it takes the same arguments. The training can then go on from the
    best epoch as if later epochs had not been.
    """

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Keep the optimizer's variables whenever Keras keeps the weights."""
        before = self.best_weights
        super().on_epoch_end(epoch, logs)
        if self.best_weights is not before:
            self._best_state = [variable.numpy() for variable in self.model.optimizer.variables]

    def on_train_end(self, logs: Any = None) -> None:
        """Restore both."""
        super().on_train_end(logs)
        if self.restore_best_weights and self.best_weights is not None:
            for variable, value in zip(self.model.optimizer.variables, self._best_state, strict=True):
                variable.assign(value)

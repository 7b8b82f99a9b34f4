"""A topology in the logs of `fit`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from rigl_backends.tf.optimizer import SparseOptimizer
from rigl_core.adapter import errors, ever_active, scalars, tell_of_waste_in


class TopologyLog(keras.callbacks.Callback):  # type: ignore[misc]
    """Adds the topology to the logs of each epoch, for all callbacks that come after it::

        callbacks = [TopologyLog(), keras.callbacks.CSVLogger("log.csv"), keras.callbacks.TensorBoard("logs")]
        model.fit(x, y, callbacks=callbacks)

    The names are those of `rigl_core.inspect.scalars`: ``density``; ``moved``, the share of the active connections that
    were not active before the epoch (churn); ``R_s``, the share of the connections that were active before or after any
    epoch so far.

    Also ``empty``, the share of the layers' outputs that have no active connection; a `rigl_core.SparsityWarning`
    tells once of many.

    Args:
        by_layer: whether to add the numbers of each layer, too.
        chain: names of layers that read each other's outputs in this order, and nothing else; if given, the logs also
            have ``on_no_path``, the share of their active connections on no path.
    """

    def __init__(self, by_layer: bool = False, chain: Sequence[str] = ()) -> None:
        super().__init__()
        self._by_layer, self._chain = by_layer, tuple(chain)
        self._told = False
        self._before: Mapping[str, Any] = {}
        self._ever: Mapping[str, Any] = {}

    def on_train_begin(self, logs: Any = None) -> None:
        """Look at the topology before the first epoch.

        Raises:
            TypeError: if the model's optimizer was not sparsified.
        """
        optimizer = self.model.optimizer
        sparse = _sparse(optimizer)
        if not optimizer.built:  # fit() would do it before its first step
            optimizer.build(self.model.trainable_variables)
        self._before = sparse.masks
        self._ever = ever_active(self._ever or self._before, self._before)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Compare it with that of the epoch before."""
        sparse = _sparse(self.model.optimizer)
        masks, layers = sparse.masks, sparse.plan.layers
        self._ever = ever_active(self._ever, masks)
        values = scalars(masks, before=self._before, ever=self._ever, layers=layers, chain=self._chain)
        self._told = self._told or tell_of_waste_in(sparse.plan, masks)
        self._before = masks
        if logs is not None:
            logs.update((name, value) for name, value in values.items() if self._by_layer or "/" not in name)


def _sparse(optimizer: Any) -> SparseOptimizer:
    """The sparse optimizer, which a `keras.optimizers.LossScaleOptimizer` may hold."""
    inner = getattr(optimizer, "inner_optimizer", None)
    found = optimizer if isinstance(optimizer, SparseOptimizer) else inner
    if not isinstance(found, SparseOptimizer):
        raise errors.wrong_type("optimizer", optimizer, "SparseOptimizer, as sparsify makes it")
    return found

"""Weights that somebody wrote outside the masks: they are counted, and told (contract: P4)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import tensorflow as tf

from rigl_backends.tf.layer import SparseLayer
from rigl_core.adapter import SparsityWarning, errors


class Outside:
    """Tells what lies outside the masks of some layers.

    A compiled step cannot warn. So the first one after a look counts, and every one with an update does. The next look
    tells what they found.
    """

    def __init__(self, layers: Mapping[str, SparseLayer]) -> None:
        """``layers`` are by the names that users know."""
        self._layers = layers
        self._is_due = tf.Variable(True, trainable=False)

    def count(self, *, now: tf.Tensor) -> None:
        """Before a compiled step: count, if it is the first one after a look, or if this is to be ``now``."""
        tf.cond(self._is_due | now, self._count, lambda: None)
        self._is_due.assign(False)

    def tell(self) -> bool:
        """Warn of the weights that lie outside, or did so when a step counted; and say whether there are any."""
        self._count()
        self._is_due.assign(True)
        counts = {name: int(layer.found_outside.numpy()) for name, layer in self._layers.items()}
        for layer in self._layers.values():
            layer.found_outside.assign(0)
        if found := any(counts.values()):
            warnings.warn(errors.weights_outside(counts), SparsityWarning, stacklevel=3)
        return found

    def _count(self) -> None:
        for layer in self._layers.values():
            layer.count_outside()

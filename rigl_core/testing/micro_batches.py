"""Gradients of micro-batches, for harnesses of libraries whose users take the mean themselves."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from rigl_core.testing.harness import Array

Gradients = Mapping[str, "Array | None"]


class MicroBatches:
    """Takes the gradients of ``count`` micro-batches, and gives their mean with the last one."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._parts: list[Gradients] = []

    def add(self, gradients: Gradients) -> Gradients | None:
        """The mean gradients if these are the last ones of a step, else None."""
        if self.count == 1:
            return gradients
        self._parts.append(gradients)
        if len(self._parts) < self.count:
            return None
        parts, self._parts = self._parts, []
        return {name: mean_of([part[name] for part in parts]) for name in gradients}


def mean_of(parts: list[Array | None]) -> Array | None:
    """The mean of a parameter's gradients, of which a missing one counts as 0; None if all are missing."""
    known = [part for part in parts if part is not None]
    return np.asarray(sum(known) / len(parts), known[0].dtype) if known else None

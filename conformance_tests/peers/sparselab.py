"""sparselab 0.2.2, used as its README says: `SparseLinear` layers, ``optimizer.step()``, then ``algorithm.step()``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from conformance_tests.peers.pytorch import PeerHarness, PeerSession, to_numpy
from conformance_tests.peers.recipes import first_after_every, method_of
from rigl_core import Constant, Layer, Recipe, Uniform
from rigl_core.testing import Array, Mask, NotOffered, Setup

FOREVER = 1000
"""An end that no training of the suite reaches."""


class SparseLabSession(PeerSession):
    def __init__(self, setup: Setup) -> None:
        if setup.dtype != "float32":
            raise NotOffered("other dtypes than float32")
        super().__init__(setup)

    def make_model(self) -> nn.Module:
        """A SparseLinear for each layer, with the suite's weights where it has connections; the rest is PyTorch's."""
        import sparselab

        model, rest = nn.Module(), nn.ParameterDict()
        for name, value in self.setup.params.items():
            if name in self._layers():
                out, into = value.shape
                linear = sparselab.SparseLinear(into, out, bias=False, sparsity=self.setup.recipe.sparsity)
                model.add_module(name.rpartition(".")[0], linear)
                self._fill(linear, value)
            else:
                rest[name.replace(".", "_")] = nn.Parameter(self.tensor(value))
        model.rest = rest
        return model

    def sparsify(self) -> None:
        import sparselab

        recipe = self.setup.recipe
        if recipe.schedule is None:
            self.algorithm = sparselab.Static(recipe.sparsity)
        else:
            assert isinstance(recipe.drop_fraction, Constant)
            make = {"RigL": sparselab.RigL, "SET": sparselab.SET}[method_of(recipe, "RigL", "SET")]
            self.algorithm = make(recipe.sparsity, recipe.drop_fraction.alpha, recipe.schedule.every, seed=recipe.seed)
        self.model.apply(self.algorithm)

    def advance(self) -> None:
        self.optimizer.step()
        self.algorithm.step()

    def loss(self, gradients: Mapping[str, Tensor]) -> Tensor:
        """A layer without a gradient is not run; the identity as input makes the weights the output."""
        terms = []
        for name, gradient in gradients.items():
            if name in self._layers():
                if not gradient.isfinite().all():
                    raise NotOffered("NaN in the gradient of one connection: its layers take products of whole rows")
                terms.append((self._linear(name)(torch.eye(gradient.shape[1])) * gradient.T).sum())
            else:
                terms.append((self.stored(name) * gradient).sum())
        return torch.stack(terms).sum()

    def _layers(self) -> set[str]:
        return {layer.name for layer in self.setup.layers}

    def _linear(self, name: str) -> Any:
        return self.model.get_submodule(name.rpartition(".")[0])

    def _places(self, linear: Any) -> tuple[Array, Array, Array]:
        """The row, the column and the slot of every connection."""
        csr = linear._csr
        rows = np.repeat(np.arange(csr.nrows), csr.row_nnz)
        slots = np.concatenate([start + np.arange(n) for start, n in zip(csr.row_start, csr.row_nnz, strict=True)])
        return rows, np.asarray(csr.col_indices)[slots], slots

    def _fill(self, linear: Any, weight: Array) -> None:
        rows, columns, slots = self._places(linear)
        linear._values.detach()[slots] = torch.tensor(weight[rows, columns])

    def _dense(self, name: str, values: Array) -> Array:
        linear = self._linear(name)
        rows, columns, slots = self._places(linear)
        dense = np.zeros((linear.out_features, linear.in_features), values.dtype)
        dense[rows, columns] = values[slots]
        return dense

    def weights(self) -> dict[str, Array]:
        stored = {name: to_numpy(self.stored(name)) for name in self.setup.params}
        return {name: self._dense(name, x) if name in self._layers() else x for name, x in stored.items()}

    def stored(self, name: str) -> nn.Parameter:
        held: nn.Parameter = (
            self._linear(name)._values if name in self._layers() else self.model.rest[name.replace(".", "_")]
        )
        return held

    def state_of(self, name: str) -> list[Array]:
        state = super().state_of(name)
        return [self._dense(name, values) for values in state] if name in self._layers() else state

    def write(self, weights: Mapping[str, Array]) -> None:
        """There is no place for a weight without a connection."""
        for name, weight in weights.items():
            if name in self._layers():
                self._fill(self._linear(name), weight)
            else:
                self.stored(name).detach().copy_(self.tensor(weight))

    def masks(self) -> dict[str, Mask]:
        return {name: self._dense(name, np.ones(len(self.stored(name)), bool)) for name in self._layers()}

    def steps(self) -> int:
        return int(self.algorithm._step_idx)

    def kept(self) -> Any:
        return None  # its README saves the standard state_dict

    def restore(self, kept: Any) -> None:
        pass


class SparseLabHarness(PeerHarness):
    """It has Static, and RigL and SET with a constant drop fraction and without an end, for Linear layers."""

    name = "sparselab"
    given_weights = False
    dtypes = ("float32",)
    session = SparseLabSession

    def offered(self, recipe: Recipe, layers: tuple[Layer, ...]) -> Recipe:
        method_of(recipe, "RigL", "SET", "Static")
        if any(len(layer.shape) != 2 for layer in layers):
            raise NotOffered("layers other than Linear")
        recipe = first_after_every(recipe)
        endless = None if recipe.schedule is None else replace(recipe.schedule, end=FOREVER)
        alpha = getattr(recipe.drop_fraction, "alpha", 0.3)
        return replace(recipe, schedule=endless, distribution=Uniform(first_dense=False), drop_fraction=Constant(alpha))

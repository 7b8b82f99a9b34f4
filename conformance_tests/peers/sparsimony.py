"""sparsimony 0.1.0, used as its repository's example does: ``optimizer.step()``, then ``sparsifier.step()``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor, nn

from conformance_tests.peers.pytorch import PeerHarness, PeerSession
from conformance_tests.peers.recipes import first_after_every, method_of
from rigl_core import Constant, Cosine, ErdosRenyiKernel, Layer, Recipe, Uniform
from rigl_core.testing import Mask


class SparsimonySession(PeerSession):
    def sparsify(self) -> None:
        from sparsimony.distributions.base import ERKDistribution, UniformDistribution
        from sparsimony.dst.rigl import RigL
        from sparsimony.dst.set import SET
        from sparsimony.schedulers.base import ConstantScheduler, CosineDecayScheduler

        recipe = self.setup.recipe
        assert recipe.schedule is not None
        assert isinstance(recipe.drop_fraction, Cosine | Constant)
        decay = CosineDecayScheduler if isinstance(recipe.drop_fraction, Cosine) else ConstantScheduler
        uniform = isinstance(recipe.distribution, Uniform)
        self.sparsifier = {"RigL": RigL, "SET": SET}[method_of(recipe, "RigL", "SET")](
            scheduler=decay(recipe.drop_fraction.alpha, recipe.schedule.end, recipe.schedule.every),
            distribution=UniformDistribution() if uniform else ERKDistribution(),
            optimizer=self.optimizer,
            sparsity=recipe.sparsity,
        )
        self.sparsifier.prepare(self.model, [{"tensor_fqn": layer.name} for layer in self.setup.layers])

    def advance(self) -> None:
        self.optimizer.step()
        self.sparsifier.step()

    def stored(self, name: str) -> nn.Parameter:
        parent, _, own_name = name.rpartition(".")
        is_layer = any(layer.name == name for layer in self.setup.layers)
        return self.model.get_parameter(f"{parent}.parametrizations.{own_name}.original" if is_layer else name)

    def masks(self) -> dict[str, Mask]:
        return {layer.name: np.array(self._mask(layer.name).bool()) for layer in self.setup.layers}

    def _mask(self, name: str) -> Tensor:
        parent, _, own_name = name.rpartition(".")
        return self.model.get_buffer(f"{parent}.parametrizations.{own_name}.0.mask")

    def steps(self) -> int:
        return int(self.sparsifier._step_count)

    def kept(self) -> Any:
        return self.sparsifier.state_dict()

    def restore(self, kept: Any) -> None:
        self.sparsifier.load_state_dict(kept)


class SparsimonyHarness(PeerHarness):
    """It has RigL and SET, cosine and constant drop fractions, ERK and uniform distributions without a dense layer."""

    name = "sparsimony"
    session = SparsimonySession

    def offered(self, recipe: Recipe, layers: tuple[Layer, ...]) -> Recipe:
        method_of(recipe, "RigL", "SET")
        erk = isinstance(recipe.distribution, ErdosRenyiKernel)
        recipe = replace(recipe, distribution=recipe.distribution if erk else Uniform(first_dense=False))
        if not isinstance(recipe.drop_fraction, Constant):
            recipe = replace(recipe, drop_fraction=Cosine(getattr(recipe.drop_fraction, "alpha", 0.3)))
        return first_after_every(recipe)

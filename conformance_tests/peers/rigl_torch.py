"""rigl-torch 0.5.2, used as its README says: a `RigLScheduler`, and ``if pruner(): optimizer.step()``."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from conformance_tests.harnesses.torch_optimizers import make_optimizer
from conformance_tests.peers.pytorch import PeerHarness, PeerSession
from conformance_tests.peers.recipes import WHEN, first_after_every, method_of
from rigl_core import Cosine, Layer, Recipe, Uniform
from rigl_core.testing import Mask, NotOffered


def stand_in_for_torchvision() -> None:
    """Let rigl-torch be imported without torchvision, which it only asks whether a module is a block of ResNet."""
    module = ModuleType("torchvision")
    blocks = SimpleNamespace(Bottleneck=type("Bottleneck", (), {}), BasicBlock=type("BasicBlock", (), {}))
    module.models = SimpleNamespace(resnet=blocks)  # type: ignore[attr-defined]
    sys.modules.setdefault("torchvision", module)


class RigLTorchSession(PeerSession):
    def sparsify(self) -> None:
        self.pruner = self._scheduler(None)

    def _scheduler(self, state_dict: dict[str, Any] | None) -> Any:
        stand_in_for_torchvision()
        from rigl_torch.RigL import RigLScheduler

        recipe = self.setup.recipe
        schedule = recipe.schedule or replace(WHEN, every=2)
        assert isinstance(recipe.drop_fraction, Cosine)
        assert recipe.sparsity is not None
        return RigLScheduler(
            self.model,
            self.optimizer,
            dense_allocation=1 - recipe.sparsity,
            sparsity_distribution="uniform",
            T_end=schedule.end + 1,  # its steps count from 1
            delta=schedule.every,
            alpha=recipe.drop_fraction.alpha,
            ignore_linear_layers=False,
            static_topo=recipe.schedule is None,
            state_dict=state_dict,
        )

    def advance(self) -> None:
        if self.pruner():
            self.optimizer.step()

    def masks(self) -> dict[str, Mask]:
        pairs = zip(self.setup.layers, self.pruner.backward_masks, strict=True)
        return {x.name: np.ones(x.shape, bool) if mask is None else mask.numpy().copy() for x, mask in pairs}

    def steps(self) -> int:
        return int(self.pruner.step)

    def kept(self) -> Any:
        return self.pruner.state_dict()

    def load(self, saved: Any) -> None:
        # Its state goes into the scheduler's constructor, and a model has one scheduler: a new process, new objects.
        self.model = self.make_model()
        self.optimizer = make_optimizer(self.setup.optimizer, list(self.model.parameters()))
        super().load(saved)

    def restore(self, kept: Any) -> None:
        self.pruner = self._scheduler(kept)


class RigLTorchHarness(PeerHarness):
    """It has RigL with a cosine and a uniform distribution whose first layer is dense; ``delta`` is at least 2."""

    name = "rigl-torch"
    session = RigLTorchSession

    def offered(self, recipe: Recipe, layers: tuple[Layer, ...]) -> Recipe:
        method_of(recipe, "RigL", "Static")
        if not recipe.sparsity:
            raise NotOffered("a sparsity of 0 with masks")
        alpha = getattr(recipe.drop_fraction, "alpha", 0.3)
        recipe = first_after_every(recipe, least=2)
        return replace(recipe, distribution=Uniform(first_dense=len(layers) > 1), drop_fraction=Cosine(alpha))

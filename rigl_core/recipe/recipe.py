"""A recipe: everything that defines a sparse training, except the model.

distribution x initial topology x schedule x drop x grow x redistribution x sparsity over time, as one frozen value.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from rigl_core.arrays.memory import KINDS
from rigl_core.model.numbers import check_sparsity, decimal
from rigl_core.model.patterns import check_pattern_list
from rigl_core.parts.criteria import GRADIENT, MAGNITUDE, RANDOM, Criterion
from rigl_core.parts.distributions import Distribution, ErdosRenyiKernel, sparsity_pairs
from rigl_core.parts.drop_fractions import Cosine, DropFraction
from rigl_core.parts.grown import GrownWeights, Zeros
from rigl_core.parts.ramps import Ramp
from rigl_core.parts.schedules import UpdateSchedule
from rigl_core.parts.structures import Structure, Unstructured
from rigl_core.recipe import compatibility, serialization


@dataclass(frozen=True)
class Recipe:
    """How to train sparsely. Usually made by a method of `rigl_core.methods`, such as `RigL`.

    Attributes:
        method: the method's name, for people.
        sparsity: share of zero weights over all layers that share the budget, in [0, 1); None if the
            distribution fixes every layer itself.
        distribution: how the budget is shared among the layers.
        schedule: when the topology moves; None for never.
        drop_fraction: how much of it moves.
        drop: scores the active connections; the lowest are dropped.
        grow: scores the others; the highest are grown. None grows nothing: pruning.
        initial: scores all connections for the initial topology; the highest are active.
        ramp: how sparsity rises over the updates; None for the same sparsity from the first step to the last.
        scope: ``"layer"``: every layer keeps the number of its connections; ``"global"``: layers that share the
            budget are chosen from together, as if they were one.
        redistribution: how what was dropped is shared among these layers when it grows again: ``"survivors"``, in
            proportion to what is left in each (DSR: Mostafa & Wang 2019, algorithm 1); ``"mean_score"``, to the mean
            grow score of what was active in each (SNFS: Dettmers & Zettlemoyer 2019, section 3); None: as ``scope``.
        structure: which connections are chosen in groups.
        grown: what grown connections start with.
        regrown: ``"keep"``: what is dropped and grown again at once keeps its weight and optimizer state;
            ``"reset"``: it starts from 0 like all that grows.
        momentum: decay of the momentum of the dense gradient, for criteria that read it.
        shadow: weights outside the mask go on learning, from the dense gradient, unseen by the network (Wortsman et
            al. 2019; Guo et al. 2016); their optimizer state does too.
        l1: added to the gradient of active weights, times their sign, before the optimizer's step (Deep R).
        noise: standard deviation of noise added to it (Deep R).
        on_update: ``"replace"``: an update takes the place of that step's gradient step (RigL paper,
            Algorithm 1); ``"after"``: it follows the gradient step (SET as published).
        seed: of every random choice.
        dense: name patterns of layers kept dense, outside the budget.
        layer_sparsity: sparsity by name pattern (first match wins), outside the budget; a mapping is accepted.
        compensate: let the other layers make up for the pinned ones, so that all together meet ``sparsity``.

    Raises:
        TypeError, ValueError: naming the parameter, what was wrong and what to do.
    """

    sparsity: float | None = None
    method: str = "custom"
    distribution: Distribution = ErdosRenyiKernel()
    schedule: UpdateSchedule | None = None
    drop_fraction: DropFraction = Cosine()
    drop: Criterion = MAGNITUDE
    grow: Criterion | None = GRADIENT
    initial: Criterion = RANDOM
    ramp: Ramp | None = None
    scope: Literal["layer", "global"] = "layer"
    redistribution: Literal["survivors", "mean_score"] | None = None
    structure: Structure = Unstructured()
    grown: GrownWeights = Zeros()
    regrown: Literal["keep", "reset"] = "keep"
    momentum: float = 0.9
    shadow: bool = False
    l1: float = 0.0
    noise: float = 0.0
    on_update: Literal["replace", "after"] = "replace"
    seed: int = 0
    dense: Sequence[str] = ()
    layer_sparsity: Mapping[str, float] | tuple[tuple[str, float], ...] = ()
    compensate: bool = False

    def __post_init__(self) -> None:
        if self.sparsity is not None:
            object.__setattr__(self, "sparsity", check_sparsity(self.sparsity))
        object.__setattr__(self, "dense", check_pattern_list("dense", self.dense))
        object.__setattr__(self, "layer_sparsity", sparsity_pairs("layer_sparsity", self.layer_sparsity))
        for parameter, (expected, hint) in _PARTS.items():
            value = getattr(self, parameter)
            if value is not None or parameter not in _OPTIONAL:
                _check_type(parameter, value, expected, hint)
        for parameter, choices in _CHOICES.items():
            if getattr(self, parameter) not in choices:
                shown = " or ".join(map(repr, choices))
                raise ValueError(f"{parameter} is {getattr(self, parameter)!r}: use {shown}.")
        for parameter in ("momentum", "l1", "noise"):
            if decimal(getattr(self, parameter), parameter) < 0 or (parameter == "momentum" and self.momentum >= 1):
                limits = "in [0, 1)" if parameter == "momentum" else "at least 0"
                raise ValueError(f"{parameter} is {getattr(self, parameter)}: it must be {limits}.")
            object.__setattr__(self, parameter, float(decimal(getattr(self, parameter), parameter)))
        if isinstance(self.seed, bool) or not hasattr(self.seed, "__index__"):
            raise TypeError(f"seed is {self.seed!r}: it must be a whole number.")
        object.__setattr__(self, "seed", self.seed.__index__())
        compatibility.check_together(self)

    @staticmethod
    def check(recipe: object) -> None:
        """Refuse what is no recipe.

        Raises:
            TypeError: saying how to make one.
        """
        _check_type("recipe", recipe, Recipe, "a Recipe, such as rigl_core.RigL(0.9, schedule=...)")

    @property
    def memories(self) -> tuple[str, ...]:
        """What an adapter remembers of each connection (`rigl_core.arrays.memory`)."""
        if self.schedule is None:
            return ()
        needed = {
            "momentum": any(criterion.reads_momentum for criterion in self._moving),
            "sign": any(criterion.reads_sign for criterion in self._moving),
            "initial": "initial" in self.grown.reads,
            "shadow": self.shadow,
        }
        return tuple(kind for kind in KINDS if needed[kind])

    @property
    def reads_gradient(self) -> bool:
        """Whether an update looks at the gradient."""
        by_criterion = any(criterion.reads_gradient for criterion in self._moving)
        return self.schedule is not None and (by_criterion or "gradient" in self.grown.reads)

    @property
    def reads_dense_gradient(self) -> bool:
        """Whether an update looks at the gradient of inactive weights too."""
        grows = self.grow is not None and self.grow.reads_gradient
        return self.schedule is not None and (grows or "gradient" in self.grown.reads)

    @property
    def reads_every_gradient(self) -> bool:
        """Whether every step looks at the dense gradient."""
        return "momentum" in self.memories or "shadow" in self.memories

    @property
    def reads_random(self) -> bool:
        """Whether an update draws random scores."""
        draws = any(criterion.reads_random or criterion.reads_sign for criterion in self._moving)
        return self.schedule is not None and (draws or "indices" in self.grown.reads)

    @property
    def changes_gradient(self) -> bool:
        """Whether something is added to the gradient of active weights (`rigl_core.arrays.noise`)."""
        return self.schedule is not None and bool(self.l1 or self.noise)

    @property
    def grows_from_zero(self) -> bool:
        """Whether an update only zeroes weights: those that do not survive it."""
        return self.grown.kind == Zeros.kind and not self.shadow

    @property
    def _moving(self) -> tuple[Criterion, ...]:
        return (self.drop,) if self.grow is None else (self.drop, self.grow)

    def to_dict(self) -> dict[str, Any]:
        """Plain data: str, int, float, bool, None, lists and dicts."""
        return serialization.to_dict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], parts: Iterable[Any] = ()) -> Self:
        """The recipe that `to_dict` wrote; what is missing takes its default.

        Args:
            data: plain data.
            parts: your own `Criterion` objects or functions that make one of a number, and classes of your own
                distributions, drop fractions, ramps, structures and grown weights, which are found by their ``name``
                or ``kind``.

        Raises:
            ValueError: for an unknown key or an unknown part.
        """
        return cls(**serialization.from_dict(cls, data, parts))

    def to_json(self) -> str:
        """`to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_json(cls, text: str, parts: Iterable[Any] = ()) -> Self:
        """The recipe that `to_json` wrote; see `from_dict`."""
        return cls.from_dict(json.loads(text), parts)


_PARTS: Mapping[str, tuple[type, str]] = {
    "distribution": (Distribution, "a distribution, such as ErdosRenyiKernel()"),
    "drop_fraction": (DropFraction, "a decay, such as Cosine(alpha=0.3)"),
    "drop": (Criterion, "a Criterion, such as MAGNITUDE"),
    "grow": (Criterion, "a Criterion, such as GRADIENT, or None to grow nothing"),
    "initial": (Criterion, "a Criterion, such as RANDOM"),
    "schedule": (UpdateSchedule, "an UpdateSchedule, or None for a static topology"),
    "ramp": (Ramp, "a ramp, such as CubicRamp(), or None"),
    "structure": (Structure, "a structure, such as NM(2, 4)"),
    "grown": (GrownWeights, "grown weights, such as Zeros()"),
    "shadow": (bool, "True or False"),
    "compensate": (bool, "True or False"),
}
_OPTIONAL = ("grow", "schedule", "ramp")
_CHOICES: Mapping[str, tuple[str | None, ...]] = {
    "scope": ("layer", "global"),
    "redistribution": ("survivors", "mean_score", None),
    "regrown": ("keep", "reset"),
    "on_update": ("replace", "after"),
}


def _check_type(parameter: str, value: object, expected: type, hint: str) -> None:
    if not isinstance(value, expected) or isinstance(value, type):
        raise TypeError(f"{parameter} is {value!r}: it must be {hint}.")

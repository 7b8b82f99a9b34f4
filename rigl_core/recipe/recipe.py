"""A recipe: everything that defines a sparse training, except the model.

It combines a distribution, an initial topology, a schedule, drop and grow criteria, redistribution and the sparsity
over time in one frozen value.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Literal, Self

from rigl_core.model.numbers import check_integer, check_sparsity, decimal
from rigl_core.model.patterns import check_pattern_list
from rigl_core.parts.criteria import GRADIENT, MAGNITUDE, RANDOM, Criterion
from rigl_core.parts.distributions import Distribution, ErdosRenyiKernel, sparsity_pairs
from rigl_core.parts.drop_fractions import Cosine, DropFraction
from rigl_core.parts.grown import GrownWeights, Zeros
from rigl_core.parts.ramps import Ramp
from rigl_core.parts.schedules import UpdateSchedule
from rigl_core.parts.structures import Structure, Unstructured
from rigl_core.recipe import serialization
from rigl_core.recipe.compatibility import check_together
from rigl_core.recipe.rule import Rule


@dataclass(frozen=True)
class Recipe:
    """How to train sparsely. Usually made by a method of `rigl_core.methods`, such as `RigL`.

    Attributes:
        sparsity: share of zero weights over all layers that share the budget, in [0, 1); None if the
            distribution or the structure fixes the sparsity of every layer.
        method: the method's name, for people.
        distribution: how the budget is shared among the layers.
        schedule: when the topology moves; None for never.
        drop_fraction: the share of active connections that each update moves.
        drop: scores the active connections; those with the lowest scores are dropped.
        grow: scores the other connections; those with the highest scores are grown. None grows nothing: pruning.
        initial: scores all connections for the initial topology; those with the highest scores are active.
        ramp: how sparsity rises over the updates; None for the same sparsity from the first step to the last.
        scope: ``"layer"``: every layer chooses on its own and keeps its number of connections; ``"global"``: the
            layers that share the budget choose together, as if they were one layer.
        redistribution: how the layers that share the budget share the growth of an update. ``"survivors"``: in
            proportion to the connections that each layer keeps (DSR: Mostafa & Wang 2019, algorithm 1).
            ``"mean_score"``: in proportion to the mean grow score of each layer's active connections (SNFS:
            Dettmers & Zettlemoyer 2019, section 3). None: ``scope`` decides.
        structure: the groups or blocks in which connections are chosen.
        floor: the number of active connections that every output keeps, as long as the layer has that many; 0 for no
            such floor.
        gamma_sal: with constant fan-in, the share of its fan-in that an output must have in salient connections, in
            (0, 1] with at most four decimals: an update takes other outputs away (Lasby et al. 2024, section 3.1).
            None: all outputs stay.
        grown: the weights that grown connections start with.
        regrown: ``"keep"``: a connection that one update drops and grows again keeps its weight and optimizer
            state; ``"reset"``: both start from 0.
        momentum: decay of the momentum of the dense gradient, in [0, 1), for criteria that read the momentum.
        shadow: whether weights outside the mask go on learning from the dense gradient, while the network sees
            zeros in their place (Wortsman et al. 2019; Guo et al. 2016). The optimizer also keeps state for them.
        l1: strength of a pull towards 0: l1 * sign(weight) is added to the gradient of active weights before the
            optimizer's step (Deep R).
        noise: standard deviation of random noise that is added to the gradient of active weights (Deep R).
        on_update: ``"replace"``: an update takes the place of that step's gradient step (RigL paper,
            Algorithm 1); ``"after"``: an update follows the gradient step (SET as published).
        seed: seed of every random choice, any integer.
        dense: name patterns of layers to keep dense, outside the budget.
        layer_sparsity: sparsity by name pattern (first match wins), outside the budget; a mapping is accepted.
        compensate: whether the other layers make up for the layers outside the budget, so that all layers together
            have the given ``sparsity``.

    Raises:
        TypeError, ValueError: the message names the parameter, and says what is wrong and what to do.
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
    floor: int = 0
    gamma_sal: float | None = None
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
        object.__setattr__(self, "floor", check_integer("floor", self.floor, 0))
        if self.gamma_sal is not None:
            object.__setattr__(self, "gamma_sal", _check_gamma_sal(self.gamma_sal))
        if isinstance(self.seed, bool) or not hasattr(self.seed, "__index__"):
            raise TypeError(f"seed is {self.seed!r}: it must be a whole number.")
        object.__setattr__(self, "seed", self.seed.__index__())
        check_together(self.rule, self.schedule, self.ramp)

    @cached_property
    def rule(self) -> Rule:
        """The part of this recipe that a step reads."""
        parts = {field.name: getattr(self, field.name) for field in fields(Rule) if field.name != "moves"}
        return Rule(moves=self.schedule is not None, **parts)

    def to_dict(self) -> dict[str, Any]:
        """Plain data: str, int, float, bool, None, lists and dicts."""
        return serialization.to_data({field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], parts: Iterable[Any] = ()) -> Self:
        """The recipe that `to_dict` wrote; missing fields take their defaults.

        Configurations that name a method, and not its parts, are for `rigl_core.recipe_from_config`.

        Args:
            data: plain data.
            parts: your own parts, which are found by their ``name`` or ``kind``: `Criterion` objects, functions that
                make a criterion from a number, and classes of distributions, drop fractions, ramps, structures and
                grown weights.

        Raises:
            TypeError: for data of the wrong type.
            ValueError: for an unknown key or an unknown part, or a method without its criteria.
        """
        serialization.check_complete(data)
        return cls(**serialization.from_data(data, [field.name for field in fields(cls)], parts))

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


def _check_gamma_sal(value: object) -> float:
    share = decimal(value, "gamma_sal")
    if not 0 < share <= 1 or (10_000 * share).denominator != 1:
        raise ValueError(
            f"gamma_sal is {value}: it must be above 0 and at most 1, with at most four decimals; or None, to keep all "
            "outputs."
        )
    return float(share)


def check_recipe(recipe: object) -> None:
    """Refuse an object that is no recipe.

    Raises:
        TypeError: says how to make a recipe.
    """
    _check_type("recipe", recipe, Recipe, "a Recipe, such as rigl_core.RigL(0.9, schedule=...)")

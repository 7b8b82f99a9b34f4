"""A recipe: everything that defines a sparse training, except the model.

distribution x initial topology x schedule x drop fraction x drop x grow, as one frozen value.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, Self

from rigl_core import selection
from rigl_core.counts import check_sparsity
from rigl_core.criteria import CRITERIA, GRADIENT, MAGNITUDE, RANDOM, Connections, Criterion
from rigl_core.distributions import DISTRIBUTIONS, Distribution, ErdosRenyiKernel, sparsity_pairs
from rigl_core.drop_fractions import DROP_FRACTIONS, Cosine, DropFraction
from rigl_core.namespace import Array, Namespace
from rigl_core.patterns import check_pattern_list
from rigl_core.schedules import UpdateSchedule
from rigl_core.topology import top_k_mask, updated_mask


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
        grow: scores the others; the highest are grown.
        initial: scores all connections for the initial topology; the highest are active.
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
    grow: Criterion = GRADIENT
    initial: Criterion = RANDOM
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
        _check_type("distribution", self.distribution, Distribution, "a distribution, such as ErdosRenyiKernel()")
        _check_type("drop_fraction", self.drop_fraction, DropFraction, "a decay, such as Cosine(alpha=0.3)")
        for parameter in ("drop", "grow", "initial"):
            _check_type(parameter, getattr(self, parameter), Criterion, "a Criterion, such as MAGNITUDE")
        if self.schedule is not None:
            _check_type("schedule", self.schedule, UpdateSchedule, "an UpdateSchedule, or None for a static topology")
        if self.on_update not in ("replace", "after"):
            raise ValueError(f"on_update is {self.on_update!r}: use 'replace' or 'after'.")
        if isinstance(self.seed, bool) or not hasattr(self.seed, "__index__"):
            raise TypeError(f"seed is {self.seed!r}: it must be a whole number.")
        object.__setattr__(self, "seed", self.seed.__index__())
        _check_type("compensate", self.compensate, bool, "True or False")
        if self.initial.reads_gradient:
            raise ValueError(f"initial is {self.initial.name!r}, which reads the gradient: there is none at the start.")

    @staticmethod
    def check(recipe: object) -> None:
        """Refuse what is no recipe.

        Raises:
            TypeError: saying how to make one.
        """
        _check_type("recipe", recipe, Recipe, "a Recipe, such as rigl_core.RigL(0.9, schedule=...)")

    @property
    def reads_gradient(self) -> bool:
        """Whether an update looks at the dense gradient."""
        return self.schedule is not None and (self.drop.reads_gradient or self.grow.reads_gradient)

    @property
    def reads_random(self) -> bool:
        """Whether an update draws random scores."""
        return self.schedule is not None and (self.drop.reads_random or self.grow.reads_random)

    def initial_mask(self, connections: Connections, active: int, *, xp: Namespace) -> Array:
        """The flat initial mask of one layer, with ``active`` true."""
        return top_k_mask(self.initial.score(connections, xp), active, xp=xp)

    def updated_mask(
        self, connections: Connections, mask: Array, keep: Array | int, grow: Array | int, *, xp: Namespace
    ) -> Array:
        """The flat mask of one layer after an update that keeps ``keep`` connections and grows ``grow``.

        Where NumPy can work on the namespace's arrays (`rigl_core.namespace.HostNamespace`), it finds the same
        mask faster, by `rigl_core.selection`.
        """
        on_host = getattr(xp, "on_host", None)
        if on_host is not None:
            arrays = connections.arrays
            like = connections.with_arrays(range(len(arrays)))  # keeps no tracer alive
            moved = on_host(functools.partial(self._move_on_host, like), mask, keep, grow, *arrays)
            if moved is not None:
                return moved
        drop_scores = self.drop.score(connections.for_dropping, xp)
        return updated_mask(drop_scores, self.grow.score(connections, xp), mask, keep, grow, xp=xp)

    def _move_on_host(self, like: Connections, mask: Array, keep: Array, grow: Array, *arrays: Array) -> Array:
        """`updated_mask` in NumPy; ``arrays`` are the connections', of the same fields as ``like``."""
        connections = like.with_arrays(arrays)
        dropping, xp = connections.for_dropping, selection.scoring_namespace
        return selection.updated_mask(
            lambda part: self.drop.score(dropping[part], xp),
            lambda part: self.grow.score(connections[part], xp),
            mask,
            int(keep),
            int(grow),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data: str, int, float, bool, None, lists and dicts."""
        data = {field.name: getattr(self, field.name) for field in fields(self)}
        for parameter in ("distribution", "drop_fraction"):
            data[parameter] = _part_to_dict(data[parameter])
        for parameter in ("drop", "grow", "initial"):
            data[parameter] = data[parameter].name
        if self.schedule is not None:
            data["schedule"] = dataclasses.asdict(self.schedule)
        data["dense"] = list(self.dense)
        data["layer_sparsity"] = [list(pair) for pair in self.layer_sparsity]
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The recipe that `to_dict` wrote; what is missing takes its default.

        Raises:
            ValueError: for an unknown key or an unknown part.
        """
        values = dict(_check_keys("recipe", data, cls))
        for parameter, catalog in (("distribution", DISTRIBUTIONS), ("drop_fraction", DROP_FRACTIONS)):
            if parameter in values:
                values[parameter] = _part_from_dict(parameter, values[parameter], catalog)
        for parameter in ("drop", "grow", "initial"):
            if parameter in values:
                values[parameter] = _look_up(parameter, values[parameter], CRITERIA)
        if values.get("schedule") is not None:
            values["schedule"] = UpdateSchedule(**_check_keys("schedule", values["schedule"], UpdateSchedule))
        return cls(**values)

    def to_json(self) -> str:
        """`to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The recipe that `to_json` wrote."""
        return cls.from_dict(json.loads(text))


def _check_type(parameter: str, value: object, expected: type, hint: str) -> None:
    if not isinstance(value, expected) or isinstance(value, type):
        raise TypeError(f"{parameter} is {value!r}: it must be {hint}.")


def _check_keys(parameter: str, data: object, cls: type) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        raise TypeError(f"{parameter} is {data!r}: it must be a mapping.")
    known = [field.name for field in fields(cls)]
    for key in data:
        if key not in known:
            raise ValueError(f"{parameter} has the unknown key {key!r}: remove it; known are {', '.join(known)}.")
    return data


def _look_up(parameter: str, name: object, catalog: Mapping[str, Any]) -> Any:
    if not isinstance(name, str) or name not in catalog:
        raise ValueError(f"{parameter} names the unknown {name!r}: known are {', '.join(catalog)}.")
    return catalog[name]


def _part_to_dict(part: Any) -> dict[str, Any]:
    values = dataclasses.asdict(part) if dataclasses.is_dataclass(part) and not isinstance(part, type) else {}
    plain = {key: list(map(list, value)) if isinstance(value, tuple) else value for key, value in values.items()}
    return {"kind": part.kind, **plain}


def _part_from_dict(parameter: str, data: object, catalog: Mapping[str, type]) -> Any:
    if not isinstance(data, Mapping) or "kind" not in data:
        raise ValueError(f"{parameter} is {data!r}: it must be a mapping with the key 'kind'.")
    cls = _look_up(parameter, data["kind"], catalog)
    return cls(**_check_keys(parameter, {key: value for key, value in data.items() if key != "kind"}, cls))

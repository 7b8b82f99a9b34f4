"""What a library does not offer. A case that needs it is left out with a reason, and never counts as a failure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rigl_core.model.layers import Layer
from rigl_core.recipe import Recipe


class NotOffered(Exception):  # noqa: N818
    """A harness raises this where a case needs what its library does not have; the message says what and why.

    A property of which some cases are offered runs on these. One without any counts as not offered.
    """


ABILITIES: Mapping[str, str] = {
    "new arrays": "arrays that users can put in place of a parameter's own (`Session.replace`)",
    "steps past": "a step of another optimizer, which the training does not see (`Session.step_past`)",
    "adagrad": "the optimizer of that name, whose state for a new weight is not 0 (`OptimizerSpec.kind`)",
    "closures": "optimizers that evaluate the loss several times in one step (`OptimizerSpec.evaluations`)",
    "dense steps": "optimizers that have made steps before `sparsify`, and keep their state (`Setup.dense_steps`)",
    "samples": "layers that hold active weights alone, whose gradient comes from samples (`Session.step_samples`)",
    "micro-batches": "gradients of several calls, whose mean makes one optimizer step (`Setup.micro_batches`)",
    "given masks": "a start from masks that users bring, with as many connections as these have (`Setup.initial`)",
}
"""What the suite asks of some libraries only: the words for `Limits.has` and `Limits.lacks`, and what each means."""


class Limits:
    """What a library offers; a harness with limits to the recipes overrides `offered`.

    Attributes:
        has: the words in `ABILITIES` for what the library has, and the session does.
        lacks: the words for what it has not, each with the reason. What neither names is reported as not offered.
    """

    name: str
    has: Sequence[str] = ()
    lacks: Mapping[str, str] = {}

    def check_has(self, ability: str) -> None:
        """Raise `NotOffered`, with the reason, if the library lacks an ability."""
        if ability not in self.has:
            undeclared = f"{self.name} names {ability!r} neither in has nor in lacks: {ABILITIES[ability]}"
            raise NotOffered(self.lacks.get(ability, undeclared))

    def offered(self, recipe: Recipe, layers: tuple[Layer, ...], /) -> Recipe:
        """The recipe that the library offers in place of this one: itself, or one with other numbers or parts.

        A library whose first update comes after ``every`` steps returns the recipe with another schedule, for example.

        Raises:
            NotOffered: if nothing that it has comes near, such as for another method.
        """
        return recipe

    def check_offered(self, recipe: Any, layers: tuple[Layer, ...]) -> None:
        """Raise `NotOffered` for a recipe that `offered` would change."""
        if not isinstance(recipe, Recipe):
            return  # which the adapter has to refuse
        offered = self.offered(recipe, layers)
        if offered != recipe:
            changed = {name: value for name, value in vars(offered).items() if getattr(recipe, name) != value}
            raise NotOffered(f"{self.name} has only {', '.join(f'{name}={value}' for name, value in changed.items())}")


def fit(limits: Limits, case: Any) -> Any:
    """A training with the recipe that the library offers for it; any other case as it is."""
    recipe = getattr(case, "recipe", None)
    if recipe is None:
        return case
    offered = limits.offered(recipe, case.layers)
    if offered == recipe:
        return case
    later = offered.schedule.begin - recipe.schedule.begin if recipe.schedule and offered.schedule else 0
    return replace(case, recipe=offered, steps=case.steps + later)

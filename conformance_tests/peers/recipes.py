"""From the suite's recipes to those that a library has."""

from __future__ import annotations

from dataclasses import fields, replace

from rigl_core import Recipe, UpdateSchedule
from rigl_core.methods import SET, RigL, Static
from rigl_core.testing import NotOffered

WHEN = UpdateSchedule(end=1)
METHODS = {"RigL": RigL(0.5, schedule=WHEN), "SET": SET(0.5, schedule=WHEN), "Static": Static(0.5)}
FREE = ("method", "sparsity", "distribution", "schedule", "drop_fraction", "seed")
"""The fields in which a recipe may differ from that of its method; a library says more about them."""


def method_of(recipe: Recipe, *methods: str) -> str:
    """The method that the recipe describes, out of ``methods``; raises `NotOffered` if it is none of them."""
    if recipe.sparsity is None:
        raise NotOffered("layers of which each has a sparsity of its own")
    closest: tuple[list[str], str] | None = None
    for name in methods:
        plain = METHODS[name]
        own = [
            x.name for x in fields(Recipe) if x.name not in FREE and getattr(recipe, x.name) != getattr(plain, x.name)
        ]
        own += ["schedule"] * ((recipe.schedule is None) != (plain.schedule is None))
        if not own:
            return name
        closest = min(closest or (own, name), (own, name), key=lambda pair: len(pair[0]))
    assert closest is not None
    raise NotOffered(f"{recipe.method}: there is {closest[1]}, without {', '.join(closest[0])}")


def first_after_every(recipe: Recipe, *, least: int = 1) -> Recipe:
    """The recipe with ``every`` at least ``least``, and its first update in step number ``every``, counted from 1."""
    if recipe.schedule is None:
        return recipe
    every, first = max(recipe.schedule.every, least), recipe.schedule.begin
    begin = every - 1
    moved = UpdateSchedule(begin=begin, end=max(recipe.schedule.end - first, 1) + begin, every=every)
    return replace(recipe, schedule=moved)

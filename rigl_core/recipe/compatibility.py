"""Which parts of a recipe mean nothing together."""

from __future__ import annotations

from typing import Any

from rigl_core.parts.grown import Zeros
from rigl_core.parts.structures import Unstructured


def check_together(recipe: Any) -> None:
    """Refuse parts that mean nothing together.

    Raises:
        ValueError: naming one of them.
    """
    for parameter in ("initial", "drop", "grow"):
        criterion = getattr(recipe, parameter)
        if criterion is None:
            continue
        if parameter == "initial" and (criterion.reads_gradient or criterion.reads_momentum or criterion.reads_sign):
            raise ValueError(
                f"initial is {criterion.name!r}, which reads the gradient: there is none at the start. To choose by "
                "the first gradient, prune at step 0 (rigl_core.SNIP)."
            )
        if parameter != "initial" and criterion.reads_scores:
            raise ValueError(f"{parameter} is {criterion.name!r}, which are given once: only initial can be.")
    if recipe.redistribution is not None:
        _check_redistribution(recipe)
    structured = not isinstance(recipe.structure, Unstructured)
    if structured and recipe.scope == "global":
        raise ValueError("scope is 'global': with a structure every layer has its own number; use scope='layer'.")
    if structured and (recipe.drop.by_sign or recipe.drop.drops_zeros):
        raise ValueError(f"drop is {recipe.drop.name!r}, which decides on its own: it knows no structure.")
    if recipe.drop.drops_zeros and (recipe.scope == "global" or recipe.ramp is not None or recipe.grow is None):
        raise ValueError(
            f"drop is {recipe.drop.name!r}, which decides how many it drops: use scope='layer', no ramp, and a grow."
        )
    if recipe.drop.by_sign and recipe.scope == "global":
        raise ValueError(f"drop is {recipe.drop.name!r}: use scope='layer'.")
    if recipe.drop.reads_sign and recipe.regrown != "reset":
        raise ValueError(f"drop is {recipe.drop.name!r}, after which signs are drawn anew: use regrown='reset'.")
    alone = isinstance(recipe.grown, Zeros) and recipe.regrown == "keep"
    if recipe.shadow and (recipe.on_update != "after" or not alone):
        raise ValueError(
            "shadow is True: weights outside the mask learn at every step, and grow with what they learned; use "
            "on_update='after' and leave grown and regrown as they are."
        )
    if recipe.shadow and (recipe.l1 or recipe.noise):
        raise ValueError("l1 and noise change the gradient of active weights, and with shadow=True all of them learn.")
    if recipe.schedule is None:
        _check_static(recipe)
    elif recipe.ramp is not None and not recipe.schedule.updates:
        raise ValueError("ramp is given, and the schedule has no update, as end equals begin: raise end.")


def _check_static(recipe: Any) -> None:
    for parameter, given in (
        ("ramp", recipe.ramp is not None),
        ("redistribution", recipe.redistribution is not None),
        ("shadow", recipe.shadow),
        ("l1", recipe.l1),
        ("noise", recipe.noise),
    ):
        if given:
            raise ValueError(
                f"{parameter} is given without a schedule, and means nothing while the topology never moves: give a "
                "schedule, or leave it out."
            )


def _check_redistribution(recipe: Any) -> None:
    if recipe.grow is None:
        raise ValueError("redistribution shares what grows, and grow is None: leave one of them out.")
    if recipe.redistribution == "mean_score" and recipe.grow.reads_random:
        raise ValueError("redistribution is 'mean_score', and grow is random: use 'survivors', or another grow.")
    if not isinstance(recipe.structure, Unstructured):
        raise ValueError("redistribution moves single connections between layers: it knows no structure.")
    if recipe.ramp is not None and recipe.scope == "layer":
        raise ValueError("redistribution with a ramp needs the layers' common count: use scope='global'.")
    if recipe.drop.by_sign or recipe.drop.drops_zeros:
        raise ValueError(f"redistribution does not go with drop {recipe.drop.name!r}.")

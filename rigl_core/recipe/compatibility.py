"""Checks that the parts of a recipe fit together."""

from __future__ import annotations

from rigl_core.parts.criteria import Criterion
from rigl_core.parts.grown import Zeros
from rigl_core.parts.ramps import Ramp
from rigl_core.parts.schedules import UpdateSchedule
from rigl_core.parts.structures import ConstantFanIn, Unstructured
from rigl_core.recipe.rule import Rule


def check_together(rule: Rule, schedule: UpdateSchedule | None, ramp: Ramp | None) -> None:
    """Refuse parts that have no meaning together.

    Raises:
        ValueError: names one of the parts.
    """
    _check_criteria(rule)
    if rule.redistribution is not None:
        _check_redistribution(rule, ramp)
    if not isinstance(rule.structure, Unstructured):
        _check_structured(rule)
    if rule.floor:
        _check_floor(rule)
    if rule.gamma_sal is not None:
        _check_gamma_sal(rule, schedule, ramp)
    _check_drop(rule, ramp)
    if rule.shadow:
        _check_shadow(rule)
    if schedule is None:
        _check_static(rule, ramp)
    elif ramp is not None and not schedule.updates:
        raise ValueError("ramp is given, and the schedule has no update, as end equals begin: raise end.")


def _check_criteria(rule: Rule) -> None:
    initial, moving = rule.initial, {"drop": rule.drop, "grow": rule.grow}
    for parameter, criterion in {"initial": initial, "drop": rule.drop}.items():
        if criterion.compared_within is not None:
            raise ValueError(
                f"{parameter} is {criterion.name!r}, which compares scores within an {criterion.compared_within}: only "
                "grow can do that."
            )
    if initial.reads_gradient or initial.reads_momentum or initial.reads_sign:
        raise ValueError(
            f"initial is {initial.name!r}, which reads the gradient: there is none at the start. To choose by "
            "the first gradient, prune at step 0 (rigl_core.SNIP)."
        )
    for parameter, moves in moving.items():
        if moves is not None and moves.reads_scores:
            raise ValueError(
                f"{parameter} is {moves.name!r}, which are given once, before the first step: only initial can "
                "read them."
            )


def _check_redistribution(rule: Rule, ramp: Ramp | None) -> None:
    if rule.grow is None:
        raise ValueError("redistribution shares what grows, and grow is None: leave it out, or give a grow.")
    if rule.redistribution == "mean_score" and rule.grow.reads_random:
        raise ValueError("redistribution is 'mean_score', and grow is random: use 'survivors', or another grow.")
    if not isinstance(rule.structure, Unstructured):
        raise ValueError("redistribution moves single connections between layers: it needs structure=Unstructured().")
    if ramp is not None and rule.scope == "layer":
        raise ValueError("redistribution with a ramp needs the layers' common count: use scope='global'.")
    if decides_alone(rule.drop):
        raise ValueError(f"redistribution does not go with drop {rule.drop.name!r}: use another drop, or leave it out.")


def _check_floor(rule: Rule) -> None:
    for parameter, given, why in (
        (
            "structure",
            not isinstance(rule.structure, Unstructured),
            "says how many connections each group has: use structure=Unstructured()",
        ),
        ("scope", rule.scope == "global", "gives no layer a number of its own: use scope='layer'"),
        ("redistribution", rule.redistribution is not None, "moves connections between layers: leave it out"),
        ("drop", decides_alone(rule.drop), "decides how many it drops: use another drop"),
    ):
        if given:
            raise ValueError(f"floor is {rule.floor}, and {parameter} {why}, or leave floor out.")


def _check_gamma_sal(rule: Rule, schedule: UpdateSchedule | None, ramp: Ramp | None) -> None:
    by_gradient = rule.grow is not None and (rule.grow.reads_gradient or rule.grow.reads_momentum)
    for parameter, given, remedy in (
        ("structure", not isinstance(rule.structure, ConstantFanIn), "use structure=ConstantFanIn()"),
        ("schedule", schedule is None, "give a schedule"),
        ("grow", not by_gradient, "use a grow that reads gradients, whose best connections are salient"),
        ("ramp", ramp is not None, "leave it out"),
        ("shadow", rule.shadow, "leave it out"),
    ):
        if given:
            raise ValueError(f"gamma_sal is {rule.gamma_sal}, and {parameter} does not go with it: {remedy}.")


def _check_structured(rule: Rule) -> None:
    if rule.scope == "global":
        raise ValueError("scope is 'global': with a structure every layer has its own number; use scope='layer'.")
    if decides_alone(rule.drop):
        raise ValueError(
            f"drop is {rule.drop.name!r}, which chooses single connections, no structure: use another drop, or "
            "structure=Unstructured()."
        )


def _check_drop(rule: Rule, ramp: Ramp | None) -> None:
    drop = rule.drop
    if drop.drops_zeros and (rule.scope == "global" or ramp is not None or rule.grow is None):
        raise ValueError(
            f"drop is {drop.name!r}, which decides how many it drops: use scope='layer', no ramp, and a grow."
        )
    if drop.by_sign and rule.scope == "global":
        raise ValueError(f"drop is {drop.name!r}: use scope='layer'.")
    if drop.reads_sign and rule.regrown != "reset":
        raise ValueError(f"drop is {drop.name!r}, after which signs are drawn anew: use regrown='reset'.")


def _check_shadow(rule: Rule) -> None:
    alone = isinstance(rule.grown, Zeros) and rule.regrown == "keep"
    if rule.on_update != "after" or not alone:
        raise ValueError(
            "shadow is True: weights outside the mask learn at every step, and grow with what they learned; use "
            "on_update='after' and leave grown and regrown as they are."
        )
    if rule.l1 or rule.noise:
        raise ValueError(
            "l1 and noise change the gradient of active weights, and with shadow=True all weights learn: leave out "
            "l1 and noise, or shadow."
        )


def _check_static(rule: Rule, ramp: Ramp | None) -> None:
    for parameter, given in (
        ("ramp", ramp is not None),
        ("redistribution", rule.redistribution is not None),
        ("shadow", rule.shadow),
        ("l1", rule.l1),
        ("noise", rule.noise),
    ):
        if given:
            raise ValueError(
                f"{parameter} is given without a schedule, and means nothing while the topology never moves: give a "
                "schedule, or leave it out."
            )


def decides_alone(drop: Criterion) -> bool:
    """Whether a drop computes from the weights how many connections it keeps, or how many of each sign."""
    return drop.by_sign or drop.drops_zeros

"""Every method as a recipe: what it reads and remembers, and which parts cannot be combined."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import rigl_core as rigl
from rigl_core import methods
from rigl_core.parts.schedules import UpdateSchedule
from rigl_core.recipe import Recipe
from rigl_core.testing.checks import checks

SCHEDULE = UpdateSchedule(end=10, every=2)

FLAGS = {
    "gradient": "reads_gradient",
    "dense": "reads_dense_gradient",
    "every": "reads_every_gradient",
    "random": "reads_random",
    "added": "changes_gradient",
    "zeroing": "grows_from_zero",
}

TABLE: dict[str, tuple[Any, str, str]] = {
    # the function that makes the recipe, what an update does (names of FLAGS), what the method remembers
    "Static": (methods.Static(0.9), "zeroing", ""),
    "GraSP": (methods.GraSP(0.9), "zeroing", ""),
    "SynFlow": (methods.SynFlow(0.9), "zeroing", ""),
    "lottery ticket": (methods.LotteryTicket(0.9), "zeroing", ""),
    "SNIP": (methods.SNIP(0.9), "gradient zeroing", ""),
    "RigL": (methods.RigL(0.9, schedule=SCHEDULE), "gradient dense zeroing", ""),
    "RigL-ITOP": (methods.RigLITOP(0.9, schedule=SCHEDULE), "gradient dense zeroing", ""),
    "SRigL": (methods.SRigL(0.9, schedule=SCHEDULE), "gradient dense zeroing", ""),
    "SRigL as published": (methods.SRigLAsPublished(0.9, schedule=SCHEDULE), "gradient dense zeroing", ""),
    "SET": (methods.SET(0.9, schedule=SCHEDULE), "random zeroing", ""),
    "SET as published": (methods.SETAsPublished(0.9, schedule=SCHEDULE), "random zeroing", ""),
    "Deep R": (methods.DeepR(0.9, schedule=SCHEDULE), "random added zeroing", "sign"),
    "SNFS": (methods.SNFS(0.9, schedule=SCHEDULE), "every zeroing", "momentum"),
    "DSR": (methods.DSR(0.9, schedule=SCHEDULE), "random zeroing", ""),
    "MEST": (methods.MEST(0.9, schedule=SCHEDULE), "gradient random zeroing", ""),
    "gradual pruning": (methods.GradualPruning(0.9, schedule=SCHEDULE), "zeroing", ""),
    "one-shot pruning": (methods.OneShotPruning(0.9, at=3), "zeroing", ""),
    "DNW": (methods.DNW(0.9, schedule=SCHEDULE), "every", "shadow"),
    "DNS": (methods.DNS(0.9, schedule=SCHEDULE), "every", "shadow"),
}


@pytest.mark.parametrize("method", TABLE)
def test_what_each_method_reads_and_remembers(method: str) -> None:
    recipe, reads, memories = TABLE[method]
    assert recipe.method == method
    assert {flag for flag, name in FLAGS.items() if getattr(recipe.rule, name)} == set(reads.split())
    assert recipe.rule.memories == tuple(memories.split())


def test_the_table_has_every_method() -> None:
    made = {getattr(methods, name) for name in methods.__all__ if name != "Options"}
    assert len(made) == len(TABLE)


@pytest.mark.parametrize(
    ("options", "reads", "memories"),
    [
        ({"grown": rigl.InitialValues()}, "gradient dense", "initial"),
        ({"grown": rigl.SmallRandom()}, "gradient dense random", ""),
        ({"grown": rigl.GradientStep(), "grow": rigl.RANDOM}, "gradient dense random", ""),
        ({"drop": rigl.SALIENCY, "grow": rigl.RANDOM}, "gradient random zeroing", ""),
        ({"drop": rigl.RANDOM, "grow": rigl.MAGNITUDE}, "random zeroing", ""),
        ({"drop": rigl.MOMENTUM, "grow": None}, "every zeroing", "momentum"),
        ({"drop": rigl.SIGN, "grow": rigl.MOMENTUM, "regrown": "reset"}, "random every zeroing", "momentum sign"),
        ({"initial": rigl.RANDOM, "grow": None}, "zeroing", ""),
    ],
)
def test_what_parts_read_and_remember(options: dict[str, Any], reads: str, memories: str) -> None:
    recipe = methods.RigL(0.9, schedule=SCHEDULE, **options)
    assert {flag for flag, name in FLAGS.items() if getattr(recipe.rule, name)} == set(reads.split())
    assert recipe.rule.memories == tuple(memories.split())
    static = replace(recipe, schedule=None)
    assert static.rule.memories == ()
    assert [name for flag, name in FLAGS.items() if flag != "zeroing" and getattr(static.rule, name)] == []


def test_what_is_given_goes_before_the_methods_own() -> None:
    for make in (methods.RigL, methods.SET, methods.DSR, methods.GradualPruning, methods.SNIP, methods.MEST):
        recipe = make(0.9, schedule=SCHEDULE, drop=rigl.MOMENTUM, method="mine", on_update="replace", seed=3)
        assert (recipe.drop, recipe.method, recipe.on_update, recipe.seed) == (rigl.MOMENTUM, "mine", "replace", 3)


@checks("P3")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scope": "all"}, "scope is 'all': use 'layer' or 'global'"),
        ({"redistribution": "gradient"}, "redistribution is 'gradient': use 'survivors' or 'mean_score' or None"),
        ({"regrown": "zero"}, "regrown is 'zero': use 'keep' or 'reset'"),
        ({"floor": -1}, "floor is -1"),
        ({"floor": 1, "scope": "global"}, "floor is 1, and scope gives no layer a number of its own"),
        ({"floor": 1, "structure": rigl.NM(2, 4)}, "floor is 1, and structure says how many connections"),
        ({"floor": 1, "drop": rigl.MAGNITUDE_BY_SIGN}, "floor is 1, and drop decides how many it drops"),
        ({"drop": rigl.GRADIENT_BY_OUTPUT}, "drop is 'gradient_by_output', which compares scores within an output"),
        ({"initial": rigl.GRADIENT_BY_INPUT}, "initial is 'gradient_by_input', which compares scores within an input"),
        ({"momentum": 1}, r"momentum is 1: it must be in \[0, 1\)"),
        ({"momentum": -0.1}, r"momentum is -0.1: it must be in \[0, 1\)"),
        ({"momentum": "high"}, "momentum is 'high': it must be a number"),
        ({"l1": -1e-3}, "l1 is -0.001: it must be at least 0"),
        ({"noise": float("inf")}, "noise is inf: it must be finite"),
        ({"ramp": 0.5}, "ramp is 0.5: it must be a ramp, such as CubicRamp"),
        ({"ramp": rigl.CubicRamp}, "it must be a ramp, such as CubicRamp"),
        ({"structure": "2:4"}, r"structure is '2:4': it must be a structure, such as NM\(2, 4\)"),
        ({"grown": 0.0}, r"grown is 0.0: it must be grown weights, such as Zeros\(\)"),
        ({"shadow": 1}, "shadow is 1: it must be True or False"),
        (
            {"initial": rigl.SALIENCY},
            r"initial is 'saliency', which reads the gradient.*prune at step 0 \(rigl_core.SNIP",
        ),
        ({"initial": rigl.MOMENTUM}, "initial is 'momentum', which reads the gradient"),
        ({"initial": rigl.SIGN}, "initial is 'sign', which reads the gradient"),
        ({"drop": rigl.SCORES}, "drop is 'scores', which are given once, before the first step: only initial can"),
        ({"grow": rigl.SCORES}, "grow is 'scores', which are given once"),
        ({"scope": "global", "structure": rigl.NM(2, 4)}, "scope is 'global': with a structure .* use scope='layer'"),
        ({"drop": rigl.MAGNITUDE_BY_SIGN, "structure": rigl.Blocks()}, "drop is 'magnitude_by_sign', .* no structure"),
        ({"drop": rigl.MAGNITUDE_BY_SIGN, "scope": "global"}, "drop is 'magnitude_by_sign': use scope='layer'"),
        ({"drop": rigl.SIGN}, "drop is 'sign', .* use regrown='reset'"),
        ({"drop": rigl.SIGN, "regrown": "reset", "grow": None}, "drop is 'sign', .* no ramp, and a grow"),
        ({"drop": rigl.SIGN, "regrown": "reset", "scope": "global"}, "drop is 'sign', .* use scope='layer'"),
        ({"drop": rigl.SIGN, "regrown": "reset", "ramp": rigl.CubicRamp()}, "drop is 'sign', .* no ramp"),
        ({"shadow": True}, "shadow is True: .* on_update='after' and leave grown and regrown"),
        (
            {"shadow": True, "on_update": "after", "grown": rigl.SmallRandom()},
            "shadow is True: .* leave grown and regrown",
        ),
        ({"shadow": True, "on_update": "after", "regrown": "reset"}, "shadow is True: .* leave grown and regrown"),
        ({"shadow": True, "on_update": "after", "l1": 0.1}, "l1 and noise change the gradient of active weights, and"),
        ({"shadow": True, "on_update": "after", "noise": 0.1}, "l1 and noise change the gradient of active weights"),
        ({"redistribution": "survivors", "grow": None}, "redistribution shares what grows, and grow is None"),
        ({"redistribution": "mean_score", "grow": rigl.RANDOM}, "grow is random: use 'survivors', or another grow"),
        ({"redistribution": "survivors", "structure": rigl.NM()}, "redistribution moves single connections"),
        ({"redistribution": "survivors", "ramp": rigl.CubicRamp()}, "redistribution with a ramp .* scope='global'"),
        ({"redistribution": "survivors", "drop": rigl.MAGNITUDE_BY_SIGN}, "redistribution does not go with drop"),
        ({"ramp": rigl.CubicRamp(), "schedule": UpdateSchedule(3, begin=3)}, "ramp is given, and the schedule has no"),
    ],
)
def test_parts_that_mean_nothing_together_are_refused_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        Recipe(0.5, **{"schedule": SCHEDULE, **options})


@checks("P3")
@pytest.mark.parametrize(
    ("parameter", "value"),
    [("ramp", rigl.CubicRamp()), ("redistribution", "survivors"), ("shadow", True), ("l1", 0.1), ("noise", 0.1)],
)
def test_what_means_nothing_to_a_static_topology_is_refused(parameter: str, value: Any) -> None:
    Recipe(0.5, schedule=SCHEDULE, on_update="after", **{parameter: value})
    with pytest.raises(ValueError, match=f"^{parameter} is given without a schedule, .* give a schedule, or leave it"):
        Recipe(0.5, on_update="after", **{parameter: value})


@checks("P3")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: rigl.CubicRamp(initial=1), r"initial is 1: it must be in \[0, 1\)"),
        (lambda: rigl.CubicRamp(power=0), "power is 0: it must be positive"),
        (lambda: rigl.NM(5, 4), "n is 5: of 4 connections no more than 4 can be active"),
        (lambda: rigl.NM(0, 4), "n is 0: it must be at least 1"),
        (lambda: rigl.NM(2.0, 4), "n is 2.0: it must be a whole number"),  # type: ignore[arg-type]
        (lambda: rigl.Blocks(0), "size is 0: it must be at least 1"),
        (lambda: rigl.SmallRandom(0), "scale is 0: it must be positive"),
        (lambda: rigl.GradientStep(-0.1), "size is -0.1: it must be positive"),
        (lambda: rigl.magnitude_and_gradient(-1), "share is -1: it must be at least 0"),
        (lambda: methods.OneShotPruning(0.5, at=-1), "at is -1: it must be at least 0"),
    ],
)
def test_bad_parts_of_methods_are_refused_by_name(make: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        make()

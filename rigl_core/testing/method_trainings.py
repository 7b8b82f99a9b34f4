"""Short trainings by every method, with given gradients, on layers that every structure fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import strategies as st

from rigl_core import methods
from rigl_core.parts.criteria import GRADIENT, GRADIENT_BY_INPUT, GRADIENT_BY_OUTPUT
from rigl_core.parts.drop_fractions import Constant
from rigl_core.parts.grown import GradientStep, InitialValues, SmallRandom
from rigl_core.parts.ramps import CubicRamp
from rigl_core.parts.schedules import UpdateSchedule
from rigl_core.parts.structures import NM, Blocks
from rigl_core.recipe import Recipe
from rigl_core.testing.fixed import fixed_layers
from rigl_core.testing.harness import OptimizerSpec
from rigl_core.testing.strategies import ADAM, SGD, Training

HALF = Constant(0.5)
"""A large drop fraction: with few groups or blocks, a smaller one would move nothing."""
_SHAPES = ((8, 4), (4, 8), (4, 4, 2, 1))

STATIC: Mapping[str, Any] = {
    "static": lambda s, _: methods.Static(s),
    "scores": lambda s, _: methods.LotteryTicket(s),
    "scores by layer": lambda s, _: methods.SynFlow(s, scope="layer"),
    "static, a floor": lambda s, _: methods.Static(s, floor=1),
    "static 2:4": lambda s, _: methods.Static(structure=NM(2, 4)),
}
"""Methods whose topology never moves, as functions of a sparsity and a schedule."""

MOVING: Mapping[str, Any] = {
    "RigL": lambda s, when: methods.RigL(s, schedule=when),
    "RigL-ITOP": lambda s, when: methods.RigLITOP(s, schedule=when),
    "RigL 2:4": lambda s, when: methods.RigL(schedule=when, structure=NM(2, 4), drop_fraction=HALF),
    "RigL, blocks of 2": lambda s, when: methods.RigL(s, schedule=when, structure=Blocks(2), drop_fraction=HALF),
    "SRigL": lambda s, when: methods.SRigL(s, schedule=when, drop_fraction=HALF),
    "SRigL as published": lambda s, when: methods.SRigLAsPublished(s, schedule=when, drop_fraction=HALF, gamma_sal=0.6),
    "RigL by outputs": lambda s, when: methods.RigL(s, schedule=when, grow=GRADIENT_BY_OUTPUT),
    "RigL by inputs, a floor": lambda s, when: methods.RigL(s, schedule=when, grow=GRADIENT_BY_INPUT, floor=1),
    "SET, a floor": lambda s, when: methods.SET(s, schedule=when, drop_fraction=HALF, floor=2),
    "gradual pruning, a floor": lambda s, when: methods.GradualPruning(s, schedule=when, floor=1),
    "RigL, all layers": lambda s, when: methods.RigL(s, schedule=when, scope="global"),
    "RigL, on a ramp": lambda s, when: methods.RigL(s, schedule=when, ramp=CubicRamp(0.2)),
    "RigL, initial values": lambda s, when: methods.RigL(s, schedule=when, grown=InitialValues()),
    "RigL, small random": lambda s, when: methods.RigL(s, schedule=when, grown=SmallRandom(0.5), regrown="reset"),
    "RigL, gradient step": lambda s, when: methods.RigL(s, schedule=when, grown=GradientStep(0.25)),
    "RigL, redistribution": lambda s, when: replace(
        methods.RigL(s, schedule=when, scope="global"), redistribution="mean_score"
    ),
    "SET": lambda s, when: methods.SET(s, schedule=when),
    "SET, blocks of 2": lambda s, when: methods.SET(s, schedule=when, structure=Blocks(2), drop_fraction=HALF),
    "SET as published": lambda s, when: methods.SETAsPublished(s, schedule=when),
    "Deep R": lambda s, when: methods.DeepR(s, schedule=when, l1=4.0, noise=0.01),
    "SNFS": lambda s, when: methods.SNFS(s, schedule=when),
    "SNFS, no redistribution": lambda s, when: methods.SNFS(s, schedule=when, redistribution=None),
    "DSR": lambda _, when: methods.DSR(0.3, schedule=when, drop_fraction=Constant(0.9)),  # large, so that room runs out
    "MEST": lambda s, when: methods.MEST(s, schedule=when, share=0.3),
    "SNIP": lambda s, _: methods.SNIP(s),
    "SNIP by layer": lambda s, _: methods.SNIP(s, scope="layer"),
    "gradual pruning": lambda s, when: methods.GradualPruning(s, schedule=when),
    "gradual pruning, all layers": lambda s, when: methods.GradualPruning(s, schedule=when, scope="global"),
    "gradual pruning, 2:4": lambda s, when: methods.GradualPruning(schedule=when, structure=NM(2, 4)),
    "one-shot pruning": lambda s, when: methods.OneShotPruning(s, at=when.begin),
    "DNW": lambda s, when: methods.DNW(s, schedule=when),
    "DNS": lambda s, when: methods.DNS(s, schedule=when),
    "RigL's growth on shadows": lambda s, when: methods.DNW(s, schedule=when, grow=GRADIENT),
}
"""Methods whose topology moves."""

SHADOW = ("DNW", "DNS", "RigL's growth on shadows")
"""The methods in `MOVING` whose weights also learn outside the mask."""


@st.composite
def method_trainings(
    draw: st.DrawFn,
    names: Sequence[str] = (*MOVING, *STATIC),
    *,
    optimizers: Sequence[OptimizerSpec] = (SGD, ADAM),
    replaces: bool = False,
    silence: str | None = None,
) -> Training:
    """A training by any of these methods.

    Args:
        draw: given by Hypothesis.
        names: names of methods in `MOVING` and `STATIC`.
        optimizers: the optimizers to draw from.
        replaces: whether updates always take the place of gradient steps; otherwise the method decides.
        silence: one of `SILENCES`: a layer may be without information in some steps; None for no such layer.
    """
    begin = draw(st.integers(0, 2))
    # A property with few cases draws the first numbers of these lists: an update, a gradient step, another update.
    lasts, every = draw(st.sampled_from([3, 1, 2, 4, 5])), draw(st.sampled_from([2, 1]))
    schedule = UpdateSchedule(begin=begin, end=begin + lasts, every=every)
    sparsity = draw(st.sampled_from([0.5, 0.3, 0.8]))
    recipe: Recipe = {**MOVING, **STATIC}[draw(st.sampled_from(list(names)))](sparsity, schedule)
    recipe = replace(recipe, seed=draw(st.integers(0, 2**32)), on_update="replace" if replaces else recipe.on_update)
    shapes = _SHAPES[: draw(st.integers(2, 3))]
    layers = fixed_layers(*shapes)
    seed = draw(st.integers(0, 2**32))
    rng = np.random.default_rng(seed)
    params = {layer.name: rng.normal(size=layer.shape) for layer in layers}
    if draw(st.booleans()):  # ties, and weights that are exactly zero
        params = {name: np.round(2 * param) / 2 for name, param in params.items()}
    params["fc0.bias"] = rng.normal(size=(5,))
    scores = {layer.name: np.round(rng.normal(size=layer.shape) * 4).astype(np.float32) for layer in layers}
    params = {name: param.astype(np.float32) for name, param in params.items()}
    training = Training(params, layers, recipe, draw(st.sampled_from(list(optimizers))), schedule.end + 2, seed)
    training = replace(training, scores=scores if recipe.initial.reads_scores else None)
    return training if silence is None else replace(training, quiet=_quiet_layer(draw, training), silence=silence)


def _quiet_layer(draw: st.DrawFn, training: Training) -> tuple[str, range]:
    """A layer without information, in no step or in some; a property with few cases gets the first update."""
    begin, end = training.schedule.begin, training.schedule.end
    steps = draw(st.sampled_from([1, 0, 2, end - begin]))
    return draw(st.sampled_from(training.layers)).name, range(begin, begin + steps)

"""Recipes from configurations, and wrong ones: errors name the key and say what to do."""

from __future__ import annotations

import copy
import json
import tomllib
from collections import UserDict
from types import MappingProxyType
from typing import Any

import pytest

from rigl_core import (
    DSR,
    MEST,
    NM,
    RANDOM,
    SET,
    SNFS,
    SNIP,
    Constant,
    Criterion,
    CubicRamp,
    DeepR,
    GradualPruning,
    OneShotPruning,
    PerLayer,
    Recipe,
    RigL,
    SmallRandom,
    Static,
    Uniform,
    UpdateSchedule,
    recipe_from_config,
)
from rigl_core.methods.configuration import METHODS

SCHEDULE = UpdateSchedule(end=300, every=20)
PLAIN: dict[str, Any] = {"end": 300, "every": 20}
RIGL: dict[str, Any] = {"method": "RigL", "sparsity": 0.9, "schedule": PLAIN}


@pytest.mark.parametrize(
    ("config", "recipe"),
    [
        (RIGL, RigL(0.9, schedule=SCHEDULE)),
        ({**RIGL, "schedule": {"total_steps": 400, "every": 20}}, RigL(0.9, schedule=SCHEDULE)),
        ({"method": "SET", "sparsity": 0.5, "schedule": PLAIN, "seed": 3}, SET(0.5, schedule=SCHEDULE, seed=3)),
        ({"method": "Static", "sparsity": 0, "distribution": "uniform"}, Static(0, distribution=Uniform())),
        ({"method": "SNIP", "sparsity": 0.9}, SNIP(0.9)),
        ({"method": "OneShotPruning", "sparsity": 0.8, "at": 7}, OneShotPruning(0.8, at=7)),
        ({"method": "GradualPruning", "sparsity": 0.8, "schedule": PLAIN}, GradualPruning(0.8, schedule=SCHEDULE)),
        ({"method": "DSR", "sparsity": 0.8, "schedule": PLAIN}, DSR(0.8, schedule=SCHEDULE)),
        (
            {
                "method": "MEST",
                "sparsity": 0.8,
                "schedule": PLAIN,
                "share": 2,
                "ramp": {"kind": "cubic", "initial": 0.5},
            },
            MEST(0.8, schedule=SCHEDULE, share=2, ramp=CubicRamp(0.5)),
        ),
        (
            {"method": "DeepR", "sparsity": 0.8, "schedule": PLAIN, "l1": 0.01, "noise": 0.1},
            DeepR(0.8, schedule=SCHEDULE, l1=0.01, noise=0.1),
        ),
        (
            {"method": "SNFS", "sparsity": 0.8, "schedule": PLAIN, "redistribution": None, "momentum": 0.5},
            SNFS(0.8, schedule=SCHEDULE, redistribution=None, momentum=0.5),
        ),
        (
            {"method": "RigL", "schedule": PLAIN, "distribution": {"kind": "per_layer", "sparsities": {"*": 0.5}}},
            RigL(schedule=SCHEDULE, distribution=PerLayer({"*": 0.5})),
        ),
        (
            {
                **RIGL,
                "drop_fraction": {"kind": "constant", "alpha": 0.1},
                "grow": "random",
                "grown": {"kind": "random", "scale": 0.1},
                "dense": ["head.*"],
                "layer_sparsity": {"stem": 0.5},
                "compensate": True,
            },
            RigL(
                0.9,
                schedule=SCHEDULE,
                drop_fraction=Constant(0.1),
                grow=RANDOM,
                grown=SmallRandom(0.1),
                dense=["head.*"],
                layer_sparsity={"stem": 0.5},
                compensate=True,
            ),
        ),
        (
            {"method": "RigL", "schedule": PLAIN, "structure": {"kind": "n_of_m", "n": 1, "m": 4}},
            RigL(schedule=SCHEDULE, structure=NM(1, 4)),
        ),
    ],
)
def test_configurations(config: dict[str, Any], recipe: Recipe) -> None:
    before = copy.deepcopy(config)
    assert recipe_from_config(config) == recipe
    assert recipe_from_config(json.loads(json.dumps(config))) == recipe
    assert recipe_from_config(MappingProxyType(UserDict(config))) == recipe  # as Hydra's: a mapping, and no dict
    assert config == before


def test_toml() -> None:
    text = """
    method = "RigL"
    sparsity = 0.9
    drop_fraction = { kind = "cosine", alpha = 0.2 }
    [schedule]
    total_steps = 400
    every = 20
    """
    recipe = recipe_from_config(tomllib.loads(text))
    assert (recipe.schedule, recipe.drop_fraction.fraction(0)) == (SCHEDULE, 0.2)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_configuration(name: str) -> None:
    needed = {"at": 3} if name == "OneShotPruning" else {} if name in {"Static"} else {"schedule": PLAIN}
    needed = {} if name in {"GraSP", "SynFlow", "LotteryTicket"} else needed
    recipe = recipe_from_config({"method": name, "sparsity": 0.5, **needed})
    arguments = {key: SCHEDULE if key == "schedule" else value for key, value in needed.items()}
    assert recipe == METHODS[name](0.5, **arguments)


def test_parts_of_ones_own() -> None:
    own = Criterion("own", lambda connections, xp: xp.abs(connections.weight))
    assert recipe_from_config({**RIGL, "drop": "own"}, [own]).drop is own


LONG = {"total_steps": 400}
WRONG: list[tuple[Any, str]] = [
    # What the configuration is.
    (None, "config is None: it must be a mapping, such as"),
    ("RigL", "config is 'RigL': it must be a mapping, such as"),
    ([RIGL], r"config is \[.*: it must be a mapping, such as"),
    # The method.
    ({}, "method is missing: use one of DNS, DNW"),
    ({**RIGL, "method": None}, "method is missing: use one of"),
    ({**RIGL, "method": "rigl"}, r"method is the unknown 'rigl' \(did you mean 'RigL'\?\): use one of"),
    ({**RIGL, "method": "RigL-ITOP"}, r"method is the unknown 'RigL-ITOP' \(did you mean 'RigLITOP'\?\)"),
    ({**RIGL, "method": "magnitude"}, "method is the unknown 'magnitude': use one of"),
    ({**RIGL, "method": 3}, "method is the unknown 3: use one of"),
    ({**RIGL, "method": "Options"}, "method is the unknown 'Options'"),
    # Keys.
    ({**RIGL, "sparsty": 0.5}, r"sparsty is an unknown key \(did you mean 'sparsity'\?\): remove it; known are"),
    ({**RIGL, "alpha": 0.5}, "alpha is an unknown key.*: remove it; known are sparsity, schedule"),
    ({**RIGL, "l1": 0.5}, "l1 is an unknown key.*: remove it; known are"),
    ({**RIGL, "at": 5}, "at is an unknown key"),
    ({**RIGL, 5: 5}, "5 is an unknown key"),
    ({"method": "Static", "sparsity": 0.5, "schedule": PLAIN}, "schedule is an unknown key"),
    ({"method": "RigL", "sparsity": 0.9}, "schedule is missing: RigL needs it, such as schedule: {total_steps"),
    ({**RIGL, "schedule": None}, "schedule is missing: RigL needs it"),
    ({"method": "OneShotPruning", "sparsity": 0.9}, "at is missing: OneShotPruning needs it, the step after which"),
    # Numbers.
    ({**RIGL, "sparsity": 1}, r"sparsity is 1: it must be in \[0, 1\)"),
    ({**RIGL, "sparsity": 90}, r"sparsity is 90: it must be in \[0, 1\), the share of weights that are zero"),
    ({**RIGL, "sparsity": "0.9"}, "sparsity is '0.9': it must be a number"),
    ({**RIGL, "sparsity": float("nan")}, "sparsity is nan: it must be finite"),
    ({**RIGL, "sparsity": True}, "sparsity is True: it must be a number"),
    ({**RIGL, "seed": 0.5}, "seed is 0.5: it must be a whole number"),
    ({**RIGL, "momentum": 1}, r"momentum is 1.*: it must be in \[0, 1\)"),
    ({"method": "OneShotPruning", "sparsity": 0.9, "at": -1}, "at is -1: it must be at least 0"),
    ({"method": "OneShotPruning", "sparsity": 0.9, "at": "1e3"}, "at is '1e3': it must be a whole number"),
    ({"method": "MEST", "sparsity": 0.9, "schedule": PLAIN, "share": -1}, "share is -1: it must be"),
    ({"method": "DeepR", "sparsity": 0.9, "schedule": PLAIN, "l1": "1e-4"}, "l1 is '1e-4': it must be a number"),
    # The schedule.
    ({**RIGL, "schedule": 100}, "schedule is 100: it must be a mapping of end, every, begin"),
    ({**RIGL, "schedule": {}}, "schedule.end is missing: give it"),
    ({**RIGL, "schedule": {**PLAIN, "every": 0}}, "schedule.every is 0: it must be at least 1"),
    ({**RIGL, "schedule": {**PLAIN, "every": "20"}}, "schedule.every is '20': it must be a whole number"),
    ({**RIGL, "schedule": {**PLAIN, "every": 0.5}}, "schedule.every is 0.5: it must be a whole number"),
    (
        {**RIGL, "schedule": {**PLAIN, "begin": 400}},
        "schedule.end is 300, before begin=400: .* raise end or lower begin",
    ),
    ({**RIGL, "schedule": {**PLAIN, "evry": 3}}, r"schedule has the unknown key 'evry' \(did you mean 'every'\?\)"),
    ({**RIGL, "schedule": {**PLAIN, "until": 0.5}}, "schedule has the unknown key 'until'"),
    (
        {**RIGL, "schedule": {**LONG, "end": 5}},
        "schedule has the unknown key 'end'.*: remove it; known are total_steps",
    ),
    (
        {**RIGL, "schedule": {**LONG, "until": 75}},
        r"schedule.until is 75: it must be in \[0, 1\], a share of total_steps",
    ),
    ({**RIGL, "schedule": {"total_steps": "400"}}, "schedule.total_steps is '400': it must be a whole number"),
    # Parts.
    (
        {**RIGL, "distribution": "ERK"},
        r"distribution names the unknown 'ERK' \(did you mean 'erk'\?\): known are uniform",
    ),
    ({**RIGL, "distribution": "unifrm"}, r"distribution names the unknown 'unifrm' \(did you mean 'uniform'\?\)"),
    (
        {**RIGL, "distribution": {"first_dense": False}},
        "distribution is .*: it must be a name, or a mapping with the key",
    ),
    ({**RIGL, "distribution": {"kind": "uniform", "dense": 1}}, "distribution has the unknown key 'dense'"),
    ({**RIGL, "distribution": "per_layer"}, "distribution.sparsities is missing: give it"),
    (
        {**RIGL, "distribution": {"kind": "per_layer", "sparsities": {"fc": 90}}},
        r"distribution.sparsities\['fc'\] is 90: it must be in \[0, 1\)",
    ),
    ({**RIGL, "distribution": None}, "distribution is None: it must be a distribution, such as"),
    ({**RIGL, "drop_fraction": 0.3}, "drop_fraction is 0.3: it must be a name, or a mapping with the key 'kind'"),
    (
        {**RIGL, "drop_fraction": {"kind": "cosine", "alpha": 30}},
        r"drop_fraction.alpha is 30: it must be in \[0, 1\], the share of active connections",
    ),
    ({**RIGL, "drop_fraction": {"kind": "inverse_power", "power": 0}}, "drop_fraction.power is 0: it must be positive"),
    ({**RIGL, "grown": {"kind": "random", "scale": -1}}, "grown.scale is -1.*: it must be positive"),
    ({**RIGL, "structure": {"kind": "n_of_m", "n": 5}}, "structure.n is 5: of 4 connections no more than 4"),
    ({**RIGL, "ramp": {"kind": "cubic", "initial": 2}}, r"ramp.initial is 2: it must be in \[0, 1\)"),
    ({**RIGL, "drop": "magnitud"}, r"drop names the unknown 'magnitud' \(did you mean 'magnitude'\?\)"),
    ({**RIGL, "drop": "magnitude_and_gradient"}, "drop names 'magnitude_and_gradient', which has a parameter: use"),
    ({**RIGL, "initial": "gradient"}, "initial is 'gradient', which reads the gradient: there is none at the start"),
    ({**RIGL, "scope": "model"}, "scope is 'model': use 'layer' or 'global'"),
    ({**RIGL, "regrown": "zero"}, "regrown is 'zero': use 'keep' or 'reset'"),
    ({**RIGL, "shadow": "yes"}, "shadow is 'yes': it must be True or False"),
    # Layers.
    ({**RIGL, "dense": "head.*"}, r"dense is the string 'head.\*': give a list of patterns"),
    ({**RIGL, "dense": [3]}, "dense holds 3: every pattern must be a string"),
    ({**RIGL, "layer_sparsity": {"stem": 2}}, r"layer_sparsity\['stem'\] is 2: it must be in \[0, 1\)"),
    ({**RIGL, "layer_sparsity": 0.5}, "layer_sparsity is 0.5: give a mapping from name pattern to sparsity"),
]


@pytest.mark.parametrize(("config", "message"), WRONG)
def test_wrong_configurations_are_refused_by_key(config: Any, message: str) -> None:
    before = copy.deepcopy(config)
    with pytest.raises((TypeError, ValueError), match=rf"^{message}"):
        recipe_from_config(config)
    assert repr(config) == repr(before)

"""The tests of the tests: adapters with one realistic bug each. Patches of the NumPy backend make the bugs."""

from conformance_tests.mutants import (
    budget,
    deferred,
    information,
    large,
    memory,
    methods,
    numbers,
    order,
    pools,
    ramps,
    scores,
    selection,
    state,
    structures,
    told,
    topology,
    training,
)
from conformance_tests.mutants.registry import MUTANTS

__all__ = [
    "MUTANTS",
    "budget",
    "deferred",
    "information",
    "large",
    "memory",
    "methods",
    "numbers",
    "order",
    "pools",
    "ramps",
    "scores",
    "selection",
    "state",
    "structures",
    "told",
    "topology",
    "training",
]

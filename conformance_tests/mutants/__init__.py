"""The tests of the tests: adapters with one realistic bug each. Patches of the NumPy backend make the bugs."""

from conformance_tests.mutants import (
    budget,
    memory,
    methods,
    pools,
    ramps,
    scores,
    selection,
    state,
    structures,
    topology,
    training,
)
from conformance_tests.mutants.registry import MUTANTS

__all__ = [
    "MUTANTS",
    "budget",
    "memory",
    "methods",
    "pools",
    "ramps",
    "scores",
    "selection",
    "state",
    "structures",
    "topology",
    "training",
]

"""The tests of the tests: adapters with one realistic bug each. Patches of the NumPy backend make the bugs,
and of PyTorch where NumPy lacks something."""

from conformance_tests.mutants import (
    arrays,
    budget,
    closures,
    deferred,
    information,
    memory,
    methods,
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
    "arrays",
    "budget",
    "closures",
    "deferred",
    "information",
    "memory",
    "methods",
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

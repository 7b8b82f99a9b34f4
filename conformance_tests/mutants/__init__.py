"""Adapters with one realistic bug each, made by patching the NumPy backend: the tests of the tests."""

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

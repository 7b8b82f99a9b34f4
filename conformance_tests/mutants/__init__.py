"""Adapters with one realistic bug each, made by patching the NumPy backend: the tests of the tests."""

from conformance_tests.mutants import budget, selection, state, topology, training
from conformance_tests.mutants.registry import MUTANTS

__all__ = ["MUTANTS", "budget", "selection", "state", "topology", "training"]

"""Tests of the tests: the property named for a mutant fails with its bug, and passes without it."""

from __future__ import annotations

import importlib
import inspect

import pytest
from hypothesis import Phase
from hypothesis.errors import Flaky

from conformance_tests.conftest import HARNESSES
from conformance_tests.mutants import MUTANTS
from conformance_tests.mutants.registry import Property
from rigl_core.testing.plugin import load_harness

checks_file = importlib.import_module("rigl_core.testing.checks")  # `rigl_core.testing.checks` itself is the function


def run(property_: Property) -> None:
    test = property_.test
    if "harness" in inspect.signature(test).parameters:
        test(
            load_harness(HARNESSES[property_.backend]),
            property_.mode,
            **({} if property_.method is None else {"method": property_.method}),
        )
    elif marks := [mark for mark in getattr(test, "pytestmark", []) if mark.name == "parametrize"]:
        names, cases = marks[0].args
        for case in cases:
            test(**dict(zip(names, case, strict=True)))
    else:
        test()


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    patch, property_ = MUTANTS[name]
    patch(monkeypatch)
    monkeypatch.setattr(checks_file, "PHASES", (Phase.generate,))  # any failure will do; no search for a smaller one
    monkeypatch.setattr(checks_file, "TIMES", 4)  # with fewer examples some bugs are missed in a few runs
    with pytest.raises(BaseException) as caught:  # noqa: PT011
        run(property_)
    assert _failed_an_assertion(caught.value), f"{name}: {property_} crashed with {caught.value!r}"


def _failed_an_assertion(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return any(map(_failed_an_assertion, error.exceptions))
    if isinstance(error, Flaky):  # from a mutant with random state of its own; later versions raise a group instead
        error = error.__cause__ or error
    return isinstance(error, (AssertionError, pytest.fail.Exception))  # the latter: nothing was raised, or no warning


@pytest.mark.parametrize("property_", dict.fromkeys(property_ for _, property_ in MUTANTS.values()), ids=str)
def test_properties_hold_without_the_bugs(property_: Property) -> None:
    run(property_)

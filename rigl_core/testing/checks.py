"""Decorators of properties: the rules that a property checks, and the cases that it runs on."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy

from rigl_core.model.warnings import SparsityWarning
from rigl_core.testing.harness import Harness
from rigl_core.testing.limits import NotOffered, fit

Case = TypeVar("Case")
PHASES = tuple(Phase)
TIMES = 1
"""A factor for the number of cases of every property: more cases make it less likely that a bug escapes by chance."""
Property = Callable[..., None]


def checks(*rules: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Mark a property with the rules of docs/contract.md that it checks."""
    return pytest.mark.rule(*rules)


def is_fast(harness: Harness, mode: str) -> bool:
    """Whether a property can afford many cases: none is compiled, and the harness does not call them slow."""
    return mode in ("eager", "active") and mode not in harness.slow_modes


def runs_where(chosen: Callable[[Harness, str, str], object]) -> pytest.MarkDecorator:
    """Run a property only where ``chosen`` is true of a harness, a mode, and the property's ``method``, if it has one.

    The plugin leaves the other cases out. So none of them passes without an assertion.
    """
    return pytest.mark.runs_where.with_args(chosen)  # called with a function, a mark would decorate it


def in_turn(methods: Sequence[str]) -> Callable[[Harness, str, str], bool]:
    """In eager mode all methods; in compiled modes, where a case costs a compilation, one after the other.

    What differs between methods is the same code in all modes of a backend. With `TIMES`, all methods run everywhere.
    """

    def has_turn(harness: Harness, mode: str, method: str) -> bool:
        compiled = [own for own in harness.modes if own != "eager"]
        return mode == "eager" or TIMES > 1 or compiled[list(methods).index(method) % len(compiled)] == mode

    return has_turn


@contextmanager
def without_warnings() -> Iterator[None]:
    """Ignore our warnings: assertions find what is wrong, and layers are small by intention. Also a decorator."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SparsityWarning)
        yield


def for_all(
    cases: SearchStrategy[Case] | Callable[..., SearchStrategy[Case]],
    *,
    eager: int = 60,
    compiled: int = 4,
    methods: Sequence[str] = (),
) -> Callable[[Callable[[Harness, str, Case], None]], Property]:
    """Turn a check of one case into a property of a harness in a mode.

    Args:
        cases: the strategy that draws cases; or a function that returns the strategy. The property then also takes the
            function's keyword arguments.
        eager: the number of cases in eager mode, unless the harness says that this mode is slow.
        compiled: the number of cases in any other mode, where every case may cost a compilation.
        methods: in eager mode, the property has ``eager`` cases of each of these, which ``cases`` takes as ``method``.
    """

    def decorate(check: Callable[[Harness, str, Case], None]) -> Property:
        def property_(harness: Harness, mode: str, **chosen: Any) -> None:
            many = is_fast(harness, mode)
            every = many and methods and not chosen
            each = [{"method": method} for method in methods] if every else [chosen]
            lacks: list[NotOffered | None] = []
            with without_warnings():
                for own in each:
                    strategy = cases if isinstance(cases, SearchStrategy) else cases(**own)
                    _check_all(_where_offered(check, harness, mode, lacks), strategy, eager if many else compiled)
            if lacks and all(lacks):
                raise lacks[0] or NotOffered

        property_.__name__ = check.__name__
        property_.__qualname__ = check.__qualname__
        property_.__doc__ = check.__doc__
        property_.__module__ = check.__module__
        return property_

    return decorate


def _where_offered(
    check: Callable[[Harness, str, Case], None], harness: Harness, mode: str, lacks: list[NotOffered | None]
) -> Callable[[Case], None]:
    """The check of what the library offers; ``lacks`` gets what it lacks for a case, or None."""

    def attempt(case: Case) -> None:
        try:
            check(harness, mode, fit(harness, case))
            lacks.append(None)
        except NotOffered as lack:
            lacks.append(lack)

    return attempt


def _check_all(check: Callable[[Case], None], cases: SearchStrategy[Case], examples: int) -> None:
    @settings(
        max_examples=TIMES * examples,
        deadline=None,
        database=None,
        phases=PHASES,
        suppress_health_check=list(HealthCheck),
    )
    @given(cases)
    def holds(case: Case) -> None:
        check(case)

    holds()

"""Glob patterns, by which users choose layers by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TypeVar

Value = TypeVar("Value")
Default = TypeVar("Default", bound=bool | None)


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether ``name`` matches any of the glob patterns (``*``, ``?``, ``[...]``; case-sensitive)."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def first_match(name: str, values: Mapping[str, Value]) -> Value | None:
    """The value of the first pattern that ``name`` matches, in the given order; None if it matches no pattern."""
    for pattern, value in values.items():
        if fnmatchcase(name, pattern):
            return value
    return None


def check_patterns(parameter: str, patterns: Iterable[str], names: Sequence[str]) -> None:
    """Refuse a pattern that matches no name: most often it is a typing error.

    Raises:
        ValueError: names the parameter, the pattern and some names that it could have matched.
    """
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            shown = ", ".join(repr(name) for name in names[:8]) + (", ..." if len(names) > 8 else "")
            raise ValueError(
                f"{parameter} holds the pattern {pattern!r}, which matches no layer. "
                f"Correct or remove it; the names are: {shown or '(none)'}."
            )


def check_pattern_list(parameter: str, patterns: object) -> tuple[str, ...]:
    """The patterns as a tuple.

    Raises:
        TypeError: if ``patterns`` is no list of strings. A single string is also refused: a loop would take each of its
            letters for a pattern.
    """
    if isinstance(patterns, str):
        raise TypeError(f"{parameter} is the string {patterns!r}: give a list of patterns, [{patterns!r}].")
    if not isinstance(patterns, Iterable):
        raise TypeError(f"{parameter} is {patterns!r}: give a list of glob patterns.")
    listed = tuple(patterns)
    for pattern in listed:
        if not isinstance(pattern, str):
            raise TypeError(f"{parameter} holds {pattern!r}: every pattern must be a string.")
    return listed


class Choice:
    """The user's choice of parameters by ``include`` and ``exclude``.

    Args:
        include: name patterns of parameters to choose besides the default ones.
        exclude: name patterns of parameters not to choose; ``exclude`` wins over ``include``.
        names: the names of all parameters.

    Raises:
        TypeError: if ``include`` or ``exclude`` is no list of patterns.
        ValueError: if a pattern matches no name.
    """

    def __init__(self, include: object, exclude: object, names: Sequence[str]) -> None:
        self._include = check_pattern_list("include", include)
        self._exclude = check_pattern_list("exclude", exclude)
        check_patterns("include", self._include, names)
        check_patterns("exclude", self._exclude, names)

    def __call__(self, *names: str, default: Default) -> bool | Default:
        """Whether a parameter is chosen; ``default`` if no pattern matches it.

        A tied parameter has several names; a pattern may match any of them.
        """
        if any(matches(name, self._exclude) for name in names):
            return False
        return True if any(matches(name, self._include) for name in names) else default

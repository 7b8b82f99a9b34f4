"""Glob patterns over layer names: how users point at layers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TypeVar

Value = TypeVar("Value")
Default = TypeVar("Default", bound=bool | None)


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether ``name`` matches any of the glob patterns (``*``, ``?``, ``[...]``; case counts)."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def first_match(name: str, values: Mapping[str, Value]) -> Value | None:
    """The value of the first pattern, in the order given, that ``name`` matches."""
    for pattern, value in values.items():
        if fnmatchcase(name, pattern):
            return value
    return None


def check_patterns(parameter: str, patterns: Iterable[str], names: Sequence[str]) -> None:
    """Refuse a pattern that matches nothing: it is a typing error more often than a wish.

    Raises:
        ValueError: naming the parameter, the pattern and some names it could have matched.
    """
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            shown = ", ".join(repr(name) for name in names[:8]) + (", ..." if len(names) > 8 else "")
            raise ValueError(
                f"{parameter} holds the pattern {pattern!r}, which matches no layer. "
                f"Correct or remove it; the names are: {shown or '(none)'}."
            )


def check_pattern_list(parameter: str, patterns: object) -> tuple[str, ...]:
    """The patterns as a tuple; a bare string is refused, since it would be read letter by letter."""
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
    """What a user's ``include`` and ``exclude`` choose among the parameters of a model.

    Args:
        include: patterns of names to choose besides the default ones.
        exclude: patterns of names not to choose; goes before ``include``.
        names: of all parameters.

    Raises:
        TypeError, ValueError: for what is no list of patterns, or a pattern that matches nothing.
    """

    def __init__(self, include: object, exclude: object, names: Sequence[str]) -> None:
        self._include = check_pattern_list("include", include)
        self._exclude = check_pattern_list("exclude", exclude)
        check_patterns("include", self._include, names)
        check_patterns("exclude", self._exclude, names)

    def __call__(self, *names: str, default: Default) -> bool | Default:
        """Whether a parameter is chosen. One that is tied has several names, and any of them counts."""
        if any(matches(name, self._exclude) for name in names):
            return False
        return True if any(matches(name, self._include) for name in names) else default

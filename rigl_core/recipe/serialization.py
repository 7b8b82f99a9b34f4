"""Recipes as plain data: each part is saved by its name and its numbers."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from rigl_core.parts.criteria import CRITERIA, Criterion
from rigl_core.parts.distributions import DISTRIBUTIONS
from rigl_core.parts.drop_fractions import DROP_FRACTIONS
from rigl_core.parts.grown import GROWN_WEIGHTS
from rigl_core.parts.ramps import RAMPS
from rigl_core.parts.schedules import UpdateSchedule
from rigl_core.parts.structures import STRUCTURES

_T = TypeVar("_T")
_CATALOGS: Mapping[str, Mapping[str, type]] = {
    "distribution": DISTRIBUTIONS,
    "drop_fraction": DROP_FRACTIONS,
    "ramp": RAMPS,
    "structure": STRUCTURES,
    "grown": GROWN_WEIGHTS,
}
_CRITERIA = ("drop", "grow", "initial")


def to_data(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a recipe's fields as str, int, float, bool, None, lists and dicts."""
    data = dict(values)
    for parameter in _CATALOGS:
        data[parameter] = None if data[parameter] is None else _part_to_dict(data[parameter])
    for parameter in _CRITERIA:
        data[parameter] = _criterion_to_data(data[parameter])
    if data["schedule"] is not None:
        data["schedule"] = dataclasses.asdict(data["schedule"])
    data["dense"] = list(data["dense"])
    data["layer_sparsity"] = [list(pair) for pair in data["layer_sparsity"]]
    return data


def from_data(data: object, fields: Sequence[str], parts: Iterable[Any], *, owner: str = "recipe") -> dict[str, Any]:
    """The values of a recipe's ``fields`` that are given in ``data``.

    Args:
        data: plain data; a part without numbers may be given by its name alone.
        fields: the keys that may be given.
        parts: the user's own parts.
        owner: what the data is, for messages; "" for a configuration, whose keys stand for themselves.

    Raises:
        TypeError, ValueError: the message names the key, such as ``schedule.every``.
    """
    values = dict(_check_keys(owner, data, fields))
    own = {_name_of(part): part for part in parts}
    for parameter, catalog in _CATALOGS.items():
        if values.get(parameter) is not None:
            values[parameter] = _part_from_dict(parameter, values[parameter], {**catalog, **own})
    for parameter in _CRITERIA:
        if values.get(parameter) is not None:
            values[parameter] = _criterion_from_data(parameter, values[parameter], {**CRITERIA, **own})
    if values.get("schedule") is not None:
        values["schedule"] = _schedule_from_dict(values["schedule"])
    return values


def check_complete(data: object) -> None:
    """Refuse data that names another method than RigL without its criteria: those of RigL would take their place.

    Raises:
        ValueError: the message names the method.
    """
    missing = [key for key in _CRITERIA if isinstance(data, Mapping) and key not in data]
    if isinstance(data, Mapping) and data.get("method", "custom") not in ("custom", "RigL") and missing:
        raise ValueError(
            f"recipe has the method {data['method']!r} without {', '.join(missing)}: give all parts, as to_dict writes "
            "them. Configurations that name a method alone are for rigl_core.recipe_from_config."
        )


def _schedule_from_dict(data: object) -> UpdateSchedule:
    """A schedule from its own fields, or from the arguments of `UpdateSchedule.for_training`."""
    of_training = isinstance(data, Mapping) and "total_steps" in data
    make = UpdateSchedule.for_training if of_training else UpdateSchedule
    known = inspect.signature(make).parameters
    return _made(make, "schedule", _check_keys("schedule", data, list(known)))


def _made(make: Callable[..., _T], parameter: str, values: Mapping[str, Any]) -> _T:
    """A part of a recipe; errors name the part before its field."""
    for name, field in inspect.signature(make).parameters.items():
        if field.default is field.empty and name not in values:
            raise ValueError(f"{parameter}.{name} is missing: give it.")
    try:
        return make(**values)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{parameter}.{error}") from error


def _name_of(part: Any) -> str:
    """The name by which a user's own part is found: its kind or name, or the name of the function that makes it."""
    for attribute in ("kind", "name", "__name__"):
        if isinstance(name := getattr(part, attribute, None), str):
            return name
    raise TypeError(f"parts holds {part!r}: it has neither a kind nor a name.")


def _criterion_to_data(criterion: Criterion | None) -> Any:
    if criterion is None or criterion.parameter is None:
        return None if criterion is None else criterion.name
    return {"name": criterion.name, "parameter": criterion.parameter}


def _criterion_from_data(parameter: str, data: Any, catalog: Mapping[str, Any]) -> Any:
    if not isinstance(data, Mapping):
        data = {"name": data, "parameter": None}
    if set(data) != {"name", "parameter"}:
        raise ValueError(f"{parameter} is {data!r}: it must be a name, or a mapping of 'name' and 'parameter'.")
    name, number = data["name"], data["parameter"]
    found = _look_up(parameter, name, catalog)
    if isinstance(found, Criterion):
        if found.parameter != number:
            raise ValueError(
                f"{parameter} names {name!r} with the parameter {number!r}, and there is one with {found.parameter!r}: "
                "give the criterion that you mean, or a function that makes it, in parts=[...]."
            )
        return found
    if number is None:
        raise ValueError(f"{parameter} names {name!r}, which has a parameter: use {{'name': ..., 'parameter': ...}}.")
    return found(number)


def _fields_of(cls: type) -> list[str]:
    return [field.name for field in dataclasses.fields(cls)] if dataclasses.is_dataclass(cls) else []


def _check_keys(parameter: str, data: object, known: Sequence[str]) -> Mapping[str, Any]:
    """``data``, if it is a mapping with known keys alone.

    Args:
        parameter: its name, for messages; "" for the whole configuration.
        data: what the user gave.
        known: the possible keys.

    Raises:
        TypeError, ValueError: the message names the key, and the one that was meant.
    """
    if not isinstance(data, Mapping):
        raise TypeError(f"{parameter} is {data!r}: it must be a mapping of {', '.join(known)}.")
    for key in data:
        if key not in known:
            owner = f"{parameter} has the unknown key {key!r}" if parameter else f"{key} is an unknown key"
            raise ValueError(f"{owner}{suggestion(key, known)}: remove it; known are {', '.join(known)}.")
    return data


def suggestion(wrong: object, known: Iterable[str]) -> str:
    """Words that name what was meant; "" if nothing is near."""
    by_lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(str(wrong).lower(), by_lower, 1)
    return f" (did you mean {by_lower[near[0]]!r}?)" if near else ""


def _look_up(parameter: str, name: object, catalog: Mapping[str, Any]) -> Any:
    if not isinstance(name, str) or name not in catalog:
        raise ValueError(
            f"{parameter} names the unknown {name!r}{suggestion(name, catalog)}: known are {', '.join(catalog)}. "
            "Give your own parts in parts=[...]."
        )
    return catalog[name]


def _part_to_dict(part: Any) -> dict[str, Any]:
    values = dataclasses.asdict(part) if dataclasses.is_dataclass(part) and not isinstance(part, type) else {}
    return {"kind": part.kind, **{key: _as(list, value) for key, value in values.items()}}


def _part_from_dict(parameter: str, data: object, catalog: Mapping[str, Any]) -> Any:
    if isinstance(data, str):
        data = {"kind": data}
    if not isinstance(data, Mapping) or "kind" not in data:
        raise ValueError(f"{parameter} is {data!r}: it must be a name, or a mapping with the key 'kind'.")
    found = _look_up(parameter, data["kind"], catalog)
    cls = found if isinstance(found, type) else type(found)
    values = _check_keys(parameter, {key: value for key, value in data.items() if key != "kind"}, _fields_of(cls))
    return _made(cls, parameter, {key: _as(tuple, value) for key, value in values.items()})


def _as(sequence: type[list[Any]] | type[tuple[Any, ...]], value: Any) -> Any:
    """Lists as tuples, so that parts can be hashed; or tuples as lists, which JSON has."""
    return sequence(_as(sequence, one) for one in value) if isinstance(value, list | tuple) else value

"""Recipes from configurations: plain data, as JSON, YAML, TOML or Hydra give it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rigl_core import methods
from rigl_core.methods.options import Options
from rigl_core.recipe import Recipe
from rigl_core.recipe.serialization import from_data, suggestion

METHODS: Mapping[str, Callable[..., Recipe]] = {
    name: getattr(methods, name) for name in methods.__all__ if name != "Options"
}
"""The published methods by the names of their functions."""


def recipe_from_config(config: Mapping[str, Any], parts: Iterable[Any] = ()) -> Recipe:
    """The recipe that a configuration describes.

    It names a method and gives the arguments of the method's function::

        {"method": "RigL", "sparsity": 0.9, "schedule": {"total_steps": 20000, "every": 100}}

    A part is a name (``"distribution": "uniform"``), or a mapping with its ``kind`` and its numbers
    (``"drop_fraction": {"kind": "constant", "alpha": 0.1}``). A schedule has the arguments of `UpdateSchedule`, or
    those of `UpdateSchedule.for_training`. `Recipe.from_dict` reads what `Recipe.to_dict` wrote, which names all parts.

    Args:
        config: plain data: str, int, float, bool, None, lists and mappings, such as Hydra's.
        parts: your own parts; see `rigl_core.Recipe.from_dict`.

    Raises:
        TypeError, ValueError: the message names the key, such as ``schedule.every``, and says what to do.
    """
    if not isinstance(config, Mapping):
        raise TypeError(f"config is {config!r}: it must be a mapping, such as {{'method': 'RigL', 'sparsity': 0.9}}.")
    method = _method_of(config)
    arguments = _arguments(method)
    given = {key: value for key, value in config.items() if key != "method"}
    values = from_data(given, list(arguments), parts, owner="")
    for key, required in arguments.items():
        if required and values.get(key) is None:
            raise ValueError(f"{key} is missing: {method.__name__} needs it{_EXAMPLES.get(key, '')}.")
    return method(**values)


_EXAMPLES = {
    "schedule": ", such as schedule: {total_steps: 20000, every: 100}",
    "at": ", the step after which it prunes",
}


def _method_of(config: Mapping[str, Any]) -> Callable[..., Recipe]:
    name = config.get("method")
    if not isinstance(name, str) or name not in METHODS:
        found = "missing" if name is None else f"the unknown {name!r}{suggestion(name, METHODS)}"
        raise ValueError(f"method is {found}: use one of {', '.join(METHODS)}.")
    return METHODS[name]


def _arguments(method: Callable[..., Recipe]) -> dict[str, bool]:
    """The keys that a method takes, and whether it needs them."""
    own = {
        name: parameter.default is parameter.empty
        for name, parameter in inspect.signature(method).parameters.items()
        if parameter.kind is not parameter.VAR_KEYWORD
    }
    return own | {name: False for name in Options.__annotations__ if name != "method"}

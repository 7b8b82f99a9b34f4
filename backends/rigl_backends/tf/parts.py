"""Parts of the user's own in a saved recipe, found where Keras finds custom objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras


def registered_parts(recipe: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None) -> list[Any]:
    """The custom objects that a recipe's plain data names.

    Args:
        recipe: what `rigl_core.Recipe.to_dict` gave.
        custom_objects: by the name of a criterion or of what makes it, or the kind of another part. Before them, Keras
            looks into a ``keras.saving.custom_object_scope`` and among what is registered.
    """
    names = [_name_in(value) for value in recipe.values()]
    found = [(name, keras.saving.get_registered_object(name, custom_objects)) for name in names if name]
    return [part for name, part in found if name in _names(part)]


def _names(part: Any) -> list[Any]:
    """What a part goes by: a function that makes criteria by its own name."""
    return [getattr(part, attribute, None) for attribute in ("kind", "name", "__name__")]


def _name_in(value: Any) -> str | None:
    """The name of a part in plain data."""
    named = value.get("name", value.get("kind")) if isinstance(value, Mapping) else value
    return named if isinstance(named, str) else None

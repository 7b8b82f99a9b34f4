"""Parts of the user's own in a saved recipe, found where Keras finds custom objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras


def registered_parts(recipe: Mapping[str, Any], custom_objects: Mapping[str, Any] | None) -> list[Any]:
    """The custom objects that a recipe's plain data names.

    Args:
        recipe: as `rigl_core.Recipe.to_dict` gives it.
        custom_objects: by the name of a criterion or of the function that makes it, or by the kind of another part.
            Keras then looks in a ``keras.saving.custom_object_scope``, and among what is registered.
    """
    found = []
    for value in recipe.values():
        name = value.get("name", value.get("kind")) if isinstance(value, Mapping) else value
        if isinstance(name, str) and name:
            part = keras.saving.get_registered_object(name, custom_objects)
            # A function that makes criteria goes by its own name.
            if name in [getattr(part, attribute, None) for attribute in ("kind", "name", "__name__")]:
                found.append(part)
    return found

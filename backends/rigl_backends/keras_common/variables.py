"""The variables of a Keras model: which are trained, their names and shapes."""

from __future__ import annotations

from typing import Any

from keras import layers as kl

from rigl_core.adapter import errors


def variable_name(variable: Any) -> str:
    """A variable's name in patterns and plans: its Keras path, or a plain `tf.Variable`'s name."""
    return str(getattr(variable, "path", None) or variable.name.partition(":")[0])


def shape_of(variable: Any) -> tuple[int, ...]:
    """The shape of a layer's array; of active weights, that of their dense kernel."""
    link = getattr(variable, "link", None)
    return tuple(variable.shape if link is None else link.shape)


def check_keras(parameter: str, value: object, expected: type, name: str) -> None:
    """Refuse what is no ``expected`` of Keras 3, which users call ``name``."""
    if isinstance(value, expected):
        return
    libraries = {cls.__module__.partition(".")[0] for cls in type(value).__mro__}
    if "tf_keras" in libraries:
        raise TypeError(
            f"{parameter} is a {type(value).__name__} of tf_keras, which is Keras 2: it must be a {name} of Keras 3."
        )
    if "tensorflow" in libraries:
        raise TypeError(
            f"{parameter} is the tf.Module {type(value).__name__}, which does not tell what its variables are: name "
            "them in include, with their axes, and give list(module.trainable_variables) to plan() or build()."
        )
    raise errors.wrong_type(parameter, value, name)


def variables_of(model: Any) -> list[Any]:
    """What is trained of a model, or the variables that were given.

    Raises:
        TypeError, ValueError: for what is no model, or a model without weights yet.
    """
    if isinstance(model, list | tuple):
        return list(model)
    check_keras("model", model, kl.Layer, "keras.Model")
    if not model.built:
        raise ValueError("model is not built, so it has no weights yet: call it on a batch, or give it an input shape.")
    return list(model.trainable_variables)

"""RigL for any framework: distributions, criteria, schedules and the topology update, on NumPy alone.

A `Recipe` says how to train sparsely; `make_plan` turns it into exact counts for a model's layers; an
adapter of `rigl_backends` carries it out. The rules are in docs/contract.md.

Read `model`, `plan` and `arrays.topology` first, then `step.update` and `step.training`. The docstring of each folder
says for whom it is.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rigl_core.public import *  # noqa: F403

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import a public name or a module at its first use (PEP 562): a program loads only the parts that it uses."""
    from importlib import import_module
    from importlib.util import find_spec

    if name == "__all__":
        return sorted(name for name in vars(import_module("rigl_core.public")) if not name.startswith("_"))
    try:
        own = f"{__name__}.{name}"
        found = import_module(own) if find_spec(own) else getattr(import_module("rigl_core.public"), name)
    except AttributeError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name) from None
    return globals().setdefault(name, found)


def __dir__() -> list[str]:
    return [*globals(), *__getattr__("__all__")]

"""RigL for any framework: distributions, criteria, schedules and the topology update, on NumPy alone.

A `Recipe` says how to train sparsely; `make_plan` turns it into exact counts for a model's layers; an
adapter of `rigl_backends` carries it out. The rules are in docs/contract.md.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rigl_core.public import *  # noqa: F403
    from rigl_core.public import __all__ as __all__

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """A module of the core, or else a public name (PEP 562): who needs one part does not wait for the others."""
    from importlib import import_module
    from importlib.util import find_spec

    try:
        own = f"{__name__}.{name}"
        found = import_module(own) if find_spec(own) else getattr(import_module("rigl_core.public"), name)
    except AttributeError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name) from None
    return globals().setdefault(name, found)


def __dir__() -> list[str]:
    return [*globals(), *__getattr__("__all__")]

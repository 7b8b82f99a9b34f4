"""Weights that are no parameters: tools of PyTorch compute them from other parameters at every step."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from torch import nn
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from rigl_core.adapter import SparsityWarning


class Computed(NamedTuple):
    """A weight that a tool computes.

    Attributes:
        module: holds the weight.
        name: the weight's name in the module.
        full_name: its name in the model.
        sources: the names of the parameters that it is computed from.
        remedy: the call that makes it a parameter again.
    """

    module: nn.Module
    name: str
    full_name: str
    sources: tuple[str, ...]
    remedy: str


def computed_weights(model: nn.Module) -> Iterator[Computed]:
    """The weights that `torch.nn.utils.prune`, its norms and its parametrizations compute."""
    for prefix, module in model.named_modules():
        start = f"{prefix}." if prefix else ""
        for name, remedy in _computed_in(module):
            own = (f"{name}_", f"parametrizations.{name}.")
            sources = tuple(start + key for key, _ in module.named_parameters() if key.startswith(own))
            yield Computed(module, name, start + name, sources, remedy)


def _computed_in(module: nn.Module) -> Iterator[tuple[str, str]]:
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, BasePruningMethod):
            yield hook._tensor_name, f"torch.nn.utils.prune.remove(module, {hook._tensor_name!r})"
        elif isinstance(hook, WeightNorm | SpectralNorm):
            kind = "weight" if isinstance(hook, WeightNorm) else "spectral"
            yield hook.name, f"torch.nn.utils.remove_{kind}_norm(module, {hook.name!r})"
    for name in getattr(module, "parametrizations", ()):
        yield name, f"torch.nn.utils.parametrize.remove_parametrizations(module, {name!r})"


def warn_of(left_out: Iterable[Computed]) -> None:
    """Tell which weights would be layers if they were parameters."""
    listed = list(left_out)
    if not listed:
        return
    names = ", ".join(repr(one.full_name) for one in listed)
    remedies = " or ".join(sorted({one.remedy for one in listed}))
    sources = [source for one in listed for source in one.sources]
    warnings.warn(
        f"{names} cannot be sparse, since they are computed from other parameters at every step. Make them parameters "
        f"again before sparsify, with {remedies}. To say that they stay as they are: exclude={sources}.",
        SparsityWarning,
        stacklevel=5,  # the call of sparsify
    )

"""Modules whose weights nobody else may multiply by."""

from __future__ import annotations

from typing import Any

from torch import nn


def leave_fused_path(module: nn.Module) -> None:
    """Make a TransformerEncoderLayer call this module: with a hook in it, it leaves the path that reads its weight."""
    module.register_forward_pre_hook(_do_nothing)


def _do_nothing(module: nn.Module, inputs: Any) -> None:
    """A hook."""

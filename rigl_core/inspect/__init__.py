"""Measures of topologies and of their changes. For users who watch a training."""

from rigl_core.inspect.logged import scalars
from rigl_core.inspect.masks import churn, density, ever_active, moved
from rigl_core.inspect.waste import Units, empty_share, on_no_path, units

__all__ = ["Units", "churn", "density", "empty_share", "ever_active", "moved", "on_no_path", "scalars", "units"]

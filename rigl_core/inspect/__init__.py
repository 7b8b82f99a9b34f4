"""Measures of topologies and of their changes. For users who watch a training."""

from rigl_core.inspect.masks import churn, density, ever_active, moved, scalars

__all__ = ["churn", "density", "ever_active", "moved", "scalars"]

"""What topologies look like and how they move. For users who watch a training."""

from rigl_core.inspect.masks import churn, density, ever_active, moved, scalars

__all__ = ["churn", "density", "ever_active", "moved", "scalars"]

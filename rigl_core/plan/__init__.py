"""A recipe for given layers, with every count an exact integer. For users, and for authors of adapters."""

from rigl_core.plan.plan import Plan, make_plan

__all__ = ["Plan", "make_plan"]

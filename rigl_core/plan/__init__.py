"""The plan of a recipe for given layers: exact integer counts. For users, and for authors of adapters."""

from rigl_core.plan.making import make_plan
from rigl_core.plan.plan import Counts, Plan, Tables

__all__ = ["Counts", "Plan", "Tables", "make_plan"]

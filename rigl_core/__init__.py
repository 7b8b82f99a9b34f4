"""RigL for any framework: distributions, criteria, schedules and the topology update, on NumPy alone.

A `Recipe` says how to train sparsely; `make_plan` turns it into exact counts for a model's layers; an
adapter of `rigl_backends` carries it out. The rules are in docs/contract.md.
"""

from rigl_core import flops, inspect, specs
from rigl_core.counts import active_count, largest_remainder
from rigl_core.criteria import GRADIENT, MAGNITUDE, RANDOM, Connections, Criterion
from rigl_core.distributions import Distribution, ErdosRenyi, ErdosRenyiKernel, PerLayer, Uniform
from rigl_core.drop_fractions import Constant, Cosine, DropFraction, InversePower, Linear, drop_counts
from rigl_core.flops import Convention, CostTable, cost_table
from rigl_core.history import History, Snapshot
from rigl_core.inspect import SparsityTable
from rigl_core.layers import Layer
from rigl_core.lottery import Lottery, Ticket, Trained
from rigl_core.methods import SET, RigL, Static
from rigl_core.namespace import Namespace, numpy_namespace
from rigl_core.network import Network
from rigl_core.neurons import EffectiveArchitecture, effective_architecture, shrunken
from rigl_core.plan import Plan, make_plan
from rigl_core.random import random_key, random_mask, random_scores
from rigl_core.recipe import Recipe
from rigl_core.schedules import UpdateSchedule
from rigl_core.small_dense import matching_width
from rigl_core.topology import magnitude, survivors, top_k_mask, updated_mask

__version__ = "0.1.0"

__all__ = [
    "GRADIENT",
    "MAGNITUDE",
    "RANDOM",
    "SET",
    "Connections",
    "Constant",
    "Convention",
    "Cosine",
    "CostTable",
    "Criterion",
    "Distribution",
    "DropFraction",
    "EffectiveArchitecture",
    "ErdosRenyi",
    "ErdosRenyiKernel",
    "History",
    "InversePower",
    "Layer",
    "Linear",
    "Lottery",
    "Namespace",
    "Network",
    "PerLayer",
    "Plan",
    "Recipe",
    "RigL",
    "Snapshot",
    "SparsityTable",
    "Static",
    "Ticket",
    "Trained",
    "Uniform",
    "UpdateSchedule",
    "active_count",
    "cost_table",
    "drop_counts",
    "effective_architecture",
    "flops",
    "inspect",
    "largest_remainder",
    "magnitude",
    "make_plan",
    "matching_width",
    "numpy_namespace",
    "random_key",
    "random_mask",
    "random_scores",
    "shrunken",
    "specs",
    "survivors",
    "top_k_mask",
    "updated_mask",
]

"""The public names, which `rigl_core` gives when they are first asked for."""

from rigl_core import inspect
from rigl_core.arrays.connections import Connections
from rigl_core.arrays.namespace import Namespace, numpy_namespace
from rigl_core.arrays.random import random_key, random_mask, random_scores
from rigl_core.arrays.topology import magnitude, survivors, top_k_mask, updated_mask
from rigl_core.costs import flops, specs
from rigl_core.costs.flops import Convention, CostTable, cost_table
from rigl_core.costs.network import Network
from rigl_core.costs.small_dense import matching_width
from rigl_core.inspect.history import History, Snapshot
from rigl_core.inspect.neurons import EffectiveArchitecture, effective_architecture, shrunken
from rigl_core.methods import (
    DNS,
    DNW,
    DSR,
    MEST,
    SET,
    SNFS,
    SNIP,
    DeepR,
    GradualPruning,
    GraSP,
    LotteryTicket,
    OneShotPruning,
    RigL,
    RigLITOP,
    SETAsPublished,
    SRigL,
    Static,
    SynFlow,
)
from rigl_core.methods.lottery import Lottery, Ticket, Trained
from rigl_core.model.layers import Layer
from rigl_core.model.numbers import active_count, largest_remainder
from rigl_core.model.table import SparsityTable
from rigl_core.parts.criteria import (
    GRADIENT,
    MAGNITUDE,
    MAGNITUDE_BY_SIGN,
    MOMENTUM,
    RANDOM,
    SALIENCY,
    SCORES,
    SIGN,
    Criterion,
    magnitude_and_gradient,
)
from rigl_core.parts.distributions import Distribution, ErdosRenyi, ErdosRenyiKernel, PerLayer, Uniform
from rigl_core.parts.drop_fractions import Constant, Cosine, DropFraction, InversePower, Linear, drop_counts
from rigl_core.parts.grown import GradientStep, GrownWeights, InitialValues, SmallRandom, Zeros
from rigl_core.parts.ramps import CubicRamp, Ramp
from rigl_core.parts.schedules import UpdateSchedule
from rigl_core.parts.structures import NM, Blocks, ConstantFanIn, Structure, Unstructured
from rigl_core.plan import Plan, make_plan
from rigl_core.recipe import Recipe
from rigl_core.step.update import Counts, Moved, initial_masks, move_pool, weights_after

__all__ = [
    "DNS",
    "DNW",
    "DSR",
    "GRADIENT",
    "MAGNITUDE",
    "MAGNITUDE_BY_SIGN",
    "MEST",
    "MOMENTUM",
    "NM",
    "RANDOM",
    "SALIENCY",
    "SCORES",
    "SET",
    "SIGN",
    "SNFS",
    "SNIP",
    "Blocks",
    "Connections",
    "Constant",
    "ConstantFanIn",
    "Convention",
    "Cosine",
    "CostTable",
    "Counts",
    "Criterion",
    "CubicRamp",
    "DeepR",
    "Distribution",
    "DropFraction",
    "EffectiveArchitecture",
    "ErdosRenyi",
    "ErdosRenyiKernel",
    "GraSP",
    "GradientStep",
    "GradualPruning",
    "GrownWeights",
    "History",
    "InitialValues",
    "InversePower",
    "Layer",
    "Linear",
    "Lottery",
    "LotteryTicket",
    "Moved",
    "Namespace",
    "Network",
    "OneShotPruning",
    "PerLayer",
    "Plan",
    "Ramp",
    "Recipe",
    "RigL",
    "RigLITOP",
    "SETAsPublished",
    "SRigL",
    "SmallRandom",
    "Snapshot",
    "SparsityTable",
    "Static",
    "Structure",
    "SynFlow",
    "Ticket",
    "Trained",
    "Uniform",
    "Unstructured",
    "UpdateSchedule",
    "Zeros",
    "active_count",
    "cost_table",
    "drop_counts",
    "effective_architecture",
    "flops",
    "initial_masks",
    "inspect",
    "largest_remainder",
    "magnitude",
    "magnitude_and_gradient",
    "make_plan",
    "matching_width",
    "move_pool",
    "numpy_namespace",
    "random_key",
    "random_mask",
    "random_scores",
    "shrunken",
    "specs",
    "survivors",
    "top_k_mask",
    "updated_mask",
    "weights_after",
]

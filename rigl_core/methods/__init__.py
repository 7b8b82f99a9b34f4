"""The published methods, as recipes. A method says how the topology starts, when it moves, and what it drops and grows.

Any part of a method can be replaced, to measure its effect: ``RigL(0.9, schedule=..., grow=RANDOM)``.

STR, L0 and variational dropout are not here: they learn gates or thresholds through the loss, which re-parameterizes
the network and does not choose a topology. Pruning by a rising threshold (Narang et al. 2017; Ström 1997) is not here
either: its number of active weights is a result of the training, and a recipe fixes that number beforehand.
"""

from rigl_core.methods.at_start import SNIP, GraSP, LotteryTicket, Static, SynFlow
from rigl_core.methods.dynamic import (
    DSR,
    MEST,
    SET,
    SNFS,
    DeepR,
    RigL,
    RigLITOP,
    SETAsPublished,
    SRigL,
    SRigLAsPublished,
)
from rigl_core.methods.options import Options
from rigl_core.methods.pruning import DNS, DNW, GradualPruning, OneShotPruning

__all__ = [
    "DNS",
    "DNW",
    "DSR",
    "MEST",
    "SET",
    "SNFS",
    "SNIP",
    "DeepR",
    "GraSP",
    "GradualPruning",
    "LotteryTicket",
    "OneShotPruning",
    "Options",
    "RigL",
    "RigLITOP",
    "SETAsPublished",
    "SRigL",
    "SRigLAsPublished",
    "Static",
    "SynFlow",
]

"""The published methods, as recipes. Each is one row: what it starts from, when it moves, what it drops and grows.

Every part can be given again, to see what it is worth: ``RigL(0.9, schedule=..., grow=RANDOM)``. STR, L0 and
variational dropout are not here: they learn gates or thresholds through the loss, a re-parameterization of the network
rather than a topology. Neither are pruning thresholds that grow (Narang et al. 2017; Ström 1997): how many weights
they leave is a result there, and given here.
"""

from rigl_core.methods.at_start import SNIP, GraSP, LotteryTicket, Static, SynFlow
from rigl_core.methods.dynamic import DSR, MEST, SET, SNFS, DeepR, RigL, RigLITOP, SETAsPublished, SRigL
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
    "Static",
    "SynFlow",
]

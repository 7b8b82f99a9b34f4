"""Topologies in files that every framework reads: found in one, trained on in another. For users.

``storage.save(path, sparse)`` writes one, and ``sparsify(..., initial=path)`` of any adapter begins with it.
"""

from rigl_core.storage.file import load, save
from rigl_core.storage.topology import Topology

__all__ = ["Topology", "load", "save"]

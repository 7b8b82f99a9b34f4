"""The arithmetic that can be traced: the topology update and what it stands on, over any array library.

For whoever wants to know what exactly an update does, and for authors of adapters. `topology` is Algorithm 1.
"""

"""Layers that hold only their active weights: memory and time in proportion to the density.

`rigl_core.sparse` needs NumPy alone. Fast products need the extra ``sparse`` (numba); without it, NumPy computes the
same, slowly.
"""

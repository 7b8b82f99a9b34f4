"""Topologies as NumPy's ``.npz`` of plain bool arrays, by layer name: for programs that know no `rigl_core`."""

from __future__ import annotations

import os
import zipfile
from os import PathLike

import numpy as np

from rigl_core.storage.topology import Topology
from rigl_core.storage.turning import Layout, stored_in
from rigl_core.whole_file import whole_file


def save_arrays(path: str | PathLike[str], topology: Topology) -> None:
    """Write the masks alone. Axes, recipe and step are not kept.

    Raises:
        OSError: if the file cannot be written.
    """
    with whole_file(path) as whole, zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, mask in topology.masks.items():  # `numpy.savez` has no room for some names
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, mask, allow_pickle=False)


def load_arrays(path: str | PathLike[str], layout: Layout) -> Topology:
    """Read masks that have no axes.

    Args:
        path: the file.
        layout: the framework that stored them, which says what their axes are.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is no such file, or damaged, or an array in it is not bool.
    """
    with open(path, "rb") as file:
        try:
            with np.load(file, allow_pickle=False) as arrays:
                masks = {name: arrays[name] for name in arrays.files}
        except Exception as error:  # a damaged file can make its readers raise anything
            raise ValueError(f"{os.fspath(path)} cannot be read as an .npz of arrays: {error!r}.") from error
    return Topology(tuple(stored_in(name, mask.shape, layout) for name, mask in masks.items()), masks)

"""The file of a topology. Nothing in it is executed, and every byte of it is checked.

It holds, one after the other: 24 bytes (a magic number, the version, the lengths of the next two parts); the header as
JSON; the masks, bit-packed, each from a new byte on, in the layers' order; the SHA-256 of all this. The sum tells of
damage, not of who wrote the file: whatever the header says is checked as well.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from rigl_core.model.layers import Layer
from rigl_core.storage import header
from rigl_core.storage.topology import Topology, Training, topology_of
from rigl_core.whole_file import whole_file

MAGIC, VERSION = b"\x89RIGL\r\n\x1a", 1
START = struct.Struct("<8sIIQ")
"""Magic number, version, bytes of the header, bytes of the masks."""
_SUM = hashlib.sha256().digest_size


def save(path: str | PathLike[str], topology: Topology | Training) -> None:
    """Write a topology. Whoever reads the file meanwhile sees the old one or the new one, never a part.

    Args:
        path: the file, by custom ``*.rigl``.
        topology: a `Topology`, or the handle of a training, whose topology it then is.

    Raises:
        OSError: if the file cannot be written; one that was there before stays as it was.
        TypeError, ValueError: if it is no topology, or its recipe is no plain data.
    """
    content = to_bytes(topology_of(topology))
    with whole_file(path) as file:
        file.write(content)


def load(path: str | PathLike[str]) -> Topology:
    """Read a topology that `save` wrote.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is anything else, or damaged; the message names the file and says what is wrong.
    """
    try:
        with Path(path).open("rb") as file:
            return _from_bytes(_read(file))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{os.fspath(path)} cannot be read as a topology: {error}.") from error


def to_bytes(topology: Topology) -> bytes:
    """The content of a topology's file."""
    text = header.write(topology)
    masks = b"".join(np.packbits(topology.masks[layer.name]).tobytes() for layer in topology.layers)
    content = START.pack(MAGIC, VERSION, len(text), len(masks)) + text + masks
    return content + hashlib.sha256(content).digest()


def _read(file: BinaryIO) -> bytes:
    """The content of a file that has the length which its first bytes say, and the right sum."""
    start = file.read(START.size)
    if not start.startswith(MAGIC):
        raise ValueError("it does not begin as one does")
    if len(start) < START.size:
        raise ValueError("it is truncated")
    _, version, of_header, of_masks = START.unpack(start)
    if version != VERSION:
        raise ValueError(f"it is of version {version}, and this program reads version {VERSION}")
    if of_header > header.LARGEST:
        raise ValueError(f"its header has {of_header:,} bytes, more than {header.LARGEST:,}")
    said, there = START.size + of_header + of_masks + _SUM, os.fstat(file.fileno()).st_size
    if there != said:
        raise ValueError(f"it has {there:,} bytes, and says that it has {said:,}: it is truncated, or not this file")
    content = start + file.read(said - START.size)
    if len(content) != said or hashlib.sha256(content[:-_SUM]).digest() != content[-_SUM:]:
        raise ValueError("its checksum is wrong: it is damaged")
    return content


def _from_bytes(content: bytes) -> Topology:
    _, _, of_header, _ = START.unpack_from(content)
    told = header.read(content[START.size : START.size + of_header])
    packed = np.frombuffer(content, np.uint8)[START.size + of_header : -_SUM]
    masks = _masks(told.layers, packed)
    return Topology(told.layers, masks, told.recipe, told.step)


def _masks(layers: Sequence[Layer], packed: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.bool_]]:
    lengths = [-(-layer.size // 8) for layer in layers]
    if sum(lengths) != packed.size:
        raise ValueError(f"its layers need {sum(lengths):,} bytes of masks, and it has {packed.size:,}")
    masks, start = {}, 0
    for layer, length in zip(layers, lengths, strict=True):
        bits = np.unpackbits(packed[start : start + length])
        if bits[layer.size :].any():
            raise ValueError(f"the mask of layer {layer.name!r} goes beyond its {layer.size:,} weights")
        masks[layer.name] = bits[: layer.size].view(np.bool_).reshape(layer.shape)
        start += length
    return masks

"""The file of a topology: nothing is lost, and nothing that is damaged or hostile is read."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rigl_core import Layer, Recipe
from rigl_core.storage import Topology, file, header, load, save
from rigl_core.testing.checks import checks
from tests.storage.topologies import LAYERS, RECIPE, assert_equal, random_topology

CONTENT = file.to_bytes(random_topology())
TEXT = header.write(random_topology())
PACKED = CONTENT[file.START.size + len(TEXT) : -32]
HOSTILE: tuple[Any, ...] = (
    *(-1, 0, 1, 2**31 - 1, 2**31, 2**63, 10**400, 1.5, 1e999, float("nan"), True, None, "", "x", "a\x1b[31m", "\ud800"),
    *([], {}, [[]], [-1], [0], [1], [0, 0], [5, 7], [7, 5], [2**31, 2], [65536, 65536], [2**30, 0], [1] * 33, [1.0]),
    *(["5", "7"], [True, 7], [10**400], {"a": 1}, [{}], [None], "fc.weight", "in", "out", "size", "x" * 10_000),
)


def packed(text: bytes, masks: bytes = PACKED, version: int = file.VERSION) -> bytes:
    """A file with the right lengths and the right sum."""
    content = file.START.pack(file.MAGIC, version, len(text), len(masks)) + text + masks
    return content + hashlib.sha256(content).digest()


@checks("P6")
def test_a_file_gives_back_what_was_saved(tmp_path: Path) -> None:
    path = tmp_path / "found.rigl"
    save(path, random_topology())
    assert_equal(load(path), random_topology())
    assert load(str(path)).recipe == RECIPE.to_dict()
    assert Recipe.from_dict(load(path).recipe or {}) == RECIPE
    assert len(PACKED) == sum(-(-layer.size // 8) for layer in LAYERS)
    with pytest.raises(ValueError, match="read-only"):
        load(path).masks["fc.weight"][0] = True


@checks("P6")
def test_masks_alone_are_enough(tmp_path: Path) -> None:
    save(tmp_path / "x", Topology((Layer("a", (3,)),), {"a": np.ones(3, bool)}))
    assert (load(tmp_path / "x").recipe, load(tmp_path / "x").step) == (None, None)


@checks("P6")
def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "found.rigl"
    save(path, random_topology())

    def fail(descriptor: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space"):
        save(path, random_topology(seed=1))
    assert path.read_bytes() == CONTENT
    assert list(tmp_path.iterdir()) == [path]


@checks("P6", "P3")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it does not begin as one does"),
        (pickle.dumps(random_topology().masks["fc.weight"]), "it does not begin as one does"),
        (CONTENT[:20], "it is truncated"),
        (CONTENT[:-1], "it is truncated"),
        (CONTENT + b"\0", "bytes, and says that it has"),
        (CONTENT[:-40] + b"\xff" + CONTENT[-39:], "its checksum is wrong: it is damaged"),
        (packed(TEXT, version=2), "it is of version 2, and this program reads version 1"),
        (file.START.pack(file.MAGIC, 1, 2**31, 0), "its header has 2,147,483,648 bytes"),
        (file.START.pack(file.MAGIC, 1, 2, 2**63), "it has 24 bytes, and says that it has"),
        (packed(b"[" * 10**6), "cannot be read as a topology"),
        (packed(b"\xff{}"), "'utf-8' codec"),
        (packed(TEXT.replace(b"1234", b"NaN")), "it holds NaN"),
        (packed(TEXT.replace(b"1234", b"1e999")), "which is no finite number"),
        (packed(TEXT.replace(b'"step"', b'"step":1,"step"')), "it has a key twice"),
        (packed(TEXT.replace(b"fc.weight", b"conv.weight")), "two of its layers have the same name"),
        (packed(TEXT.replace(b"[5,7]", b"[5,70]")), "its layers need 64 bytes of masks, and it has 25"),
        (packed(TEXT, PACKED[:-1] + b"\xff"), "the mask of layer 'größe' goes beyond its 9 weights"),
        (packed(TEXT, PACKED + b"\0"), "its layers need"),
    ],
)
def test_what_is_wrong_is_said(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "found.rigl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        load(path)
    assert str(error.value).startswith(f"{path} cannot be read as a topology: ")


def damaged(rng: np.random.Generator) -> Iterator[bytes]:
    """Bits flipped, ends cut, bytes put in, taken out and overwritten."""
    yield from (CONTENT[:length] for length in range(len(CONTENT)))
    for _ in range(4500 - len(CONTENT)):
        at, length = int(rng.integers(len(CONTENT))), int(rng.integers(1, 9))
        flipped = bytearray(CONTENT)
        flipped[at] ^= 1 << int(rng.integers(8))
        noise = rng.bytes(length)
        longer, shorter = CONTENT[:at] + noise + CONTENT[at:], CONTENT[:at] + CONTENT[at + length :]
        yield (bytes(flipped), longer, shorter, CONTENT[:at] + noise + CONTENT[at + length :])[int(rng.integers(4))]


def hostile(rng: np.random.Generator) -> Iterator[bytes]:
    """Headers and masks that say what cannot be, with the right lengths and the right sum."""
    for _ in range(5500):
        told = json.loads(TEXT)
        if rng.random() < 0.3:  # a header that may be no JSON
            text = bytearray(TEXT)
            for at in rng.integers(len(text), size=int(rng.integers(1, 4))):
                text[at] = int(rng.integers(256))
            yield packed(bytes(text))
            continue
        owner = (told, told["layers"], told["recipe"], *told["layers"])[int(rng.integers(3 + len(LAYERS)))]
        keys = list(range(len(owner)) if isinstance(owner, list) else owner)
        key, value = keys[int(rng.integers(len(keys)))], HOSTILE[int(rng.integers(len(HOSTILE)))]
        kind = rng.random()
        if kind < 0.7:
            owner[key] = value
        elif kind < 0.85:
            del owner[key]
        elif isinstance(owner, list):
            owner.append(owner[key])
        else:
            owner["strange"] = value
        yield packed(json.dumps(told).encode(), PACKED if rng.random() < 0.8 else rng.bytes(len(PACKED)))


def outcome(path: Path) -> tuple[Topology | None, str]:
    """What a file holds, or why it holds none."""
    try:
        return load(path), ""
    except ValueError as error:
        return None, str(error)


@checks("P6")
@pytest.mark.parametrize(("mutations", "count", "may_be_read"), [(damaged, 4500, False), (hostile, 5500, True)])
def test_ten_thousand_mutations(
    mutations: Callable[[np.random.Generator], Iterator[bytes]], count: int, may_be_read: bool, tmp_path: Path
) -> None:
    """Each is refused by an error that names the file; where the sum is right, it may be another whole topology."""
    path, refused, seen = tmp_path / "x", 0, 0
    path.touch()
    for content in mutations(np.random.default_rng(0)):
        with path.open("r+b") as opened:  # in place: a disk would wait for each new file
            opened.write(content)
            opened.truncate()
        seen += 1
        topology, error = outcome(path)
        if topology is None:
            assert str(path) in error
            assert len(error) < 3000
            refused += 1
            continue
        assert may_be_read or content == CONTENT
        again = file.to_bytes(topology)
        assert header.read(again[file.START.size : -32 - len(PACKED)]).layers == topology.layers
        assert again[-32 - len(PACKED) : -32] == content[-32 - len(PACKED) : -32]
    assert seen == count
    assert refused > 0.8 * count if may_be_read else refused >= count - 20


@checks("P6")
def test_no_size_that_is_only_said_takes_memory_or_time(tmp_path: Path) -> None:
    path = tmp_path / "x"
    texts = [TEXT.replace(b"[5,7]", b"[%s]" % shape) for shape in (b"46340,46340", b"2147483647", b"65536,32767,0")]
    nested = b"[" * 50_000 + b"]" * 50_000
    contents = [*map(packed, texts), packed(nested), file.START.pack(file.MAGIC, 1, 1 << 24, 2**62) + b"\0" * 99]
    started = time.process_time()
    tracemalloc.start()
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(ValueError, match="cannot be read as a topology"):
            load(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**22
    assert time.process_time() - started < 5


@checks("P6")
def test_very_many_layers_are_read_in_time(tmp_path: Path) -> None:
    layers = tuple(Layer(f"layer{i}", (1,)) for i in range(10_000))
    started = time.process_time()
    save(tmp_path / "x", Topology(layers, {layer.name: np.ones(1, bool) for layer in layers}))
    assert len(load(tmp_path / "x").layers) == len(layers)
    assert time.process_time() - started < 5


@checks("P3")
def test_what_is_no_topology_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"topology is a dict: give a Topology, or the handle of a training\. In JAX"):
        save(tmp_path / "x", {"a": np.ones(3, bool)})  # type: ignore[arg-type]
    layer = Layer("a", (3,))
    for masks, message in (
        ({}, "masks has none for layer 'a'"),
        ({"a": np.ones(3)}, "masks has a float64 array of shape"),
        ({"a": np.ones(4, bool)}, r"masks has a bool array of shape \(4,\) for layer 'a': it must be bool, of shape"),
        ({"a": np.ones(3, bool), "b": np.ones(3, bool)}, "masks has 'b', which no layer is called"),
    ):
        with pytest.raises(ValueError, match=message):
            Topology((layer,), masks)
    with pytest.raises(ValueError, match="characters that cannot be printed"):
        Topology((Layer("a\n", (3,)),), {"a\n": np.ones(3, bool)})
    with pytest.raises(ValueError, match="not JSON compliant"):
        save(tmp_path / "x", Topology((layer,), {"a": np.ones(3, bool)}, {"momentum": float("nan")}))
    assert list(tmp_path.iterdir()) == []

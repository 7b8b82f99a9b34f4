"""A slow implementation of the contract in pure Python, to compare the code under test with.

It never calls the core's own arithmetic. It uses lists, sorting and fractions only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from hashlib import blake2b

SMALLEST_NORMAL = {"float16": 2.0**-14, "bfloat16": 2.0**-126, "float32": 2.0**-126, "float64": 2.0**-1022}


def magnitude(x: float, dtype: str) -> float:
    """|x|, with NaN and subnormal numbers as 0 (rule T4)."""
    return abs(x) if abs(x) >= SMALLEST_NORMAL[dtype] else 0.0


def largest(scores: Sequence[float], among: Sequence[int], count: int) -> set[int]:
    """The positions of the ``count`` largest scores; among equals the lower position is first (rule T3)."""
    return set(sorted(among, key=lambda i: (-scores[i], i))[:count])


def moved(drop_scores: Sequence[float], grow_scores: Sequence[float], mask: Sequence[bool], k: int) -> list[bool]:
    """The mask after an update that moves ``k`` connections (rules T1 and T2)."""
    active = [i for i, is_active in enumerate(mask) if is_active]
    kept = largest(drop_scores, active, len(active) - k)
    others = [i for i in range(len(mask)) if i not in kept]
    grown = largest(grow_scores, others, k)
    return [i in kept or i in grown for i in range(len(mask))]


def rigl_mask(
    weight: Sequence[float], gradient: Sequence[float], mask: Sequence[bool], k: int, dtype: str
) -> list[bool]:
    """RigL's update of one layer, which stays as it is without information (rule T6)."""
    if not any(magnitude(x, dtype) for x in gradient):
        return list(mask)
    return moved([magnitude(x, dtype) for x in weight], [magnitude(x, dtype) for x in gradient], mask, k)


def set_mask(
    weight: Sequence[float], seed: int, layer: str, update: int, mask: Sequence[bool], k: int, dtype: str
) -> list[bool]:
    """SET's update of one layer."""
    return moved(
        [magnitude(x, dtype) for x in weight], random_scores(random_key(seed, layer, update), len(mask)), mask, k
    )


def fires(step: int, begin: int, end: int, every: int) -> bool:
    """Whether an update fires at a step (rule S1)."""
    return step in range(begin, end, every)


def drop_count(fraction: float, active: int) -> int:
    """The number of connections that an update drops (rule S4)."""
    return math.floor(Fraction(f"{fraction:.12f}") * active)


def cosine(alpha: float, step: int, begin: int, end: int) -> float:
    """The cosine drop fraction at a step (rule S3)."""
    return alpha / 2 * (1 + math.cos(math.pi * ((step - begin) / (end - begin))))


def random_key(seed: int, layer: str, update: int) -> tuple[int, int]:
    """The key of a layer's random scores at an update: two unsigned 32-bit numbers (rule N1)."""
    digest = blake2b(f"{seed}:{update}:{len(layer)}:{layer}".encode(), digest_size=8).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")


def random_scores(key: tuple[int, int], size: int) -> list[int]:
    """The random score of each flat index, in arithmetic modulo 2**32 (rule N1)."""
    first, second = key[0] % 2**32, key[1] % 2**32
    return [_mixed(_mixed(index ^ first) ^ second) % 2**31 for index in range(size)]


def _mixed(x: int) -> int:
    x = (x ^ x >> 16) * 0x85EBCA6B % 2**32
    x = (x ^ x >> 13) * 0xC2B2AE35 % 2**32
    return x ^ x >> 16


def initial_mask(seed: int, layer: str, size: int, active: int) -> list[bool]:
    """The initial mask by random scores (rule N2)."""
    chosen = largest(random_scores(random_key(seed, layer, -1), size), range(size), active)
    return [i in chosen for i in range(size)]

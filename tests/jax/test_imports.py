"""The modules that importing the adapter needs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import rigl_backends.jax


@pytest.mark.parametrize("missing", ["jax", "optax"])
def test_a_missing_framework_is_named_with_its_extra(missing: str) -> None:
    code = f"import sys; sys.modules['{missing}'] = None; import rigl_backends.jax"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "ImportError: rigl_backends.jax needs JAX and optax: pip install 'rigl-core[jax]'" in result.stderr


def test_flax_and_equinox_are_not_loaded() -> None:
    code = "import sys, rigl_backends.jax; print({'flax', 'equinox', 'torch', 'tensorflow'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


def test_the_public_names_exist() -> None:
    assert all(hasattr(rigl_backends.jax, name) for name in rigl_backends.jax.__all__)

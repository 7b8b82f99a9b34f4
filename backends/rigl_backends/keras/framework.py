"""The framework that Keras computes with: `on_jax` or `on_torch`, which offer the same names."""

from __future__ import annotations

import importlib
from typing import Any

import keras

framework: Any = importlib.import_module(f"rigl_backends.keras.on_{keras.backend.backend()}")

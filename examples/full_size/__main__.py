"""Repeat the RigL paper's experiments at full size: ``python examples/full_size wrn22-2 --data DIR``."""

from __future__ import annotations

try:
    from whole_program import main
except ModuleNotFoundError as error:
    package = str(error.name).partition(".")[0]
    raise SystemExit(f"full_size needs {package}: pip install 'rigl-core[examples,torch]' torchvision") from None
except RuntimeError as error:  # of torchvision, while it is imported
    raise SystemExit(
        f"full_size: PyTorch and torchvision must be of one build, for CPUs or for CUDA: {error}"
    ) from None

main()

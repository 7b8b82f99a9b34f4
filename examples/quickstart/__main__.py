"""Train sparse networks on real images, and see what RigL does: ``python examples/quickstart``."""

from __future__ import annotations

try:
    from cli import main

    main()
except ModuleNotFoundError as error:
    package = str(error.name).partition(".")[0]
    raise SystemExit(f"quickstart needs {package}: pip install 'rigl-core[examples,torch]'") from None

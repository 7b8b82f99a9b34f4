"""Reports for people: tables with rich, plots with matplotlib. They need the extra ``report``.

They show the plain values of `rigl_core`: plans, sparsity and cost tables, effective architectures and histories. No
other folder of `rigl_core` imports this one.
"""

try:
    import matplotlib as _matplotlib  # noqa: F401
    import rich as _rich  # noqa: F401
except ModuleNotFoundError as error:
    if error.name not in ("matplotlib", "rich"):
        raise
    raise ImportError("rigl_core.report needs rich and matplotlib: pip install 'rigl-core[report]'") from error

from rigl_core.report import plots, tables

__all__ = ["plots", "tables"]

"""``python -m rigl_core.testing --harness MODULE:CLASS``: the conformance suite on an adapter of anyone's.

Modules are found from the current folder too. All other arguments are pytest's, such as ``-x`` or ``-k topology``.
"""

from __future__ import annotations

import os
import subprocess
import sys

_SUITE = ["-p", "rigl_core.testing.plugin", "--pyargs", "rigl_core.testing.properties"]
# pytest looks for settings above the suite, where any project may be whose environment this is.
_NO_SETTINGS = ["-c", os.devnull, "--rootdir", os.curdir, "-p", "no:cacheprovider"]

if __name__ == "__main__":
    # In a process of its own: pytest wants to be there before Hypothesis, which rigl_core.testing imports.
    sys.exit(subprocess.call([sys.executable, "-m", "pytest", *_SUITE, *_NO_SETTINGS, *sys.argv[1:]]))

"""``python -m rigl_core.testing --harness MODULE:CLASS``: run the conformance suite on any adapter.

Modules in the current folder are found as well. All other arguments go to pytest, such as ``-x`` or ``-k topology``.
"""

from __future__ import annotations

import os
import subprocess
import sys

_SUITE = ["-p", "rigl_core.testing.plugin", "--pyargs", "rigl_core.testing.properties"]
# pytest would look for settings in the folders above the suite, which may belong to any project.
_NO_SETTINGS = ["-c", os.devnull, "--rootdir", os.curdir, "-p", "no:cacheprovider"]

if __name__ == "__main__":
    # A new process, since pytest has to be imported before Hypothesis, and rigl_core.testing has imported Hypothesis.
    sys.exit(subprocess.call([sys.executable, "-m", "pytest", *_SUITE, *_NO_SETTINGS, *sys.argv[1:]]))

"""``python -m conformance_tests.peers MODULE:CLASS FILE``: run the properties of this folder on a harness, eager.

What became of each goes into FILE. The exit status is 0 unless pytest could not run them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PLUGINS = ["-p", "rigl_core.testing.plugin", "-p", "conformance_tests.peers.recorder", "-p", "no:cacheprovider"]
SETTINGS = ["--noconftest", "-c", os.devnull, "--rootdir", str(HERE.parents[1]), "-q", "--tb=no", "-k", "eager"]


def main(harness: str, file: str) -> int:
    files = sorted(map(str, HERE.glob("rules_of_*.py")))
    chosen = ["--harness", harness, "--record", file]
    status = subprocess.call([sys.executable, "-m", "pytest", *PLUGINS, *SETTINGS, *files, *chosen])
    return 0 if status in (0, 1) else status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

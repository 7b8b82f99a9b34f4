"""``python -m rigl_core show|diff|convert FILE``: topologies in files (extra ``report`` for the tables)."""

import sys

from rigl_core.storage.command import main

if __name__ == "__main__":
    sys.exit(main())

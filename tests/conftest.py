"""No test is timed: machines are slow now and then."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("untimed", settings(deadline=None))
settings.load_profile("untimed")

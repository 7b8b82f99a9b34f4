"""The category of all warnings of this project."""

from __future__ import annotations


class SparsityWarning(UserWarning):
    """Something that goes on, and probably is not what the user wants: the message says what to do."""

"""What can go wrong between a checkpoint and a bundle."""

from __future__ import annotations


class ExportError(Exception):
    """Nothing was written: the message names the network or file, what is wrong and what to do."""


class CheckpointError(ExportError):
    """Weights that are missing, unreadable or do not fit their configuration."""

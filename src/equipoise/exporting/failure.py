"""How an export ends that is not the user's fault."""

from __future__ import annotations


class ExportFailed(RuntimeError):
    """The export could not be proven, or could not be sent; the message has the figures, or what to do."""

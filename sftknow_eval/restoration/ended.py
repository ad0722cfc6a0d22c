"""What stands where a model was whose weights are no longer those of a known model."""

from __future__ import annotations

from typing import Any

from sftknow_eval.errors import CheckpointError


class EndedEngine:
    """A model that cannot be used: whatever is asked of it is an error."""

    def __init__(self, why: str) -> None:
        self.why = why

    def __getattr__(self, name: str) -> Any:
        raise CheckpointError(f"The engine was ended, it cannot be used any more: {self.why}")

    def __call__(self, *_: Any, **__: Any) -> Any:
        """Refuse."""
        raise CheckpointError(f"The engine was ended, it cannot be used any more: {self.why}")

"""Fine-tuning by strategies through TRL, and a callback that watches knowledge in any training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sftknow_eval.training.knowledge import KnowledgeCallback

__all__ = ["KnowledgeCallback"]


def __getattr__(name: str) -> Any:
    # transformers takes seconds to import, and the commands import this package.
    if name in __all__:
        from sftknow_eval.training import knowledge

        return getattr(knowledge, name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")

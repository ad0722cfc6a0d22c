"""Several processes that train one model, as `accelerate launch` and torchrun start them.

    accelerate launch --num_processes 8 -m sftknow_eval train BASE ...

All of them compute; the first alone writes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from sftknow_eval.errors import SettingsError
from sftknow_eval.training.settings import TrainSettings


@dataclass(frozen=True, slots=True)
class Processes:
    """This process among those that train together."""

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes and speaks."""
        return self.rank == 0

    @classmethod
    def of_environment(cls) -> Processes:
        """Return what the launcher set, or one process alone."""
        return cls(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))

    def rows(self, settings: TrainSettings, accumulated: int) -> int:
        """Return how many sequences a process computes at a time.

        Args:
            settings: with the batch size over all.
            accumulated: batches before each step (`gradient_accumulation_steps`).

        Raises:
            SettingsError: the batch cannot be divided evenly.
        """
        parts = self.count * accumulated
        if settings.batch_size % parts:
            raise SettingsError(
                f"A batch of {settings.batch_size} cannot be divided over {self.count} processes "
                f"with {accumulated} accumulated batches each. Give a --batch-size that is a "
                f"multiple of {parts}."
            )
        return settings.batch_size // parts


def refuse_idle_gpus(processes: Processes) -> None:
    """Refuse to start one process where there are several GPUs.

    Raises:
        SettingsError: there are.
    """
    import torch

    if processes.count == 1 and torch.cuda.is_available() and torch.cuda.device_count() > 1:
        raise SettingsError(
            f"One process trains on one GPU, but sees {torch.cuda.device_count()}. Choose one with "
            "CUDA_VISIBLE_DEVICES=0 before the command, or use all: accelerate launch -m "
            "sftknow_eval train ..."
        )

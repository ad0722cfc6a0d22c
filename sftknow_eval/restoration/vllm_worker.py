"""What a vLLM worker can be told besides computing: to swap its weights, and what it holds.

vLLM adds the class to its workers' (`worker_extension_cls`); `collective_rpc` calls it.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from sftknow_eval.restoration.ended import EndedEngine
from sftknow_eval.restoration.vllm_loader import RestoringLoader, pack_tied_heads, report_of


class RestorationWorker:
    """Methods of a worker, by names that no worker of vLLM has."""

    vllm_config: Any
    model_runner: Any

    def sftknow_report(self) -> dict[str, Any]:
        """Return what this worker's model is."""
        return dataclasses.asdict(report_of(self.model_runner.get_model()))

    def sftknow_swap(self, choice: dict[str, Any]) -> dict[str, Any]:
        """Load another restoration of the same fine-tune into the live model.

        On an error the model is gone: half of its weights may be of one restoration and half
        of another, and nothing may be computed with them.
        """
        # Defined by vLLM's worker; stated here, an extension's attribute would shadow it.
        reload_weights = self.reload_weights  # type: ignore[attr-defined]
        try:
            model = self.model_runner.get_model()
            loader = RestoringLoader(
                dataclasses.replace(self.vllm_config.load_config, model_loader_extra_config=choice)
            )
            weights = loader.get_all_weights(self.vllm_config.model_config, model)
            reload_weights(weights_iterator=weights)
            pack_tied_heads(model)
            return dataclasses.asdict(loader.verify(model))
        except BaseException as error:
            self.model_runner.model = EndedEngine(str(error))
            raise

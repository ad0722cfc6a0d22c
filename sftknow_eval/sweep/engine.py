"""The one engine of a sweep: started with the first model, from then on swapped in place."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sftknow_eval.errors import SettingsError
from sftknow_eval.evaluation.engines import start_engine
from sftknow_eval.restoration.lm_eval_models import make_known
from sftknow_eval.restoration.on_load import Choice
from sftknow_eval.restoration.recipe import Recipe
from sftknow_eval.restoration.run import ModelName
from sftknow_eval.restoration.whole import whole_model
from sftknow_eval.sweep.request import SweepRequest


class LiveEngine:
    """lm-eval's model of a pair of checkpoints; close it, or use `with`.

    Args:
        request: names the pair, the backend and its arguments.
        scratch: where the merged model of an adapter lies as long as the engine lives.
        progress: told what is done.
    """

    def __init__(
        self,
        request: SweepRequest,
        scratch: Path,
        progress: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._request, self._scratch, self._progress = request, scratch, progress
        self._model: Any = None
        self._merged = ExitStack()

    @property
    def model(self) -> Any:
        """lm-eval's model, once `load` has started it."""
        assert self._model is not None
        return self._model

    def load(self, file: Path, name: str) -> dict[str, Any]:
        """Get the engine to hold a recipe's model; return the record of it.

        Args:
            file: of the recipe.
            name: of the model, for the progress.

        Raises:
            CheckpointError: the swap failed; the engine is ended then.
            SettingsError: the engine says that it holds another restoration.
        """
        choice = Choice(base=self._request.base, recipe=str(file))
        if self._model is None:
            self._progress(f"{name}: starting the engine")
            self._model = self._start(choice)
        else:
            self._progress(f"{name}: swapping weights")
            self._model.restore(choice)
        record: dict[str, Any] = self._model.get_model_info()["restoration"]
        if record["restoration"] != Recipe.read(file).digest:
            raise SettingsError(f"The engine holds another restoration than that of {name}.")
        return record

    def _start(self, choice: Choice) -> Any:
        request = self._request
        engine_args = dict(request.engine_args)
        names = ModelName(request.base), ModelName(request.finetuned, engine_args.get("revision"))
        model = self._merged.enter_context(whole_model(*names, self._scratch))
        if model != request.finetuned:
            engine_args.pop("revision", None)  # the adapter's
        registered = f"sftknow-{request.backend}"
        make_known(registered)
        arguments = {"pretrained": model, **choice.given(), **engine_args}
        return start_engine(request.backend, arguments, request.batch_size, registered=registered)

    def close(self) -> None:
        """Stop the engine, if it was started."""
        if self._model is not None:
            self._model.close()
        self._merged.close()

    def __enter__(self) -> LiveEngine:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

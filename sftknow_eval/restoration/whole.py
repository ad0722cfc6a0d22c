"""An adapter as a whole model on disk, for engines that restore weights while they load."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from sftknow_eval.drift.scan import Ranking
from sftknow_eval.models import is_adapter, locate_model
from sftknow_eval.restoration.output import save_checkpoints
from sftknow_eval.restoration.pair import match
from sftknow_eval.restoration.regions import Region
from sftknow_eval.restoration.run import ModelName, make_recipes, opened


@contextlib.contextmanager
def whole_model(base: ModelName, finetuned: ModelName, folder: Path) -> Iterator[str]:
    """Yield a folder or hub id that engines can load: an adapter is merged for the time.

    Args:
        base: of the adapter.
        finetuned: a whole model, which is yielded as it is, or an adapter.
        folder: where the merged model is written; it is removed when all went well, and stays
            for the next try otherwise.

    Raises:
        CheckpointError: the adapter does not fit the base.
        OutOfSpace: the disk filled up.
    """
    if not is_adapter(locate_model(finetuned.name, finetuned.revision)):
        yield finetuned.name
        return
    names, region = (base, finetuned), Region()
    with opened(*names) as models:
        pair = match(*models, region)
        recipes = make_recipes(pair, names, region, [0.0], Ranking())
        written = save_checkpoints(pair, recipes, folder)
    yield str(written[0].path)
    shutil.rmtree(folder, ignore_errors=True)

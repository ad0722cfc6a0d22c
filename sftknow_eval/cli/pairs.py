"""What the verbs on a pair of checkpoints share: lists of numbers, regions and progress bars."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from sftknow_eval.errors import SettingsError

if TYPE_CHECKING:
    from sftknow_eval.restoration.regions import Region


def split_numbers(option: str, text: str) -> list[float]:
    """Read `1,3,5` as percentages, sorted, each once.

    Raises:
        SettingsError: not numbers from 0 to 100.
    """
    try:
        numbers = sorted({float(piece) for piece in text.split(",")})
    except ValueError as error:
        raise SettingsError(f"{option} {text!r}: expected numbers such as 1,3,5,10.") from error
    wrong = [number for number in numbers if not 0 <= number <= 100]
    if wrong:
        raise SettingsError(f"{option} {text!r}: {wrong[0]:g} is not from 0 to 100 percent.")
    return numbers


def chosen_region(
    name: str, layers: str | None, include: list[str] | None, exclude: list[str] | None
) -> Region:
    """Return the region that the options name.

    Raises:
        SettingsError: an option that no region has.
    """
    from sftknow_eval.restoration.regions import REGIONS, Region, parse_layers

    if name not in REGIONS:
        raise SettingsError(f"--region {name!r}: expected one of {', '.join(REGIONS)}.")
    return Region.model_validate(
        {
            "name": name,
            "layers": parse_layers(layers) if layers else None,
            "include": tuple(include or ()),
            "exclude": tuple(exclude or ()),
        }
    )


@contextlib.contextmanager
def shown_progress(quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Yield a function that moves a progress bar; off without a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal) as bars:
        tasks: dict[str, TaskID] = {}

        def advance(task: str, done: int, total: int) -> None:
            if task not in tasks:
                tasks[task] = bars.add_task(task, total=total)
            bars.advance(tasks[task], done)

        yield advance

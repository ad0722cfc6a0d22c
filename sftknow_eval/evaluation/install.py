"""The task folder inside an installed lm-eval, put there and taken out again.

lm-eval 0.4.13 finds tasks only below its own `tasks` folder and under `--include_path`; its
search does not follow links. So the YAML files are copied, with a list of what was copied:
removing takes out those files and nothing else.
"""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path

from sftknow_eval.artifacts import read_json, write_json
from sftknow_eval.errors import MissingDependency, SettingsError

TASK_FOLDER = "sftknow_cbqa"
_LIST = ".sftknow-installed.json"


def tasks_path() -> Path:
    """Return the folder to give lm-eval as `--include_path`.

    In a wheel it lies in the package, in a checkout beside it.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "tasks", package.parent / "tasks"):
        if (folder / TASK_FOLDER).is_dir():
            return folder
    raise SettingsError(
        f"The task files are missing: neither {package / 'tasks'} nor {package.parent / 'tasks'} "
        f"holds {TASK_FOLDER}. Install sftknow-eval again."
    )


def lm_eval_tasks() -> Path:
    """Return the `tasks` folder of the installed lm-eval, without importing it.

    Raises:
        MissingDependency: lm-eval is not installed.
    """
    found = importlib.util.find_spec("lm_eval")
    if found is None or not found.submodule_search_locations:
        raise MissingDependency("lm_eval", "Installing tasks", "pip install lm_eval")
    return Path(next(iter(found.submodule_search_locations))) / "tasks"


def install_tasks(into: Path | None = None) -> Path:
    """Copy the tasks into lm-eval (`into`, its tasks folder); again is no change.

    Raises:
        SettingsError: the place is taken by a folder that is not ours, or not writable.
    """
    target = (into or lm_eval_tasks()) / TASK_FOLDER
    source = tasks_path() / TASK_FOLDER
    if target.exists() and not (target / _LIST).is_file():
        raise SettingsError(
            f"{target} exists and was not made by 'sftknow install-tasks'; it is left as it is. "
            "Move it away and run the command again."
        )
    files = {str(f.relative_to(source)): _digest(f) for f in sorted(_files(source))}
    if target.exists() and read_json(target / _LIST) == files and _intact(target, files):
        return target
    try:
        if target.exists():
            remove_tasks(into)
        for name in files:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, target / name)
        write_json(target / _LIST, files)
    except PermissionError as error:
        raise SettingsError(
            f"{target} cannot be written: {error}. Use 'sftknow lm-eval', or lm_eval with "
            f"--include_path {tasks_path()}; both need no installed tasks."
        ) from error
    return target


def remove_tasks(into: Path | None = None) -> tuple[Path, list[str]]:
    """Take out what was installed; return the folder and what was left in it.

    Files that were changed since, or that someone added, stay. A folder that is not ours, or
    none, is left as it is.

    Raises:
        SettingsError: the folder was not made by `install_tasks`, or is not writable.
    """
    target = (into or lm_eval_tasks()) / TASK_FOLDER
    if not target.exists():
        return target, []
    if not (target / _LIST).is_file():
        raise SettingsError(
            f"{target} was not made by 'sftknow install-tasks'; it is left as it is."
        )
    try:
        for name, digest in read_json(target / _LIST).items():
            file = target / name
            if file.is_file() and _digest(file) == digest:
                file.unlink()
        (target / _LIST).unlink()
        left = sorted(str(f.relative_to(target)) for f in _files(target))
        if not left:
            shutil.rmtree(target)
    except PermissionError as error:
        raise SettingsError(f"{target} cannot be removed: {error}.") from error
    return target, left


def _files(folder: Path) -> Iterator[Path]:
    return (f for f in folder.rglob("*") if f.is_file() and "__pycache__" not in f.parts)


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _intact(folder: Path, files: dict[str, str]) -> bool:
    return all(
        (folder / name).is_file() and _digest(folder / name) == value
        for name, value in files.items()
    )

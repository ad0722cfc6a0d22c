"""A training in several processes: `sftknow train` under a launcher such as accelerate's."""

from __future__ import annotations

import subprocess
import sys

import yaml

from sftknow_eval.errors import ModelError, SettingsError
from sftknow_eval.study.job import Job, LeftOut

_TAIL = 2_000


def launched(job: Job) -> bool:
    """Train as the step says in as many processes as the launcher starts.

    Raises:
        LeftOut: the stratum has fewer facts than asked for.
        ModelError: the training failed; the end of what it printed is in the message.
        SettingsError: the launcher is not installed.
    """
    command = [*job.settings["launch"], "sftknow_eval", "train", *_options(job)]
    if command[0] == "accelerate":  # that of this environment, whatever the path says
        command[:1] = [sys.executable, "-m", "accelerate.commands.accelerate_cli"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise SettingsError(
            f"The launcher '{command[0]}' (compute.launch) cannot be started: {error.strerror}."
        ) from error
    if done.returncode:
        said = (done.stderr or done.stdout)[-_TAIL:].strip()
        if "in-domain train facts of" in said:
            raise LeftOut(said)
        raise ModelError(f"The training ended with exit code {done.returncode}: {said}")
    return False


def _options(job: Job) -> list[str]:
    settings, inputs = job.settings, job.inputs
    strategy = job.out.with_name(f"{settings['strategy']['name']}.yaml")
    strategy.parent.mkdir(parents=True, exist_ok=True)
    strategy.write_text(yaml.safe_dump(settings["strategy"], sort_keys=False), encoding="utf-8")
    options = [inputs["base"], "--out", str(job.out), "--strategy", str(strategy)]
    options += ["--seed", str(settings["draw"])]
    if settings["revision"]:
        options += ["--revision", settings["revision"]]
    if settings["n"] is not None:
        options += ["--n", str(settings["n"])]
    for name in ("prompts",) if "prompts" in inputs else ("mastery", "data"):
        if name in inputs:
            options += [f"--{name}", inputs[name]]
    if "prompts" not in inputs:
        options += ["--stratum", str(settings["stratum"])]
    for name, value in settings["training"].items():
        option = f"--{name.replace('_', '-')}"
        if value is True:
            options.append(option)
        elif value is not False and value is not None:
            options += [option, str(value)]
    return options

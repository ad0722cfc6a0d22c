"""`--only`: which steps are meant, with all that they need."""

from __future__ import annotations

from sftknow_eval.config_faults import nearest
from sftknow_eval.errors import SettingsError
from sftknow_eval.study.plan import Plan


def wanted_steps(plan: Plan, only: str | None) -> set[str]:
    """Return the names of the steps that are meant and of those that they need.

    Args:
        plan: all steps.
        only: a kind of step, a run's id, a step's name or the folder above it; None for all.

    Raises:
        SettingsError: nothing is called so; the nearest name is given.
    """
    if only is None:
        return set(plan.steps)
    asked = only.strip("/")
    meant = {
        name
        for name, step in plan.steps.items()
        if asked in (step.kind, step.run, name) or name.startswith(f"{asked}/")
    }
    if not meant:
        kinds = list(dict.fromkeys(step.kind for step in plan.steps.values()))
        near = nearest(asked, [*kinds, *plan.runs, *plan.steps])
        hint = f" Did you mean '{near}'?" if near else ""
        raise SettingsError(
            f"--only '{only}' names no step, run or kind of step of this study.{hint} Kinds are "
            f"{', '.join(kinds)}; --dry-run lists the runs."
        )
    for name in reversed(plan.steps):
        if name in meant:
            meant.update(plan.steps[name].needs)
    return meant

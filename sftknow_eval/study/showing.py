"""Actions that show a study: the report, and a leaderboard of its own rows."""

from __future__ import annotations

from sftknow_eval.errors import SettingsError
from sftknow_eval.study.job import Job


def report(job: Job) -> None:
    """Write the report: the paper's tables and figures beside the measured ones."""
    from sftknow_eval.report.study_report import study_report

    study_report(job.root, job.out)


def board(job: Job) -> None:
    """Submit the study's rows to a leaderboard of its own, verify them, and build its site.

    Raises:
        SettingsError: a row was refused.
    """
    from sftknow_eval.leaderboard.intake import Naming, submit
    from sftknow_eval.leaderboard.site.build import build
    from sftknow_eval.leaderboard.submit import Declaration
    from sftknow_eval.leaderboard.verify import verify

    root = job.out / "leaderboard"
    declared = Declaration(**job.settings)
    submit([job.root], root, declared, Naming(existing="keep"), lambda line: None)
    refused = [verdict for verdict in verify(root) if verdict.reasons]
    if refused:
        first = refused[0]
        raise SettingsError(
            f"The board refuses {len(refused)} of the study's rows, such as {first.path}: "
            f"{'; '.join(map(str, first.reasons))}"
        )
    build(root, job.out / "site")

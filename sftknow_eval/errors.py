"""Every error a user can meet, drawn as one tree.

    SftknowError
    ├── DataError            archive, rows, aliases, relation lists
    ├── TemplateError        completion templates
    ├── ModelError           a model that is unknown, unreadable or incomplete
    │   ├── OtherBase        a fine-tune or adapter whose base is not the one given
    │   └── TrainingDiverged a loss or a weight that is no longer a number
    ├── MissingDependency    an optional package; carries the install command
    ├── MasteryError         a mastery table that is missing or belongs elsewhere
    ├── SettingsError        options that do not fit each other or an earlier run
    │   └── TooFewFacts      fewer facts to train on than were asked for
    ├── CheckpointError      weight files that cannot be read, compared or written
    ├── SubmissionError      a leaderboard submission that is malformed or does not hold
    └── OutOfSpace           a disk that filled up; what was finished is kept

Each message names the thing, what was found, what was expected and the remedy. The
command line prints it without a traceback and exits with code 2.
"""

from __future__ import annotations


class SftknowError(Exception):
    """Base of all errors that a user can act on."""


class DataError(SftknowError):
    """Facts could not be read: archive, row, alias file or relation list."""


class TemplateError(SftknowError):
    """Completion templates are missing or malformed; all faults are listed."""


class ModelError(SftknowError):
    """A model is unknown, unreadable or lacks a part such as its tokenizer."""


class OtherBase(ModelError):
    """A fine-tune or an adapter was made from another base than the one given."""


class TrainingDiverged(ModelError):
    """A training's loss or weights are no longer numbers; nothing was saved."""


class MissingDependency(SftknowError):
    """An optional package is not installed."""

    def __init__(self, package: str, needed_for: str, install: str) -> None:
        super().__init__(
            f"{needed_for} needs the package '{package}', which is not installed. "
            f"Install it with: {install}"
        )


class MasteryError(SftknowError):
    """A mastery table is missing, unreadable or belongs to other facts or another base."""


class SettingsError(SftknowError):
    """Options contradict each other, or differ from the run already in the folder."""


class TooFewFacts(SettingsError):
    """There are fewer facts to train on than were asked for."""


class CheckpointError(SftknowError):
    """Weight files cannot be read, compared or written."""


class SubmissionError(SftknowError):
    """A leaderboard submission is malformed, or its numbers do not follow from its evidence."""


class OutOfSpace(SftknowError):
    """The disk is full; finished parts stay usable."""

"""Every error Oddment raises on purpose.

    OddmentError
    ├── UsageError                 the call itself is wrong: exit code 2
    │   ├── ParameterError         a parameter breaks its rule (also a ValueError)
    │   └── MissingExtraError      an optional part is not installed (also an ImportError)
    ├── ImageError                 one file cannot be used: becomes a rejected row
    ├── DataError                  the images as a whole cannot be used
    │   └── TooFewImagesError      not enough of them for what was asked
    ├── ModelFileError             not a model file, damaged, altered or of an unknown version
    └── TrainingError              training diverged or cannot go on
        └── CheckpointError        a checkpoint is damaged or belongs to other data

A message names the parameter or file, the rule, the value received and the remedy. The command line prints it without
a traceback and exits with 2 (`UsageError`) or 3 (all others).
"""

__all__ = [
    "CheckpointError",
    "DataError",
    "ImageError",
    "MissingExtraError",
    "ModelFileError",
    "OddmentError",
    "ParameterError",
    "TooFewImagesError",
    "TrainingError",
    "UsageError",
]


class OddmentError(Exception):
    """Base of every error raised on purpose; `exit_code` is what the command line exits with."""

    exit_code = 3


class UsageError(OddmentError):
    """The call itself is wrong: nothing was read or written."""

    exit_code = 2


class ParameterError(UsageError, ValueError):
    """A parameter breaks its rule."""


class MissingExtraError(UsageError, ImportError):
    """An optional part of Oddment is needed and not installed."""


class ImageError(OddmentError):
    """One file cannot be used as an image; the message is the reason, without the file's name."""


class DataError(OddmentError):
    """The images as a whole cannot be used."""


class TooFewImagesError(DataError):
    """There are too few images for what was asked."""


class ModelFileError(OddmentError):
    """A model file is damaged, altered, foreign, or of a version this release cannot read."""


class TrainingError(OddmentError):
    """Training diverged or cannot go on."""


class CheckpointError(TrainingError):
    """A checkpoint is damaged, or belongs to other images or settings."""

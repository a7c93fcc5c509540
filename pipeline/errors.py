"""Every error that speechchat raises on purpose, and the exit status of the command line for each.

    SpeechchatError                       one clear line for the user, no traceback
    ├── UsageError                  2     what was asked cannot be done: the line names the way out
    │   ├── ConfigError             2     preset, YAML, key or value
    │   ├── RunMismatchError        2     the folder holds a run of another configuration
    │   └── RunFolderError          2     the folder is no run, or somebody else is writing to it
    ├── ModelError                  3     a model file is missing or is not the one it should be
    ├── EndpointError               3     an HTTP endpoint is down, refuses the key or lacks the model: ends the run
    ├── BudgetError                 5     the run may not spend more on the LLM: ends the run
    ├── StorageError                4     no space left, read-only, a store that fails
    ├── DataError                   1     a shard, index or manifest is not what was published
    ├── RunIncomplete               1     the run ended but lost units or workers
    └── BackendError                1     one request failed; `retryable` says whether a retry can help

Anything else that is raised is a bug: it keeps its traceback.
"""

from __future__ import annotations


class SpeechchatError(Exception):
    """Base of all errors meant for users. `str(error)` is one line that names the way out."""

    exit_code = 1


class UsageError(SpeechchatError):
    exit_code = 2


class ConfigError(UsageError):
    pass


class RunMismatchError(UsageError):
    pass


class RunFolderError(UsageError):
    pass


class ModelError(SpeechchatError):
    exit_code = 3


class EndpointError(SpeechchatError):
    exit_code = 3


class BudgetError(SpeechchatError):
    exit_code = 5


class StorageError(SpeechchatError):
    exit_code = 4


class DataError(SpeechchatError):
    exit_code = 1


class RunIncomplete(SpeechchatError):
    exit_code = 1


class BackendError(SpeechchatError):
    """A backend could not serve one request.

    `retryable`: a second try of the same request may succeed (a timeout, a full queue).
    """

    exit_code = 1

    def __init__(self, message: str, retryable: bool = False):
        super().__init__(message)
        self.retryable = retryable

    def __reduce__(self) -> tuple[type, tuple[str, bool]]:
        return type(self), (str(self), self.retryable)

"""Every error that a person can meet, in one tree.

    RetakeError            code, message, hint; the command line turns it into an exit status
    ├── ConfigError        E2xx  exit 2    an unknown key, a value out of range, a wrong box
    ├── MediaError         E4xx  exit 4    a clip or an image that cannot or should not be read
    ├── MachineError       E3xx, E5xx  exit 5    missing weights, a full disk, a missing codec
    ├── SomeFailedError    E7xx  exit 3    a dataset of which some edits could not be made
    └── IntegrityError     E6xx  exit 6    the store or an input is not what it was
        └── DamagedError   E600            one stored object; the runners heal it by recomputing

`message` says what went wrong and where, `hint` what to type next. Codes are listed in docs/errors.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class RetakeError(Exception):
    """Base of every expected failure. Raised with a stable code, a message and a next step."""

    exit_code = 1

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(code, message, hint)
        self.code, self.message, self.hint = code, message, hint

    def __str__(self) -> str:
        return f"{self.code} {self.message}" + (f"\n{self.hint}" if self.hint else "")

    def as_json(self) -> dict[str, str]:
        """The machine form: `{"code", "message", "hint"}`."""
        return {"code": self.code, "message": self.message, "hint": self.hint}


class ConfigError(RetakeError):
    """What was asked for makes no sense: unknown key, value out of range, box outside the frame."""

    exit_code = 2


class MediaError(RetakeError):
    """A clip or an image that cannot be read, or that is refused before it is read."""

    exit_code = 4


class MachineError(RetakeError):
    """The machine lacks something: disk space, a codec, weights, a library."""

    exit_code = 5


class SomeFailedError(RetakeError):
    """A dataset was gone through, and some of its edits could not be made."""

    exit_code = 3


class IntegrityError(RetakeError):
    """Stored or given bytes are not what they were promised to be."""

    exit_code = 6


class DamagedError(IntegrityError):
    """A stored object is missing or does not match its digest. `sha256` names it."""

    def __init__(self, sha256: str, reason: str) -> None:
        super().__init__(
            "E600",
            f"stored object {sha256[:12]} is damaged: {reason}",
            "It was set aside and is made again on the next run; `retake verify` checks the whole store.",
        )
        self.sha256, self.reason = sha256, reason

    def __reduce__(self):
        return DamagedError, (self.sha256, self.reason)


@contextmanager
def about(setting: str) -> Iterator[None]:
    """What is raised within it says, in front, which setting it is about."""
    try:
        yield
    except RetakeError as error:
        error.message = f"{setting}: {error.message}"
        error.args = error.code, error.message, error.hint  # by which it travels between processes
        raise


def did_you_mean(name: str, known: list[str]) -> str:
    """`Did you mean X?` for a near miss, else the list of what exists."""
    import difflib

    if not known:
        return "There is none."
    within = [one for one in known if len(name) > 2 and name in one]
    near = within[:1] or difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"Did you mean {near[0]}?" if near else f"Known: {', '.join(sorted(known))}."

"""The ways in which a command ends, each with its exit code; 0 is success."""

import re

_LONGEST = 280  # characters of a message
_LONGEST_WORD = 60
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


class GpiclError(Exception):
    """An error whose message is one clear line for the user."""

    exit_code = 1


class UsageError(GpiclError):
    """The user asked for something that cannot be done. Raised before anything expensive starts."""

    exit_code = 2


class Damaged(UsageError):
    """A file of a run folder is damaged or missing, so that nothing can be done with this folder as it is."""


class StorageError(GpiclError):
    """Remote storage did not answer for a long time, or refused a request."""


class Diverged(GpiclError):
    """The loss or the gradient became NaN or infinite; the run folder is marked DIVERGED."""


class Preempted(GpiclError):
    """The run was asked to stop. It has saved its state and continues when it is started again."""

    exit_code = 42


def brief(text: str, longest: int = _LONGEST) -> str:
    """Returns a text in one line, without addresses of objects.

    If it is too long, the middles of long words, such as paths, are left out, and then that of the whole.
    """
    text = _ADDRESS.sub("", " ".join(text.split()))
    if len(text) > longest:
        text = " ".join(_cut(word, _LONGEST_WORD, "...") for word in text.split())
    return _cut(text, longest, " ... ")


def _cut(text: str, longest: int, mark: str) -> str:
    tail = longest // 3
    return text if len(text) <= longest else f"{text[: longest - tail - len(mark)]}{mark}{text[-tail:]}"


def one_line(error: Exception) -> str:
    """Returns the message of an exception in one line, see `brief`."""
    return brief(str(error)) or type(error).__name__


def first_line(error: Exception) -> str:
    """Returns the first line of an exception's message, if more lines would not help a user; see `brief`."""
    return brief(str(error).strip().split("\n")[0]) or type(error).__name__

"""The ways in which a command ends, each with its exit code; 0 is success."""


class GpiclError(Exception):
    """An error whose message is one clear line for the user."""

    exit_code = 1


class UsageError(GpiclError):
    """The user asked for something that cannot be done. Raised before anything expensive starts."""

    exit_code = 2


class Damaged(UsageError):
    """A file of a run folder is damaged or missing, so that nothing can be done with this folder as it is."""


class Diverged(GpiclError):
    """The loss or the gradient became NaN or infinite; the run folder is marked DIVERGED."""


class Preempted(GpiclError):
    """The run was asked to stop. It has saved its state and continues when it is started again."""

    exit_code = 42


def one_line(error: Exception) -> str:
    """Returns the message of an exception in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def first_line(error: Exception) -> str:
    """Returns the first line of an exception's message, if more lines would not help a user."""
    return str(error).strip().split("\n")[0] or type(error).__name__


def check_types(settings: object, **types: type | tuple[type, ...]) -> None:
    """Raises UsageError, in the words of gin, unless each named attribute of `settings` is of its type."""
    for name, expected in types.items():
        value = getattr(settings, name)
        if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
            names = " or ".join(
                t.__name__.removesuffix("Type") for t in (expected if isinstance(expected, tuple) else (expected,))
            )
            raise UsageError(f"{type(settings).__name__}.{name} must be of type {names}, not {value!r}")


def check_positive_integers(settings: object, *names: str) -> None:
    """Raises UsageError, in the words of gin, unless all these attributes of `settings` are integers from 1 on."""
    for name in names:
        check_types(settings, **{name: int})
        value = getattr(settings, name)
        if value < 1:
            raise UsageError(f"{type(settings).__name__}.{name} must be a positive integer, not {value!r}")

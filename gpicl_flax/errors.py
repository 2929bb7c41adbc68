"""The ways a command ends, each with its exit code; 0 is success."""


class GpiclError(Exception):
    """An error whose message is one clear line for the user."""

    exit_code = 1


class UsageError(GpiclError):
    """The user asked for something that cannot be done; raised before anything expensive starts."""

    exit_code = 2


class Diverged(GpiclError):
    """The loss or the gradient became NaN or infinite; the run folder is marked DIVERGED."""


class Preempted(GpiclError):
    """The run was told to stop, has saved its state and continues when it is started again."""

    exit_code = 42

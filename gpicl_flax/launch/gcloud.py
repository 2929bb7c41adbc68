"""Single calls to gcloud about the queued resource of one shard, and what their errors mean."""

from typing import NamedTuple

from gpicl_flax.launch import startup
from gpicl_flax.launch.actions import Command, command, shown
from gpicl_flax.launch.options import Options
from gpicl_flax.launch.plan import Plan
from gpicl_flax.launch.system import Answer, System

NONE, ACTIVE = "NONE", "ACTIVE"  # of states, NONE is ours: there is no such slice
WAITING = {"CREATING", "ACCEPTED", "WAITING_FOR_RESOURCES", "PROVISIONING"}
CREATED, ADOPTED, REFUSED, LATER = "created", "adopted", "refused", "later"
_REFUSALS = (
    "INVALID_ARGUMENT", "PERMISSION_DENIED", "UNAUTHENTICATED", "NOT_FOUND", "gcloud auth login", "argument --",
    "is not installed",
)  # fmt: skip
_START = ("gcloud", "compute", "tpus", "queued-resources")
_TRIES = 4


class Look(NamedTuple):
    """The state of a slice, as gcloud says it.

    Attributes:
      state: that of the slice; '' where gcloud did not answer.
      error: why not.
    """

    state: str
    error: str = ""


def place(options: Options) -> tuple[str, str]:
    """Returns the options that say where slices are."""
    return f"--project={options.project}", f"--zone={options.zone}"


def creation(plan: Plan, shard: int) -> Command:
    """Returns what requests a slice."""
    given, name = plan.options, plan.id(shard)
    assert plan.slices is not None
    words = [*_START, "create", name, f"--node-id={name}", *place(given)]
    words.append(f"--accelerator-type={given.accelerator_type}")
    words.append(f"--runtime-version={given.runtime_version or plan.slices.chip.runtime_version}")
    words += ["--spot"] if given.spot else []
    for option in ("network", "subnetwork", "service_account"):
        if value := getattr(given, option):
            words.append(f"--{option.replace('_', '-')}={value}")
    # The working folder and the packages need more than the default scopes.
    words.append("--scopes=https://www.googleapis.com/auth/cloud-platform")
    return command(*words, f"--metadata-from-file=startup-script={startup.path(plan, shard)}", "--quiet")


def deletion(options: Options, name: str) -> Command:
    """Returns what deletes a slice."""
    return command(*_START, "delete", name, *place(options), "--force", "--quiet", "--async")


def listing(options: Options) -> Command:
    """Returns what lists all slices of the zone."""
    return command(*_START, "list", *place(options), "--format=value(name.basename(),state.state)")


def look(system: System, options: Options, name: str) -> Look:
    """Asks for the state of a slice."""
    answer = system.call([*_START, "describe", name, *place(options), "--format=value(state.state)"])
    if answer.code == 0:
        return Look(answer.output or "UNKNOWN")
    return Look(NONE) if _is_not_found(answer) else Look("", answer.error)


def create(system: System, plan: Plan, shard: int) -> tuple[str, str]:
    """Requests a slice. Returns what came of it, and the error.

    It is CREATED, ADOPTED (it was there), REFUSED (it will never work) or LATER (it may work later).
    """
    answer = system.call(creation(plan, shard).words)
    if answer.code == 0:
        return CREATED, ""
    if "ALREADY_EXISTS" in answer.error or "already exists" in answer.error:
        return ADOPTED, ""
    return (REFUSED if any(text in answer.error for text in _REFUSALS) else LATER), answer.error


def delete(system: System, options: Options, name: str) -> bool:
    """Deletes a slice, or finds it gone. Returns whether that is so; if not, a warning says what to do."""
    wanted, answer = deletion(options, name), Answer(1, "", "")
    for number in range(1, _TRIES + 1):
        answer = system.call(wanted.words)
        if answer.code == 0 or _is_not_found(answer):
            return True
        if number < _TRIES:
            system.wait(number**2)
    system.warn(f"{name} could not be deleted ({answer.error}); delete it by hand: {shown(wanted)}")
    return False


def _is_not_found(answer: Answer) -> bool:
    return "NOT_FOUND" in answer.error or "was not found" in answer.error

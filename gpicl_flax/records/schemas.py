"""The forms of the JSON files of a run folder. Each file has one schema, which every reader checks.

A folder may be damaged, made by another version, or come from anybody. A value of the wrong type would otherwise raise
somewhere else, or give a wrong number without a word. Keys that a schema does not name are kept as they are.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, TypedDict

import msgspec

from gpicl_flax.errors import Damaged, one_line

Count = Annotated[int, msgspec.Meta(ge=0)]

_SCORES = ("accuracy", "loss", "squared_error")


class BaseDatasetInfo(TypedDict):
    """The base dataset that a run trains on."""

    name: str
    train_examples: NotRequired[Count]
    test_examples: NotRequired[Count]
    mean: NotRequired[float]
    std: NotRequired[float]
    fingerprint: NotRequired[str]


class LogGap(TypedDict):
    """Rows that a run's log had lost when the run was resumed, see `training.run_log`.

    Attributes:
      up_to_step: the step of the resume.
      rows_expected, rows_found: the number of rows up to that step.
      plateau_left_at, unseen_plateau_left_at: the steps at which the run had left its plateau by the training loss, and
        by the loss on unseen tasks, according to the checkpoint.
    """

    up_to_step: Count
    rows_expected: Count
    rows_found: Count
    plateau_left_at: Count | None
    unseen_plateau_left_at: Count | None


class TargetsInfo(TypedDict):
    """The targets of a run that predicts numbers, or of a mixture of numbers of classes, see `records.criteria`."""

    predicts: Literal["classes", "numbers", "normals"]
    score: str
    unit: str
    chance_loss: float
    chance_score: float


class SelectionInfo(TypedDict):
    """How a sweep chose, or is choosing, settings of a run, see `sweep.selection`.

    Attributes:
      stage: 'select', a run by which settings are chosen; or 'report', a run with those that were.
      configuration: the identity that the runs of one choice share.
      values: the settings, as text.
      metric: that by which they are chosen.
    """

    stage: Literal["select", "report"]
    configuration: str
    values: dict[str, str]
    metric: str


class RunInfo(TypedDict, total=False):
    """run.json. Older versions wrote fewer keys; readers say which ones they need."""

    gpicl_flax: str
    jax: str
    labels: dict[str, Any]
    selection: SelectionInfo
    model: str
    parameters: Count
    state_size_paper: Count
    state_size_exact: Count
    family: str
    targets: TargetsInfo
    num_classes: Count
    sequence_length: Count
    task_batch_size: Count
    num_tasks: Count | None
    permute_labels_prob: float
    validation_share: float
    features: str
    steps: Count
    seed: Count
    base_dataset: BaseDatasetInfo
    input_rms: float
    projection: dict[str, Any]
    mesh: dict[str, Count]
    device: str
    log_gaps: list[LogGap]
    step_flops: Count


class Diagnostics(TypedDict):
    """The diagnostics of a row that decisions are made by; there are more."""

    unseen_loss: float | None
    unseen_accuracy_last: NotRequired[float]  # for classes
    unseen_loss_last: NotRequired[float | None]  # for numbers
    unseen_squared_error_last: NotRequired[float | None]  # for normals


class MetricsRow(TypedDict):
    """A row of metrics.jsonl."""

    step: Count
    loss: NotRequired[float]
    loss_ema: float
    loss_last: NotRequired[float]
    accuracy_last: NotRequired[float]
    squared_error_last: NotRequired[float]
    plateau: bool
    plateau_left_at: NotRequired[Count | None]
    phase: NotRequired[str | None]
    stopped_early: NotRequired[str]
    leave_probability: NotRequired[float]
    diagnostics: NotRequired[Diagnostics]
    telemetry: NotRequired[dict[str, Any]]


class AnyRow(TypedDict):
    """A row of metrics.jsonl for those who show whatever there is."""

    step: int


class TimingRow(TypedDict):
    """A row of timing.jsonl."""

    step: Count
    time: float


class Curve(TypedDict):
    """A learning curve of a meta-test: lists [T]."""

    tasks: str
    base_dataset: str
    accuracy: NotRequired[list[float]]  # for classes
    accuracy_low: NotRequired[list[float]]
    accuracy_high: NotRequired[list[float]]
    loss: NotRequired[list[float]]
    loss_low: NotRequired[list[float]]
    loss_high: NotRequired[list[float]]
    squared_error: NotRequired[list[float]]  # for normals
    squared_error_low: NotRequired[list[float]]
    squared_error_high: NotRequired[list[float]]
    positions: NotRequired[list[Count]]  # those of the lists, if not all count
    num_sequences: NotRequired[Count]


class Evaluation(TypedDict):
    """A file of eval/."""

    step: Count
    curves: list[Curve]


class LeaseFile(TypedDict):
    """A file of .claim/, see `records.lease.LeaseRecord`."""

    host: str
    pid: int
    started: float
    since: float
    time: float
    state: str
    why: str
    token: NotRequired[str]


class LoaderPosition(TypedDict):
    """The position of the loader in a checkpoint."""

    next_step: Count


class TrackerRecord(TypedDict):
    """`records.plateau_tracker.PlateauTracker`."""

    num_classes: Count | None
    num_tasks: Count | None
    exit_step: Count | None
    unseen_exit_step: Count | None
    unseen_losses: list[float]
    gain: float | None
    targets: NotRequired[TargetsInfo]


class StopRecord(TypedDict):
    """`training.early_stop.StopState`."""

    last_step: Count
    why: str | None
    best: float | None
    best_at: Count | None
    scores: NotRequired[list[tuple[Count, float]]]  # only with a `records.plateau_rule`, as the next one
    leave_probability: NotRequired[float]


class LogRecord(TypedDict):
    """The log of a run as its checkpoint knows it, see `training.run_log`."""

    rows: Count
    digest: str
    tracker: TrackerRecord
    stop_state: StopRecord
    gaps: list[LogGap]


class CheckpointMeta(TypedDict):
    """checkpoints/STEP/meta/metadata."""

    loader: LoaderPosition
    config: NotRequired[str]
    data: NotRequired[str]
    log: NotRequired[LogRecord]  # earlier versions wrote none


class Schema(NamedTuple):
    """The form of a file, and what to do if the file does not have it."""

    form: Any
    remedy: str
    fault: Callable[[Any], str] = lambda value: ""  # what else is wrong with a value of this form, in words

    def check(self, value: Any, name: str) -> Any:
        """Returns `value`, if it has this form.

        Args:
          value: plain JSON.
          name: what messages call its place: a file, or a line of one.

        Raises:
          Damaged: it has another form.
        """
        try:
            msgspec.convert(value, self.form)
            fault = self.fault(value)
        except msgspec.ValidationError as error:
            fault = one_line(error)
        if fault:
            raise Damaged(f"{name} is damaged ({fault}); {self.remedy}")
        return value


def _unscored(row: MetricsRow) -> str:
    """Returns a fault where diagnostics have no score."""
    if "diagnostics" in row and not any(f"unseen_{score}_last" in row["diagnostics"] for score in _SCORES):
        return "Object missing required field `unseen_accuracy_last` - at `$.diagnostics`"
    return ""


def _uneven(evaluation: Evaluation) -> str:
    """Returns a fault where the lists of a curve differ in length."""
    for curve in evaluation["curves"]:
        means = [name for name in ("accuracy", "squared_error", "loss") if name in curve]
        if not means:
            return f"the curve of {curve['tasks']} tasks has neither an accuracy nor a loss"
        ends = [f"{name}{end}" for name in means if name != "loss" or len(means) == 1 for end in ("_low", "_high")]
        missing = [name for name in ends if name not in curve]
        if missing:
            return f"the curve of {curve['tasks']} tasks lacks `{missing[0]}`"
        values: Mapping[str, Any] = curve
        lengths = {len(values[name]) for name in (*means, *ends)}
        if 0 in lengths:
            return f"the curve of {curve['tasks']} tasks is empty"
        if len(lengths) > 1:
            return f"the curve of {curve['tasks']} tasks has lists of several lengths"
    return ""


RUN_INFO = Schema(
    RunInfo, "restore it from a copy, or, if the run has not ended, delete it: `gpicl train` writes it again"
)
METRICS = Schema(
    MetricsRow, "restore it from a copy, or delete it and resume the run with --accept_lost_log", _unscored
)
ANY_ROW = Schema(AnyRow, METRICS.remedy)
TIMING = Schema(TimingRow, "delete it: it only holds times")
EVALUATION = Schema(Evaluation, "delete it: `gpicl evaluate` makes the newest again", _uneven)
LEASE = Schema(LeaseFile, "delete it if no process trains the run")
CHECKPOINT_META = Schema(CheckpointMeta, "delete this checkpoint: the run resumes from the one before")


def left_before_gap(run_info: Mapping[str, Any], name: str) -> int | None:
    """Returns the step at which a run left a plateau, if its log may have lost the row that shows it; otherwise None.

    Args:
      run_info: its run.json.
      name: 'plateau' or 'unseen_plateau'.
    """
    recorded = (gap[f"{name}_left_at"] for gap in run_info.get("log_gaps", ()))
    return next((step for step in recorded if step is not None), None)


def gap_in_words(gap: LogGap) -> str:
    """Returns a phrase about a gap in a run's log."""
    found, expected = gap["rows_found"], gap["rows_expected"]
    return f"metrics.jsonl lost rows up to step {gap['up_to_step']:,} ({found} of {expected} found)"

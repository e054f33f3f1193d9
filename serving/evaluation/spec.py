"""What one evaluation is asked to do, as frozen values."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from raymaker.actors.spec import InstanceType, ScoringSpec, SourceSpec

DEFAULT_BATCH_COUNT = 100
DEFAULT_THRESHOLD = 0.5


class ProblemType(enum.StrEnum):
    """What the model is asked for, in the words of SageMaker's model monitor."""

    BINARY = "BinaryClassification"
    MULTICLASS = "MulticlassClassification"
    REGRESSION = "Regression"


@dataclass(frozen=True)
class EvaluationData:
    """Records with known results: objects below `uri`, read in the order of their names.

    Columns are named as the file names them; of CSV without a header they are numbers, counted from 0, or from the end
    where negative. Exactly one of `label` (a column) and `labels_uri` (lines, one for each record) is given.
    """

    uri: str
    data_type: str = "S3Prefix"
    content_type: str = "text/csv"
    has_header: bool = False
    label: str | None = None
    labels_uri: str | None = None
    tag: str | None = None
    """A column that names a record for people. It is not sent to the model."""
    request_type: str | None = None
    """The content type in which records are sent: rows of CSV, JSON lines or, one record at a time, JSON. Without it
    that of the data, and CSV for Parquet."""


@dataclass(frozen=True)
class AnswerShape:
    """Where the answers hold what: fields of JSON, or columns of CSV, as `EvaluationData` names them.

    Without any, an answer of one value is the result, and one of several holds a probability for each of `classes`.
    """

    inference: str | None = None
    probability: str | None = None
    threshold: float = DEFAULT_THRESHOLD
    """From which probability on a binary classifier means its positive class."""
    classes: tuple[str, ...] = ()
    """The classes in the order of their probabilities; without them, 0, 1, 2 and so on."""
    positive_class: str | None = None
    """Which class a binary classifier's probability is that of; the last of `classes`, else `1`."""


@dataclass(frozen=True)
class EvaluationSpec:
    """One evaluation, complete. `number` counts those of its job, from 1."""

    job_name: str
    job_arn: str
    number: int
    instance_type: InstanceType
    scoring: ScoringSpec
    data: EvaluationData
    problem: ProblemType
    records_uri: str
    """Where the results of single records go, as a Parquet file."""
    answers: AnswerShape = AnswerShape()
    metrics: tuple[str, ...] = ()
    """Which of the known metrics to tell; all that can be had where there are none here."""
    function: SourceSpec | None = None
    """The user's own metrics: a script that reads the records' results and writes numbers."""
    accept: str | None = None
    batch_count: int = DEFAULT_BATCH_COUNT
    """How many records one request holds at most."""
    timeout_s: float = 60.0
    """How long one request may take."""

    @property
    def label(self) -> str:
        """The job and the number, as a lease's or a folder's name."""
        return f"{self.job_name}-{self.number}"

    @property
    def evaluator(self) -> tuple[str, str]:
        """Whose it is to do: the job's evaluator of the instance type."""
        return self.job_name, self.instance_type.name

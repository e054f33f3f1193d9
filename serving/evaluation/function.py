"""The user's own metrics: a script in a container of its own, which reads the records' results and writes numbers.

It finds `records.jsonl` and `records.parquet` (columns as in `records.py`) in /opt/ml/processing/input, and writes
`evaluation.json`, an object of numbers, to /opt/ml/processing/output: folders and name are SageMaker's.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

from pyarrow import parquet

from raymaker.actors.algorithm import prepare_algorithm
from raymaker.actors.runtime.base import LABEL_KIND, ContainerRuntime
from raymaker.actors.site import Site
from raymaker.actors.spec import ContainerSpec, Mount
from raymaker.actors.storage import ObjectStore
from raymaker.serving.evaluation.errors import AnswerError
from raymaker.serving.evaluation.metric_names import known_metrics
from raymaker.serving.evaluation.spec import EvaluationSpec

INPUT, OUTPUT = "/opt/ml/processing/input", "/opt/ml/processing/output"
RESULT = "evaluation.json"
TIMEOUT_S = 600.0
MOST_METRICS = 100
TAIL_COUNT = 10


def run_function(
    spec: EvaluationSpec,
    records: Path,
    runtime: ContainerRuntime,
    *,
    site: Site,
    name: str,
    labels: dict[str, str],
) -> dict[str, float]:
    """Have the script compute its metrics of the Parquet file `records`, beside which it has its folders.

    Raises AnswerError, and what starting a container raises.
    """
    algorithm = prepare_algorithm(runtime, ObjectStore(site.store), site, image=None, source=spec.function)
    given, left = records.with_name("function-input"), records.with_name("function-output")
    _lay_out(records, given, left)
    container = ContainerSpec(
        name=name,
        command=("train",),  # what source code calls its entry point
        image=algorithm.image,
        source_dir=algorithm.source_dir,
        mounts=(Mount(str(given), INPUT, read_only=True), Mount(str(left), OUTPUT)),
        labels={**labels, LABEL_KIND: "scoring"},
        resources=spec.instance_type.resources,
        yields_cpu=True,
    )
    handle = runtime.start(container)
    try:
        status = runtime.wait(handle, TIMEOUT_S)
        if status is None:
            raise AnswerError(f"MetricSource: the script had not ended after {TIMEOUT_S:.0f} s")
        if status.code != 0:
            said = "\n".join([line.text for line in runtime.logs(handle)][-TAIL_COUNT:])
            raise AnswerError(f"MetricSource: the script ended with {status.describe()}. It said last:\n{said}")
    finally:
        runtime.remove(handle)
    return _read(left / RESULT, known_metrics(spec.problem))


def _lay_out(records: Path, given: Path, left: Path) -> None:
    given.mkdir(parents=True)
    left.mkdir()
    left.chmod(0o777)  # whoever the container's program is, it writes there
    shutil.copy(records, given / "records.parquet")
    with (given / "records.jsonl").open("w") as lines, parquet.ParquetFile(records) as file:
        for batch in file.iter_batches():
            for row in batch.to_pylist():
                lines.write(json.dumps(row) + "\n")


def _read(path: Path, taken: dict[str, bool]) -> dict[str, float]:
    """Read what the script wrote. Raises AnswerError."""
    where = f"MetricSource: {OUTPUT}/{RESULT}"
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise AnswerError(f"{where} is not there: the script must write it, an object of numbers") from error
    except (OSError, ValueError, RecursionError) as error:
        raise AnswerError(f"{where} cannot be read as JSON: {error}") from error
    if not isinstance(found, dict) or not 0 < len(found) <= MOST_METRICS:
        raise AnswerError(f"{where} must be an object of 1 to {MOST_METRICS} numbers")
    for name, value in found.items():
        if name in taken:
            raise AnswerError(f"{where}: {name} is the name of a metric that there is already; choose another")
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise AnswerError(f"{where}: {name} is {value!r} and must be a finite number")
    return {name: float(value) for name, value in found.items()}

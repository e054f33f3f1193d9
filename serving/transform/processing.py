"""What is sent of records, and what becomes of answers: InputFilter, JoinSource, OutputFilter. Pure: bytes to bytes.

Knows CSV, whose fields are moved and never written anew; JSON, one document; and JSON lines.
"""

from __future__ import annotations

import enum
import json
import re
from dataclasses import dataclass
from typing import Any

from raymaker.serving.transform.errors import RecordError
from raymaker.serving.transform.paths import Path, PathMissing, parse_path
from raymaker.serving.transform.spec import TransformSpec

OUTPUT, INPUT = "SageMakerOutput", "SageMakerInput"
"""The members under which JSON has an answer, and a record that is no object."""
FIELD = re.compile(rb'(?:^|,)((?:"(?:[^"]|"")*"|[^,"])*)')


class Format(enum.Enum):
    """How records are written, as far as they can be looked into."""

    CSV = "CSV"
    JSON = "JSON"
    """The whole object, or answer, is one document."""
    LINES = "JSON lines"


FORMATS = {
    "text/csv": Format.CSV,
    "application/json": Format.JSON,
    "application/jsonlines": Format.LINES,
    "application/jsonl": Format.LINES,
    "application/x-jsonlines": Format.LINES,
    "application/x-ndjson": Format.LINES,
}


def format_of(media_type: str | None, split_type: str) -> Format | None:
    """Read a content type, None where records of it cannot be looked into. JSON that is split by line is lines."""
    found = FORMATS.get((media_type or "").partition(";")[0].strip().lower())
    return Format.LINES if found is Format.JSON and split_type == "Line" else found


@dataclass(frozen=True)
class Processor:
    """What a job does with records. Everything raises RecordError for what is not as its format says."""

    input_format: Format | None
    output_format: Format | None
    input_path: Path
    output_path: Path
    joins: bool
    ends_lines: bool
    """Whether each payload's answer is to end with a newline (AssembleWith Line)."""

    @classmethod
    def of(cls, spec: TransformSpec) -> Processor:
        """Read a spec. Raises PathSyntaxError."""
        content_type, split_type = spec.input.content_type, spec.input.split_type
        return cls(
            format_of(content_type, split_type),
            format_of(spec.output.accept or content_type, split_type),
            parse_path(spec.processing.input_filter),
            parse_path(spec.processing.output_filter),
            spec.processing.joins,
            spec.output.assemble_with == "Line",
        )

    @property
    def is_idle(self) -> bool:
        """Whether records and answers pass as they are."""
        return self.input_path.is_all and self.output_path.is_all and not self.joins

    def request(self, records: bytes) -> bytes:
        """Make a payload of records."""
        if self.input_path.is_all:
            return records
        found = [_find(self.input_path, record) for record in _read(self.input_format, records)]
        return _write(self.input_format, found)

    def output(self, records: bytes, answer: bytes) -> bytes:
        """Make the output of records and their answer."""
        if not self.output_path.is_all or self.joins:
            answer = self._process(records, answer)
        return answer + b"\n" if self.ends_lines and not answer.endswith(b"\n") else answer

    def _process(self, records: bytes, answer: bytes) -> bytes:
        if not self.joins:
            joined = _read(self.output_format, answer)
        else:
            sent = _read(self.input_format, records)
            scored = _read_answers(self.output_format, answer, len(sent))
            join = _join_rows if self.input_format is Format.CSV else _join_documents
            joined = [join(*pair) for pair in zip(sent, scored, strict=True)]
        return _write(self.output_format, [_find(self.output_path, record) for record in joined])


def _read_answers(form: Format | None, answer: bytes, count: int) -> list[Any]:
    """Read one answer for each record: that of a single record may be written over several lines."""
    scored = _read(Format.JSON if form is Format.LINES and count == 1 else form, answer)
    if len(scored) != count:
        raise RecordError(
            f"the container's answer has {len(scored)} records for {count}, so they cannot be joined: it must answer "
            "with as many as it is sent, or be sent one at a time (BatchStrategy SingleRecord)"
        )
    return scored


def _read(form: Format | None, data: bytes) -> list[Any]:
    """Read records: rows of CSV as lists of fields, documents of JSON as Python has them."""
    if form is Format.JSON:
        return [_read_json(data)]
    lines = [line for raw in data.split(b"\n") if (line := raw.removesuffix(b"\r"))]
    return [_read_row(line) for line in lines] if form is Format.CSV else [_read_json(line) for line in lines]


def _read_json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{_show(data)} is no JSON: {error}") from error


def _read_row(line: bytes) -> list[bytes]:
    if b'"' not in line:
        return line.split(b",")
    fields: list[bytes] = FIELD.findall(line)
    if b",".join(fields) != line:
        raise RecordError(f"{_show(line)} is no row of CSV: its quotes do not match, or a quoted field has a newline")
    return fields


def _join_rows(row: list[bytes], answer: list[bytes]) -> list[bytes]:
    return row + answer


def _join_documents(document: Any, answer: Any) -> dict[str, Any]:
    return {**document, OUTPUT: answer} if isinstance(document, dict) else {INPUT: document, OUTPUT: answer}


def _find(path: Path, record: Any) -> Any:
    try:
        return path.find(record)
    except PathMissing as error:
        raise RecordError(str(error)) from error


def _write(form: Format | None, records: list[Any]) -> bytes:
    if form is Format.JSON:
        return _write_json(records[0])
    write = _write_row if form is Format.CSV else _write_json
    return b"".join(write(record) + b"\n" for record in records)


def _write_row(found: Any) -> bytes:
    return found if isinstance(found, bytes) else b",".join(found)


def _write_json(document: Any) -> bytes:
    try:
        return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:  # it holds half a character, which only an escape can say
        return json.dumps(document, separators=(",", ":")).encode()


def _show(data: bytes) -> str:
    return repr(data[:80].decode(errors="replace"))

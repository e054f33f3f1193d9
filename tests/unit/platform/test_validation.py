"""Every member of CreateTrainingJob, given every kind of wrong value: always a ValidationException that names it.

The table of wrong values is made from the shapes themselves, so that a member that botocore adds is covered too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.model import ListShape, MapShape, ServiceModel, Shape, StructureShape

from raymaker.platform.dispatch import answer_json
from raymaker.platform.errors import ValidationException
from raymaker.platform.operations.registry import HANDLERS
from raymaker.platform.patterns import compile_pattern
from raymaker.platform.shapes import operation_model
from raymaker.platform.validation import validate
from support.frontend import make_context

OPERATIONS = ("CreateTrainingJob", "CreateModel", "CreateEndpointConfig", "Deploy", "ListTrainingJobs")
CREATE_TRAINING_JOB = operation_model("sagemaker", "CreateTrainingJob")

Step = str | int
"""A member's or key's name, or an index."""


def members(shape: Shape, path: tuple[Step, ...] = ()) -> Iterator[tuple[tuple[Step, ...], Shape]]:
    """Walk all that a request can hold, each with the way to it."""
    if path:
        yield path, shape
    if isinstance(shape, StructureShape):
        for name, member in shape.members.items():
            yield from members(member, (*path, name))
    elif isinstance(shape, ListShape):
        yield from members(shape.member, (*path, 0))
    elif isinstance(shape, MapShape):
        yield from members(shape.value, (*path, "KEY"))


def wrong_values(shape: Shape) -> Iterator[Any]:
    """Values that a member of this shape must refuse."""
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    huge = 10**400
    match shape.type_name:
        case "string":
            yield from (5, -1.5, True, [], {}, ["x"], huge, "half \ud800", "nul \0 inside")
            yield from ["x" * (most + 1)] if most is not None else []
            yield from [""] if least else []
            yield from ["NoSuchValue", "Ⅷ🙂"] if shape.metadata.get("enum") else []
            if pattern := shape.metadata.get("pattern"):
                candidates = ["a\nb", "!", " ", "ä" * (least or 1), "\u202e" * (least or 1), "-" * (least or 1)]
                yield from (text for text in candidates if not compile_pattern(pattern).fullmatch(text))
        case "integer" | "long":
            yield from ("1", 1.5, True, [], {}, huge, -huge, 1e300, 1 << 63)
            yield from [least - 1] if least is not None else []
            yield from [most + 1] if most is not None else []
        case "float" | "double":
            yield from ("1", True, [], {}, huge)
            yield from [least - 1] if least is not None else []
        case "boolean":
            yield from ("true", 1, 0, [], {})
        case "timestamp":
            yield from ("yesterday", True, [], huge, 1e300)
        case "list":
            yield from ({}, "x", 5, True, [None])
            yield from [[None] * (most + 1)] if most is not None else []
            yield from [[]] if least else []
        case "map":
            yield from ([], "x", 5, True, {"KEY": None}, {"half \ud800": "x"})
            yield from [{str(n): "x" for n in range(most + 1)}] if most is not None else []
        case "structure":
            yield from ([], "x", 5, True, {"NoSuchMember": 1}, {"half \ud800": 1})
        case other:
            pytest.fail(f"a request now has members of the type {other}: say here what they must refuse")


def request_with(path: tuple[Step, ...], value: Any) -> Any:
    """The smallest document that has `value` at `path`."""
    for step in reversed(path):
        value = [value] if isinstance(step, int) else {step: value}
    return value


def spoken(path: tuple[Step, ...]) -> str:
    """The path as AWS writes it."""
    return ".".join(
        f"{s + 1}.member" if isinstance(s, int) else s if s == "KEY" else s[0].lower() + s[1:] for s in path
    )


CASES = [
    pytest.param(operation, path, shape, id=f"{operation}-{spoken(path)}")
    for operation in OPERATIONS
    for path, shape in members(operation_model("sagemaker", operation).input_shape)
]


@pytest.fixture
def unreached(monkeypatch, home):
    """A context in which operations are known and must not be reached."""
    for operation in OPERATIONS:
        monkeypatch.setitem(HANDLERS, operation, lambda *_: pytest.fail("a wrong request reached its operation"))
    return make_context(home)


@pytest.mark.parametrize(("operation", "path", "shape"), CASES)
def test_a_wrong_value_is_refused_with_the_name_of_its_member(unreached, operation, path, shape):
    for value in wrong_values(shape):
        body = json.dumps(request_with(path, value)).encode()
        answer = answer_json(unreached, f"SageMaker.{operation}", body, "request-1")
        said = json.loads(answer.body)
        assert (answer.status, said["__type"]) == (400, "ValidationException"), said
        assert f"at '{spoken(path)}" in said["message"]


@pytest.mark.parametrize(
    ("operation", "path", "shape"),
    [case for case in CASES if isinstance(case.values[2], StructureShape) and case.values[2].required_members],
)
def test_a_missing_member_is_named_where_its_parent_is_there(unreached, operation, path, shape):
    answer = answer_json(unreached, f"SageMaker.{operation}", json.dumps(request_with(path, {})).encode(), "request-1")
    for name in shape.required_members:
        named = f"Value null at '{spoken((*path, name))}' failed to satisfy constraint: Member must not be null"
        assert named in json.loads(answer.body)["message"]


VALID = {
    "TrainingJobName": "digits-1",
    "AlgorithmSpecification": {
        "TrainingInputMode": "File",
        "AlgorithmSource": {"SourceUri": "file:///src/digits", "EntryPoint": "train.py", "BaseImage": "base:1"},
    },
    "RoleArn": "arn:aws:iam::000000000000:role/raymaker",
    "OutputDataConfig": {"S3OutputPath": "file:///models"},
    "ResourceConfig": {"InstanceType": "local", "InstanceCount": 1, "VolumeSizeInGB": 1},
    "HyperParameters": {"lr": "0.1", "größe": "☂"},
}


def test_a_right_request_comes_through_unchanged_and_without_its_nulls():
    assert validate(CREATE_TRAINING_JOB, {**VALID, "Tags": None}) == VALID


def test_all_faults_are_told_at_once():
    with pytest.raises(ValidationException, match="^3 validation errors detected: ") as raised:
        validate(CREATE_TRAINING_JOB, {"TrainingJobName": "a_b", "OutputDataConfig": {}})
    assert raised.value.message == (
        "3 validation errors detected: "
        "Value 'a_b' at 'trainingJobName' failed to satisfy constraint: "
        "Member must satisfy regular expression pattern: [a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}; "
        "Value null at 'outputDataConfig.s3OutputPath' failed to satisfy constraint: Member must not be null; "
        "Value null at 'roleArn' failed to satisfy constraint: Member must not be null"
    )


def test_a_member_in_the_wrong_case_is_refused_with_the_right_one():
    with pytest.raises(ValidationException, match="at 'tags' .* Member is Tags in this API"):
        validate(CREATE_TRAINING_JOB, {**VALID, "tags": []})


def test_a_request_of_a_million_faults_is_told_twenty():
    with pytest.raises(ValidationException, match="^20 validation errors detected: "):
        validate(CREATE_TRAINING_JOB, {f"Unknown{n}": n for n in range(100_000)})


def test_hostile_text_is_shown_short_and_harmless():
    with pytest.raises(ValidationException) as raised:
        validate(CREATE_TRAINING_JOB, {**VALID, "TrainingJobName": "\x1b[2J\u202e" + "x" * 10_000})
    assert r"Value '\x1b[2J\u202exxx" in raised.value.message
    assert len(raised.value.message) < 400


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (0, datetime(1970, 1, 1, tzinfo=UTC)),
        (1.5, datetime(1970, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC)),
        ("2026-01-02T03:04:05Z", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2026-01-02T03:04:05+02:00", datetime(2026, 1, 2, 1, 4, 5, tzinfo=UTC)),
        ("2026-01-02", datetime(2026, 1, 2, tzinfo=UTC)),
    ],
)
def test_a_time_may_be_seconds_or_iso_8601_and_is_utc(given, meant):
    operation = operation_model("sagemaker", "ListTrainingJobs")
    assert validate(operation, {"CreationTimeAfter": given}) == {"CreationTimeAfter": meant}


def test_bytes_come_as_base64():
    shapes = {
        "Input": {"type": "structure", "members": {"Data": {"shape": "Data"}}},
        "Data": {"type": "blob", "max": 3},
    }
    operations = {"Put": {"name": "Put", "http": {}, "input": {"shape": "Input"}}}
    operation = ServiceModel({"metadata": {}, "shapes": shapes, "operations": operations}).operation_model("Put")
    assert validate(operation, {"Data": "AAEC"}) == {"Data": b"\x00\x01\x02"}
    for wrong in ("not base64!", "ä", "AAECAwQ=", 5):
        with pytest.raises(ValidationException, match="at 'data'"):
            validate(operation, {"Data": wrong})

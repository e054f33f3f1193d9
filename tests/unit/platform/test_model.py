"""The service models and our extensions of them, as the server reads them."""

import json

import pytest

from raymaker.platform.dispatch import load_operations
from raymaker.platform.operations.registry import HANDLERS
from raymaker.platform.patterns import compile_pattern
from raymaker.platform.shapes import MODEL_PATH, operation_model, service_model
from raymaker.platform.validation import _request_check
from raymaker.platform.wire import _answer_writer

SERVICES = ("sagemaker", "logs", "sts")


@pytest.mark.parametrize("service", SERVICES)
def test_every_pattern_of_every_shape_compiles(service):
    model = service_model(service)
    patterns = {model.shape_for(name).metadata.get("pattern") for name in model.shape_names} - {None}
    assert patterns
    for pattern in patterns:
        compile_pattern(pattern)


@pytest.mark.parametrize("service", SERVICES)
def test_every_operation_of_a_service_can_be_checked_and_answered(service):
    for name in service_model(service).operation_names:
        operation = operation_model(service, name)
        assert operation is not None
        assert callable(_request_check(operation))
        assert callable(_answer_writer(operation))


@pytest.mark.parametrize(
    ("pattern", "fits", "does_not"),
    [
        (r"([\p{L}\p{Z}\p{N}_.:/=+\-@]*)", "Größe ②/λ", "tab\there"),
        (r"[\u0020-\uD7FF\uE000-\uFFFD\uD800\uDC00-\uDBFF\uDFFF\t]*", "🙂\t", "\n"),
        (r"[\w-_]*", "a-b_c", "ä"),
        (r"arn:[\p{Alnum}\-]+:x", "arn:aws-cn:x", "arn:ä:x"),
        (r"^[a-z]+$", "abc", "abc\n"),
        (r"\d+K", "12K", "\u0661K"),
    ],
)
def test_javas_patterns_mean_in_python_what_they_mean_in_java(pattern, fits, does_not):
    assert compile_pattern(pattern).fullmatch(fits)
    assert not compile_pattern(pattern).fullmatch(does_not)


@pytest.mark.parametrize("operation", ["Deploy", "GetCapturedRecords", "GetTrainingMetrics", "ListEvents"])
def test_the_extension_operations_are_there(operation):
    model = operation_model("sagemaker", operation)
    assert model is not None
    assert model.input_shape is not None
    assert model.output_shape is not None


@pytest.mark.parametrize(
    ("shape", "extension", "own"),
    [
        (
            "ResourceConfig",
            {"ContainersPerInstance", "MinInstanceCount", "MaxInstanceCount", "PlacementStrategy"},
            "InstanceCount",
        ),
        ("Channel", {"ShardBy"}, "ChannelName"),
        ("AlgorithmSpecification", {"AlgorithmSource"}, "TrainingImage"),
        ("CreateModelInput", {"InferenceGraph"}, "Containers"),
        ("DescribeModelOutput", {"InferenceGraph", "InferenceGraphDrawing"}, "Containers"),
    ],
)
def test_the_extension_fields_stand_beside_sagemakers_own(shape, extension, own):
    assert {own, *extension} <= service_model("sagemaker").shape_for(shape).members.keys()


def test_every_registered_operation_stands_in_exactly_one_model():
    """Handlers are found by name alone, so two services must not share one."""
    load_operations()
    for name in HANDLERS:
        assert [service for service in SERVICES if operation_model(service, name)] in [
            [service] for service in SERVICES
        ]


def test_operations_that_nobody_knows_are_none():
    assert operation_model("sagemaker", "BakeBread") is None


@pytest.mark.parametrize(
    ("shape", "uri"),
    [
        ("S3Uri", "s3://bucket/prefix"),
        ("S3Uri", "file:///data/my digits/train"),
        ("Url", "training-job://digits-1"),
        ("Url", "gs://bucket/model.tar.gz"),
        ("S3ModelUri", "https://host/model"),
        ("DestinationS3Uri", "file:///captures"),
    ],
)
def test_a_uri_may_have_any_scheme(shape, uri):
    assert compile_pattern(service_model("sagemaker").shape_for(shape).metadata["pattern"]).fullmatch(uri)


@pytest.mark.parametrize("uri", ["", "bucket/prefix", "://x", "s3://", "s3:// ", "1a://x", "s3://a\nb"])
def test_what_is_no_uri_is_still_refused(uri):
    assert not compile_pattern(service_model("sagemaker").shape_for("S3Uri").metadata["pattern"]).fullmatch(uri)


def test_the_extension_keeps_what_botocores_own_extension_says():
    """Ours comes before botocore's file of the same name on a client's search path, and so takes its place."""
    ours = json.loads((MODEL_PATH / "sagemaker/2017-07-24/paginators-1.sdk-extras.json").read_text())
    assert ours["merge"]["pagination"]["Search"] == {"non_aggregate_keys": ["TotalHits"]}

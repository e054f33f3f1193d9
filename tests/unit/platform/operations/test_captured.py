"""Data capture through the API: what a configuration may ask for, what Describe tells, and reading it back."""

from __future__ import annotations

from pathlib import Path

import pytest

from raymaker.actors.storage import ObjectStore
from raymaker.platform.errors import ValidationException
from raymaker.platform.hosting.hosting_specs import capture_spec
from raymaker.serving.capture import Capture
from raymaker.serving.spec import PARQUET, CaptureSpec
from support.scoring import exchange

NOON = 1_700_049_600.0


def capture_config(folder: Path, **changes):
    return {
        "EnableCapture": True,
        "InitialSamplingPercentage": 50,
        "DestinationS3Uri": folder.as_uri(),
        "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
        **changes,
    }


def create_endpoint(api, config=None):
    api("CreateModel", ModelName="m", PrimaryContainer={"Image": "i"})
    variant = {"VariantName": "v", "ModelName": "m", "InstanceType": "local", "InitialInstanceCount": 1}
    more = {} if config is None else {"DataCaptureConfig": config}
    api("CreateEndpointConfig", EndpointConfigName="c", ProductionVariants=[variant], **more)
    api("CreateEndpoint", EndpointName="e", EndpointConfigName="c")


def test_describe_tells_what_is_captured(api, tmp_path):
    create_endpoint(api, capture_config(tmp_path, Format="Parquet"))
    assert api("DescribeEndpoint", EndpointName="e")["DataCaptureConfig"] == {
        "EnableCapture": True,
        "CaptureStatus": "Started",
        "CurrentSamplingPercentage": 50,
        "DestinationS3Uri": tmp_path.as_uri(),
        "KmsKeyId": "",
    }


def test_a_key_for_captured_data_is_refused_by_name(api, tmp_path):
    with pytest.raises(ValidationException, match="DataCaptureConfig.KmsKeyId"):
        create_endpoint(api, capture_config(tmp_path, KmsKeyId="key"))


def test_captured_records_are_given_back_a_page_at_a_time(api, tmp_path):
    create_endpoint(api, capture_config(tmp_path))
    capture = Capture(CaptureSpec(tmp_path.as_uri()), "e", ObjectStore().write_bytes, pytest.fail, now=lambda: NOON)
    for number in range(3):
        sides = {"asked": b"\xff", "asked_type": "a/b", "answered": b"ok", "answered_type": "text/plain"}
        capture.offer(exchange(NOON + number, **sides, inference_id=f"id-{number}"))
    capture.flush()
    first = api("GetCapturedRecords", EndpointName="e", MaxResults=2)
    assert [record["InferenceId"] for record in first["Records"]] == ["id-0", "id-1"]
    (last,) = api("GetCapturedRecords", EndpointName="e", NextToken=first["NextToken"])["Records"]
    assert last["VariantName"] == "v"
    assert last["InferenceTime"] == NOON + 2
    assert last["Input"] == {"Data": "/w==", "ContentType": "a/b"}
    with pytest.raises(ValidationException, match="NextToken is none that"):
        api("GetCapturedRecords", EndpointName="e", NextToken="made up")


def test_an_endpoint_that_captures_nothing_and_one_that_is_not_there_are_told_apart(api):
    create_endpoint(api)
    with pytest.raises(ValidationException, match="endpoint e captures nothing"):
        api("GetCapturedRecords", EndpointName="e")
    with pytest.raises(ValidationException, match="Could not find endpoint"):
        api("GetCapturedRecords", EndpointName="nowhere")


def test_a_configuration_says_which_sides_types_and_form(tmp_path):
    types = {"CsvContentTypes": ["Text/CSV"], "JsonContentTypes": ["application/json"]}
    config = capture_config(tmp_path, CaptureContentTypeHeader=types, Format="Parquet")
    assert capture_spec(config) == CaptureSpec(
        tmp_path.as_uri(),
        sampled_share=0.5,
        csv_types=frozenset({"text/csv"}),
        json_types=frozenset({"application/json"}),
        format=PARQUET,
    )
    only_input = capture_spec({**config, "CaptureOptions": [{"CaptureMode": "Input"}]})
    assert (only_input.captures_input, only_input.captures_output) == (True, False)
    assert capture_spec({**config, "EnableCapture": False}) is None
    assert capture_spec(None) is None

"""Filters and joins, on bytes as they come and go."""

from __future__ import annotations

import dataclasses

import pytest

from raymaker.actors.spec import InstanceType, Resources, ScoringSpec
from raymaker.serving.transform.errors import RecordError
from raymaker.serving.transform.processing import Format, Processor, format_of
from raymaker.serving.transform.spec import DataProcessing, TransformInput, TransformOutput, TransformSpec

CSV, JSON, LINES = "text/csv", "application/json", "application/jsonlines"


def processor(content_type, *, accept=None, split_type="Line", assemble_with="None", **processing):
    return Processor.of(
        TransformSpec(
            "job",
            "arn",
            1,
            InstanceType("local", Resources()),
            ScoringSpec(image="i"),
            TransformInput("file:///in", content_type=content_type, split_type=split_type),
            TransformOutput("file:///out", accept, assemble_with),
            DataProcessing(**processing),
        )
    )


@pytest.mark.parametrize(
    ("media_type", "split_type", "form"),
    [
        ("text/csv; charset=utf-8", "Line", Format.CSV),
        ("Text/CSV", "None", Format.CSV),
        ("application/json", "None", Format.JSON),
        ("application/json", "Line", Format.LINES),
        ("application/x-ndjson", "None", Format.LINES),
        ("image/png", "None", None),
        (None, "Line", None),
    ],
)
def test_a_content_type_says_how_records_are_written(media_type, split_type, form):
    assert format_of(media_type, split_type) is form


def test_where_nothing_is_asked_bytes_pass_as_they_are():
    idle = processor("application/octet-stream")
    assert idle.is_idle
    assert (idle.request(b"\xff\n"), idle.output(b"\xff\n", b"\0")) == (b"\xff\n", b"\0")


def test_assembling_by_line_ends_each_answer_with_one_newline():
    lines = processor(CSV, assemble_with="Line")
    assert [lines.output(b"", answer) for answer in (b"1", b"1\n", b"")] == [b"1\n", b"1\n", b"\n"]


def test_fields_of_csv_are_chosen_and_never_written_anew():
    chosen = processor(CSV, input_filter="$[1:]")
    assert chosen.request(b'7,1.50,"a,b"\r\n8,2e3,"say ""x"""\n\n9,,\n') == b'1.50,"a,b"\n2e3,"say ""x"""\n,\n'
    assert processor(CSV, input_filter="$[0]").request(b"1,2\n3,4") == b"1\n3\n"


def test_rows_and_their_answers_are_joined_side_by_side():
    joined = processor(CSV, join_source="Input")
    assert joined.output(b"1,2\n3,4\n", b"0.5,yes\n0.7,no") == b"1,2,0.5,yes\n3,4,0.7,no\n"


def test_an_identifier_that_the_model_does_not_see_comes_back_beside_its_answer():
    filtered = processor(CSV, input_filter="$[1:]", output_filter="$[0,-1]", join_source="Input")
    records = b"id-1,10,20\nid-2,30,40\n"
    assert filtered.request(records) == b"10,20\n30,40\n"
    assert filtered.output(records, b"A\nB\n") == b"id-1,A\nid-2,B\n"


def test_a_document_gets_its_answer_as_a_member():
    joined = processor(JSON, split_type="None", join_source="Input")
    assert joined.output(b'{"a": 1}', b'{"p": [0.5]}') == b'{"a":1,"SageMakerOutput":{"p":[0.5]}}'
    assert joined.output(b"[1, 2]", b"3") == b'{"SageMakerInput":[1,2],"SageMakerOutput":3}'


def test_lines_of_json_are_filtered_and_joined_one_by_one():
    lines = processor(LINES, input_filter="$.x", output_filter="$['id','SageMakerOutput']", join_source="Input")
    records = '{"id": "ä", "x": [1]}\n{"id": 2, "x": [3]}\n'.encode()
    assert lines.request(records) == b"[1]\n[3]\n"
    assert lines.output(records, b'{"y": 1}\n{"y": 3}') == (
        '{"id":"ä","SageMakerOutput":{"y":1}}\n{"id":2,"SageMakerOutput":{"y":3}}\n'.encode()
    )


def test_the_answer_to_one_record_may_be_written_over_several_lines():
    lines = processor(JSON, join_source="Input")
    assert lines.output(b'{"a": 1}\n', b'{\n  "y": 2\n}') == b'{"a":1,"SageMakerOutput":{"y":2}}\n'


def test_an_output_filter_works_without_a_join():
    assert (
        processor(CSV, accept=JSON, split_type="None", output_filter="$.y").output(b"1\n2", b'{"y":[1,2]}') == b"[1,2]"
    )
    assert processor(CSV, output_filter="$[0]").output(b"1", b"a,b\nc,d") == b"a\nc\n"


@pytest.mark.parametrize(
    ("asked", "records", "answer", "said"),
    [
        ({"content_type": CSV, "join_source": "Input"}, b"1\n2\n", b"a\n", "has 1 records for 2.*SingleRecord"),
        ({"content_type": LINES, "join_source": "Input"}, b"{}\n{}\n", b"[1, 2]", "has 1 records for 2"),
        ({"content_type": LINES, "join_source": "Input"}, b"{}\n", b"<html>", "'<html>' is no JSON"),
        ({"content_type": CSV, "output_filter": "$[5]"}, b"1", b"a,b", r"\$\[5\] finds no 5 in 2 elements"),
    ],
)
def test_answers_that_do_not_fit_are_told(asked, records, answer, said):
    with pytest.raises(RecordError, match=said):
        processor(**asked).output(records, answer)


@pytest.mark.parametrize(
    ("asked", "records", "said"),
    [
        ({"content_type": LINES, "input_filter": "$.x"}, b'{"x": 1}\n{"y": 1}\n', r"finds no 'x' in an object with y"),
        ({"content_type": LINES, "input_filter": "$.x"}, b'{"x": \n', "is no JSON"),
        ({"content_type": JSON, "input_filter": "$.x"}, b"\xff\xfe\n", "is no JSON"),
        ({"content_type": CSV, "input_filter": "$[0]"}, b'1,"open\n', "quotes do not match"),
        ({"content_type": CSV, "input_filter": "$[0][0]"}, b"1,2\n", "no 0 in the value '1'"),
    ],
)
def test_records_that_do_not_fit_are_told(asked, records, said):
    with pytest.raises(RecordError, match=said):
        processor(**asked).request(records)


def test_half_a_character_stays_an_escape():
    chosen = processor(LINES, input_filter="$.x")
    assert chosen.request(b'{"x": "\\ud83d"}\n') == b'"\\ud83d"\n'


def test_a_processor_says_whether_it_has_anything_to_do():
    busy = [{"input_filter": "$[0]"}, {"output_filter": "$[0]"}, {"join_source": "Input"}]
    assert not any(processor(CSV, **asked).is_idle for asked in busy)
    assert processor(CSV, join_source="None").is_idle
    assert dataclasses.replace(processor(CSV), ends_lines=True).is_idle

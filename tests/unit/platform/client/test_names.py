"""Names, places and values as a request wants them."""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path

import pytest

from raymaker.platform.client.errors import WrongArgument
from raymaker.platform.client.names import made_up_name, name_of_image, to_texts, to_uri

NOW = dt.datetime(2030, 1, 2, 3, 4, 5, tzinfo=dt.UTC)


@pytest.mark.parametrize("stem", ["train", "my_model.v2", "a" * 100, "", "---", "ü", f"{'a' * 41}-b"])
def test_a_made_up_name_is_one_that_the_wire_takes(stem: str) -> None:
    name = made_up_name(stem, NOW)
    assert re.fullmatch(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}", name)
    assert len(name) <= 63
    assert "20300102-030405" in name


def test_names_made_up_in_the_same_second_differ() -> None:
    assert len({made_up_name("train", NOW) for _ in range(20)}) > 1


@pytest.mark.parametrize(
    ("image", "name"),
    [("algo", "algo"), ("registry:5000/team/algo:1.2", "algo"), ("algo@sha256:00", "algo"), ("a/b:1@sha256:00", "b")],
)
def test_an_image_s_own_name_is_without_registry_tag_and_digest(image: str, name: str) -> None:
    assert name_of_image(image) == name


def test_places_become_uris(tmp_path: Path) -> None:
    assert to_uri("x", "s3://bucket/key") == "s3://bucket/key"
    assert to_uri("x", tmp_path) == tmp_path.as_uri()
    assert to_uri("x", tmp_path / "not here", must_exist=False).endswith("/not%20here")
    with pytest.raises(WrongArgument, match="x is .*not here, but there is no"):
        to_uri("x", tmp_path / "not here")


def test_hyperparameters_are_texts() -> None:
    given = {"a": "x", "b": 1, "c": False, "d": [1], "e": None}
    assert to_texts(given) == {"a": "x", "b": "1", "c": "false", "d": "[1]", "e": "null"}

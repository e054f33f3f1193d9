"""The catalogue: the built-in instance types, the user's own over them, and errors that name what is wrong."""

from __future__ import annotations

import pytest

from raymaker.actors.spec import Resources
from raymaker.platform.catalogue import GIB, CatalogueError, load_catalogue, parse_catalogue
from raymaker.platform.settings import Settings


def settings(tmp_path, **given) -> Settings:
    return Settings(home=tmp_path, **given)


def test_common_types_are_built_in(tmp_path):
    types = load_catalogue(settings(tmp_path))
    assert types["local"].resources == Resources(1.0, GIB, 0.0)
    assert types["ml.m5.large"].resources == Resources(2.0, 8 * GIB, 0.0)
    assert types["ml.p3.2xlarge"].resources.gpus == 1


def test_the_users_file_adds_types_and_replaces_built_in_ones(tmp_path):
    file = tmp_path / "types.toml"
    file.write_text(
        'local = { cpus = 3, memory_gib = 0.5 }\n["lab.big"]\ncpus = 4\nmemory_gib = 2\nlabels = {rack = "a"}'
    )
    types = load_catalogue(settings(tmp_path, catalogue=file))
    assert types["local"].resources == Resources(3.0, GIB // 2, 0.0)
    assert types["lab.big"].labels == {"rack": "a"}
    assert "ml.m5.large" in types


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("local = {", "mine is not TOML"),
        ("local = 3", "instance type local in mine must be a table"),
        ("local = { cpus = 1 }", "instance type local in mine has no memory_gib"),
        ("local = { cpus = 0, memory_gib = 1 }", "cpus = 0.*at least 0.01"),
        ("local = { cpus = 'two', memory_gib = 1 }", "cpus = 'two'"),
        ("local = { cpus = true, memory_gib = 1 }", "cpus = True"),
        ("local = { cpus = 1, memory_gib = nan }", "memory_gib = nan"),
        ("local = { cpus = 1, memory_gib = 1, gpus = -1 }", "gpus = -1"),
        ("local = { cpus = 1, memory_gib = 1, gpu = 1 }", "unknown key gpu"),
        ("local = { cpus = 1, memory_gib = 1, labels = {a = 1} }", "labels"),
    ],
)
def test_a_bad_file_is_refused_by_name_and_key(text, said):
    with pytest.raises(CatalogueError, match=said):
        parse_catalogue(text, "mine")


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(CatalogueError, match="nowhere.toml cannot be read"):
        load_catalogue(settings(tmp_path, catalogue=tmp_path / "nowhere.toml"))

"""Which nodes a cluster may grow to is read from the file that `ray up` takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from raymaker.actors.spec import Resources
from raymaker.platform.errors import PlatformError
from raymaker.platform.node_types import nodes_to_come
from raymaker.platform.settings import Settings

HEAD = {"resources": {"CPU": 1}, "node_config": {}, "max_workers": 0}


def read(folder: Path, types: Any, **others: Any) -> list[Resources] | None:
    path = folder / "cluster.yaml"
    path.write_text(
        yaml.safe_dump({"head_node_type": "head", "available_node_types": types, **others}, sort_keys=False)
    )
    return nodes_to_come(Settings(home=folder, autoscaling_config=path))


def test_without_an_autoscaler_none_come_and_of_a_cluster_that_is_joined_nothing_is_known(home: Path) -> None:
    assert nodes_to_come(Settings(home=home)) == []
    assert nodes_to_come(Settings(home=home, autoscaling=True)) is None


def test_of_each_type_so_many_come_as_the_file_allows(home: Path) -> None:
    small = {"resources": {"CPU": 3, "memory": 2**30}, "max_workers": 2}
    large = {"resources": {"CPU": 16, "GPU": 2}}
    assert read(home, {"head": HEAD, "small": small, "large": large}, max_workers=3) == [
        *[Resources(3.0, 2**30)] * 2,
        *[Resources(16.0, 0, 2.0)] * 3,
    ]
    assert read(home, {"head": HEAD, "small": small}, max_workers=1) == [Resources(3.0, 2**30)]
    assert read(home, {"head": HEAD, "small": small}) == [Resources(3.0, 2**30)] * 2
    assert read(home, {"head": HEAD, "small": {**small, "max_workers": None}}, max_workers=1) == [Resources(3.0, 2**30)]
    assert len(read(home, {"head": HEAD, "large": large}) or []) == 1000, "what is not limited is taken for many"


def test_where_the_cloud_says_what_a_type_has_nothing_is_known(home: Path) -> None:
    assert read(home, {"head": {}, "worker": {"resources": {}}}, max_workers=2) is None
    assert read(home, {"head": {}, "worker": {"resources": None}}, max_workers=None) is None
    assert read(home, {"head": {}, "worker": {"node_config": {"InstanceType": "large"}}}, max_workers=2) is None


@pytest.mark.parametrize("types", [None, [], {"worker": 3}])
def test_a_file_of_another_kind_is_refused_by_name(home: Path, types: Any) -> None:
    with pytest.raises(PlatformError, match=r"cluster\.yaml has no table available_node_types"):
        read(home, types)


@pytest.mark.parametrize("content", [None, b"a: [", b"\xff\xfe\xff"])
def test_a_file_that_cannot_be_read_is_told_with_the_setting(home: Path, content: bytes | None) -> None:
    path = home / "cluster.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PlatformError, match=r"(?s)cluster\.yaml cannot be read: .* unset RAYMAKER_AUTOSCALING_CONFIG"):
        nodes_to_come(Settings(home=home, autoscaling_config=path))

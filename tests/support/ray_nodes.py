"""Several Ray nodes on this machine, for tests that need no platform around them."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

TESTS = Path(__file__).parents[1]
NAMESPACE = "raymaker"


@contextlib.contextmanager
def ray_nodes(head: Mapping[str, Any], *others: Mapping[str, Any]) -> Iterator[Cluster]:
    """A Ray cluster of nodes with these options, to which this process is connected."""
    folder = Path(tempfile.mkdtemp(prefix="rm-"))  # short, since Ray makes socket paths of it
    (folder / "ray").mkdir()  # Cluster writes its address there before anything has made the folder
    cluster = Cluster()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RAY_TMPDIR", str(folder))  # so that two sessions on one machine do not meet
            patch.setenv("PYTHONPATH", str(TESTS))  # Ray's processes find `support` by it
            cluster.add_node(**{"include_dashboard": False, **head})
            for node in others:
                cluster.add_node(**node)
            cluster.wait_for_nodes()
            ray.init(address=cluster.address, namespace=NAMESPACE, log_to_driver=False)
            try:
                yield cluster
            finally:
                ray.shutdown()
                cluster.shutdown()
    finally:
        shutil.rmtree(folder, ignore_errors=True)

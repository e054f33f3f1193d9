"""The platform turned on and off, and looked at, from a process that is no part of it.

Ray and Serve read their switches when they are imported, so these functions set them first and import what uses Ray
after that.
"""

from __future__ import annotations

import importlib
import os
from types import ModuleType
from typing import Any

from raymaker.platform.cluster import head
from raymaker.platform.cluster.head import HeadState
from raymaker.platform.settings import Settings


def up(settings: Settings) -> HeadState:
    """Start the platform, or see that it runs, and wait until it answers. Raises PlatformError."""
    found: HeadState = _start_module(settings).up(settings)
    return found


def down(settings: Settings) -> bool:
    """Stop the platform and every container it started. Returns False where it was not up."""
    return bool(_start_module(settings).down(settings))


def status(settings: Settings) -> dict[str, Any]:
    """Tell whether the platform is up, where it answers and what the cluster has."""
    state = head.read_state(settings.home_path)
    if state is None:
        return {"status": "down", "home": str(settings.home_path)}
    found: dict[str, Any] = _start_module(settings).status(settings, state)
    return found


def environment(settings: Settings) -> dict[str, str]:
    """Return what a shell needs to speak to this platform with `ray` and with boto3."""
    return head.client_environment(settings)


def _start_module(settings: Settings) -> ModuleType:
    os.environ.update(head.ray_environment(settings))
    return importlib.import_module("raymaker.platform.cluster.start")

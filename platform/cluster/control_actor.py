"""The control actor as others see it. A module of its own, and a small one.

Ray imports an actor's class wherever its handle comes to: the whole control plane in each machine's process would cost
that 2.5 seconds and 100 MB.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raymaker.platform.settings import Settings


class ControlActor:
    """`Control` where Ray runs it."""

    def __init__(self, settings: Settings) -> None:
        from raymaker.platform.cluster.control import Control  # in its own process only

        self._control = Control(settings)

    def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of `Control`."""
        return getattr(self._control, method)(*args, **kwargs)

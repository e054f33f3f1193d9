"""What tests of other things are without: warm pools."""

from __future__ import annotations

from collections.abc import Mapping

from raymaker.platform.pools.warm_pool import KeptFor


class NoPools:
    """The part of a fleet that keeps no machine."""

    def keep_pools(self, _pools: Mapping[str, KeptFor]) -> Mapping[str, bool]:
        return {}

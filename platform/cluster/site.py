"""Settings to `Site`: what of the platform's settings concerns its machines."""

from __future__ import annotations

from raymaker.actors.site import Site
from raymaker.actors.storage import StoreConfig
from raymaker.platform.cluster.node_standbys import NodeStandbys
from raymaker.platform.settings import Settings

MIB = 1024 * 1024


def site_of(settings: Settings) -> Site:
    """Return what every machine is to know of its surroundings."""
    return Site(
        home=settings.home_path,
        driver=settings.driver,
        store=StoreConfig(
            s3_endpoint_url=settings.s3_endpoint_url,
            s3_access_key_id=settings.s3_access_key_id,
            s3_secret_access_key=settings.s3_secret_access_key,
            region=settings.region,
        ),
        base_image=settings.base_image,
        registry_insecure=tuple(settings.registry_insecure),
        stop_grace_s=settings.stop_grace_s,
        reap_after_s=settings.reap_after_s,
        host_network=settings.host_network,
        standby_count=settings.standby_containers,
        standbys=NodeStandbys(settings.home_path) if settings.standby_containers else None,
        lets_rest=settings.resting_endpoints > 0,
        exchange_timeout_s=settings.exchange_timeout_s,
        exchange_arena_bytes=None if settings.exchange_arena_mib is None else settings.exchange_arena_mib * MIB,
        stream_buffer_bytes=settings.stream_buffer_mib * MIB,
        data_cache_bytes=settings.data_cache_mib * MIB,
    )

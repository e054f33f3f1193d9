"""Every setting of the platform, read once: `RAYMAKER_*` variables over `raymaker.toml` over the defaults here."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)


class Settings(BaseSettings):
    """The settings. `docs/operations.md` lists them for people; the field descriptions are its source."""

    model_config = SettingsConfigDict(env_prefix="RAYMAKER_", toml_file="raymaker.toml", extra="forbid")

    home: Path = Field(Path("~/.raymaker"), description="folder that holds all state of this platform")
    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0 opens it to the network")
    port: int = Field(8000, ge=1, le=65535, description="port of the API and of all endpoints")
    haproxy_stats_port: int = Field(8404, ge=1, le=65535, description="port of the proxy's statistics page")
    haproxy_metrics_port: int = Field(9101, ge=1, le=65535, description="port of the proxy's Prometheus metrics")
    ray_port: int = Field(6380, ge=1, le=65535, description="port of the Ray head that `raymaker up` starts")
    ray_address: str | None = Field(None, description="address of a Ray cluster to join instead of starting one")
    autoscaling_config: Path | None = Field(
        None, description="Ray's cluster configuration by which the head that `raymaker up` starts adds nodes"
    )
    autoscaling: bool = Field(
        False, description="whether the cluster that is joined adds nodes for what waits, by Ray's autoscaler"
    )
    cpus: int | None = Field(None, ge=1, description="logical CPUs of the Ray head; default: the machine's")
    database_url: str | None = Field(None, description="SQLAlchemy URL; default: SQLite in the home folder")
    driver: Literal["auto", "docker", "process"] = Field(
        "auto", description="what runs containers: docker, process, or docker where an engine answers (auto)"
    )
    base_image: str = Field("python:3.11-slim", description="image under source-code algorithms that name none")
    training_network: Literal["none", "open"] = Field(
        "none", description="network of training containers whose request does not set EnableNetworkIsolation"
    )
    host_network: bool = Field(
        False,
        description="whether containers of an open network may share their machine's where only that leads to others",
    )
    region: str = Field("us-east-1", description="region named in ARNs and told to containers")
    account_id: str = Field("000000000000", pattern=r"^\d{12}$", description="account named in ARNs")
    s3_endpoint_url: str | None = Field(None, description="object store to use for s3:// URIs instead of AWS")
    s3_access_key_id: str | None = Field(None, description="access key for s3_endpoint_url; default: AWS's own chain")
    s3_secret_access_key: str | None = Field(None, description="secret key for s3_endpoint_url")
    registry_insecure: list[str] = Field([], description="registries (host:port) that may be spoken to without TLS")
    max_body_bytes: int = Field(6 * 1024 * 1024, ge=1, description="largest body of InvokeEndpoint")
    catalogue: Path | None = Field(None, description="TOML file with instance types beside the built-in ones")
    warm_min: int = Field(1, ge=0, description="machine processes that wait for a training job on each node, at least")
    warm_max: int = Field(4, ge=0, description="machine processes that may wait on each node while many jobs come")
    warm_gangs: int = Field(0, ge=0, description="gangs whose processes wait for a training job of several instances")
    warm_gang_size: int = Field(2, ge=2, description="how many instances each gang that waits has")
    standby_containers: int = Field(
        1, ge=0, description="containers of the images used last that wait on each such machine, and on each node"
    )
    idle_s: float = Field(
        300.0, gt=0, description="how long nothing must be asked before an endpoint that may sleep goes to sleep"
    )
    resting_endpoints: int = Field(
        4, ge=0, description="idle endpoints whose process stays, without a container, so that they wake sooner"
    )
    stop_grace_s: float = Field(120.0, ge=0, description="time between SIGTERM and SIGKILL for training containers")
    reap_after_s: float = Field(20.0, ge=0, description="how long a container without a living owner is left alone")
    exchange_timeout_s: float = Field(
        300.0, gt=0, description="how long a rank waits in the exchange for the others before all of them fail"
    )
    exchange_arena_mib: int | None = Field(
        None, ge=1, description="shared memory of the exchange on each instance, in MiB; default: it chooses"
    )
    evaluator_keep_s: float = Field(
        60.0, ge=0, description="how long a job's evaluator waits for the next checkpoint while nobody needs its room"
    )
    stream_buffer_mib: int = Field(
        64, ge=1, description="memory that a streamed channel of an instance may hold, in MiB"
    )
    data_cache_mib: int = Field(
        20 * 1024, ge=0, description="training data that each machine keeps for its next jobs, in MiB; 0 keeps none"
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order the sources: arguments, environment, `raymaker.toml` in the working folder."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    @property
    def home_path(self) -> Path:
        """The home folder, absolute and with `~` resolved."""
        return self.home.expanduser().resolve()

    @property
    def resolved_database_url(self) -> str:
        """The database URL, SQLite in the home folder where none is set."""
        return self.database_url or f"sqlite:///{self.home_path / 'raymaker.sqlite3'}"

    @property
    def grows(self) -> bool:
        """Whether nodes are added to the cluster for what waits."""
        return self.autoscaling or self.autoscaling_config is not None

    @property
    def url(self) -> str:
        """Where the platform answers, as a client on this machine reaches it."""
        host = "127.0.0.1" if self.host in {"0.0.0.0", "::"} else self.host  # noqa: S104 - compared, not bound
        return f"http://{host}:{self.port}"

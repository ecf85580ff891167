"""How an application runs on Ray: what its `args` in a Serve config may say. No Ray."""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from skipserve.ray.remote import Patience
from skipserve.settings import Settings


class Options(BaseModel):
    """What runs where.

    Attributes:
        settings: how to serve, by the names of the settings; the environment of the replicas says
            the rest, keys above all.
        engines: replicas with an engine, at first.
        max_engines: so many are started when there is much to do; None for always `engines`.
        min_engines: so many stay when there is little; 0 to start with the first request.
        requests_per_engine: with fewer under way at each, engines end; with more, others start.
        idle_seconds: engines end once there has been less to do for so long.
        engine_cpus, engine_gpus: what Ray sets aside for an engine.
        ingresses: front ends; one a node is enough.
        placing_seconds: a request waits so long for an engine that takes it.
        silence_seconds: an engine that is silent for so long counts as lost.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: dict[str, Any] = {}
    engines: int = Field(2, ge=1, le=4096)
    max_engines: int | None = Field(None, ge=1, le=4096)
    min_engines: int = Field(1, ge=0, le=4096)
    requests_per_engine: float = Field(16, gt=0)
    idle_seconds: float = Field(600, ge=0)
    engine_cpus: float = Field(1, ge=0)
    engine_gpus: float = Field(0, ge=0)
    ingresses: int = Field(1, ge=1, le=4096)
    placing_seconds: float = Field(10, gt=0)
    silence_seconds: float = Field(10, gt=4)

    @model_validator(mode="after")
    def _check_numbers(self) -> Self:
        if self.max_engines is not None and not (
            self.min_engines <= self.engines <= self.max_engines
        ):
            raise ValueError("engines must lie between min_engines and max_engines")
        return self

    @property
    def patience(self) -> Patience:
        """How long a try may take."""
        return Patience(self.placing_seconds, self.silence_seconds)

    @property
    def starts_from_none(self) -> bool:
        """Whether a request may come while there is no engine, and starts one."""
        return self.max_engines is not None and self.min_engines == 0

    def read_settings(self, **changes: Any) -> Settings:
        """Return the settings as this process has them."""
        return Settings(**{**self.settings, **changes})

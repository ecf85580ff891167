"""What replies are made of, whatever they tell."""

from typing import Any

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer


class Reply(BaseModel):
    """A reply, or a part of one."""

    model_config = ConfigDict(frozen=True)


class Sparse(Reply):
    """A reply that leaves out fields which are null."""

    @model_serializer(mode="wrap")
    def _drop_nulls(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in serialize(self).items() if value is not None}

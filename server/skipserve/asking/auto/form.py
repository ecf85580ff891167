"""The form in which a request leaves the choice of its policy to the server."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, model_validator

from skipserve.asking.auto.wish import AutoWish
from skipserve.asking.messages import Form

_Number = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]


class AutoFields(Form):
    """What the chosen policy must keep to; what is left out, the operator's settings say."""

    min_quality: Annotated[_Number, Field(le=1)] | None = Field(
        default=None,
        description="The share of what the full model reaches that the policy must keep: the lower "
        "end of what was measured counts.",
        examples=[0.97],
    )
    max_latency_ms: _Number | None = Field(
        default=None,
        description="The time from the request to the last token of its answer, in milliseconds.",
        examples=[500],
    )


class AutoPolicy(Form):
    """Leaves the choice of the policy to the server, within what it says."""

    auto: AutoFields

    @model_validator(mode="before")
    @classmethod
    def _check_alone(cls, value: Any) -> Any:
        """Take no rules beside it: they would be another policy."""
        if isinstance(value, Mapping) and len(value) > 1:
            raise ValueError("auto stands alone: what it is to meet stands in it")
        return value

    @property
    def wish(self) -> AutoWish:
        """What is asked of the policy."""
        return AutoWish(self.auto.min_quality, self.auto.max_latency_ms)

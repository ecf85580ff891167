"""The form of `POST /v1/skip_policies`, and what that and `DELETE` reply."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from skipserve.api.forms.tables import POLICY
from skipserve.api.replies import Reply
from skipserve.api.wire import BodyForm
from skipserve_policies.catalog import NAME_PATTERN, check_name
from skipserve_policies.schema import SkipPolicy

PolicyName = Annotated[
    str,
    Field(json_schema_extra={"pattern": f"^{NAME_PATTERN}$"}, examples=["ours-2"]),
    AfterValidator(check_name),
]


class AddPolicyForm(BodyForm):
    """The body of `POST /v1/skip_policies`."""

    field_table = POLICY

    name: PolicyName
    policy: SkipPolicy = Field(
        examples=[{"rules": [{"action": "skip_ffn", "layers": {"from": "50%", "to": "100%"}}]}]
    )


class RemovedPolicy(Reply):
    """The reply of `DELETE /v1/skip_policies/NAME`."""

    name: str
    object: Literal["skip_policy.deleted"] = "skip_policy.deleted"
    deleted: Literal[True] = True

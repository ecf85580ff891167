"""The forms of the routes that change skip policies and resolve one, and what they reply."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field

from skipserve.api.forms.tables import POLICY, RESOLVE
from skipserve.api.replies import Reply
from skipserve.api.wire import AskedModel, BodyForm, PolicyForm
from skipserve.asking.report import SkipReport
from skipserve_policies.catalog import NAME_PATTERN, check_name
from skipserve_policies.plan import Ffn, Pair, Plan, TokenClass
from skipserve_policies.schema import Quality, SkipPolicy

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


class ResolvePolicyForm(BodyForm):
    """The body of `POST /v1/skip_policies/resolve`; without a policy, the default is meant."""

    field_table = RESOLVE

    model: AskedModel = None
    skip_policy: PolicyForm | None = Field(
        default=None,
        description="A name from /v1/skip_policies, or a policy spelt out.",
        examples=["full", {"rules": [{"action": "skip_ffn", "layers": [18], "scope": "all"}]}],
    )


class PlanColumn(Reply):
    """What rows of one token class do in each layer, layer 0 first."""

    attention: tuple[bool, ...]
    kv: tuple[bool, ...] = Field(description="Whether keys and values are projected.")
    ffn: tuple[Ffn, ...]
    pair: tuple[Pair, ...] = Field(description="The block's place in a pair that runs in parallel.")

    @classmethod
    def of(cls, plan: Plan, token_class: TokenClass) -> Self:
        """Return a column of a plan."""
        cells = plan.columns[token_class]
        return cls(
            attention=tuple(cell.attention for cell in cells),
            kv=plan.kv[token_class],
            ffn=tuple(cell.ffn for cell in cells),
            pair=tuple(cell.pair for cell in cells),
        )


class PlanTable(Reply):
    """The table of what runs: trimmed of what no answer needs."""

    text: PlanColumn
    visual: PlanColumn
    last: PlanColumn = Field(description="Of the prompt's last row, which emits the first token.")
    generated: PlanColumn

    @classmethod
    def of(cls, plan: Plan) -> Self:
        """Return the table of a plan."""
        return cls(**{it.name.lower(): PlanColumn.of(plan, it) for it in TokenClass})


class PolicyPreview(Reply):
    """The reply of `POST /v1/skip_policies/resolve`: nothing was run."""

    object: Literal["skip_policy.preview"] = "skip_policy.preview"
    scope: str | None
    skip: SkipReport = Field(
        description="What the standard request would cost, 60 text tokens, one image and an answer "
        "of 10 tokens, in the form of a reply's `metrics.skip`."
    )
    quality: tuple[Quality, ...]
    runs: PlanTable

"""What replies say of a request's account: tokens and times."""

from skipserve.api.wire import RequestMetrics, TokenDetails, Usage
from skipserve.asking.account import Account
from skipserve.asking.report import num_visual


def usage(account: Account) -> Usage:
    """Return the `usage` object of a reply."""
    request = account.prepared.request
    return Usage(
        prompt_tokens=request.num_prompt,
        completion_tokens=account.num_generated,
        total_tokens=request.num_prompt + account.num_generated,
        prompt_tokens_details=TokenDetails(
            cached_tokens=account.num_cached,
            multimodal_tokens=num_visual(request),
        ),
    )


def request_metrics(account: Account) -> RequestMetrics:
    """Return the `metrics` object of a reply, whose answer is whole."""
    assert account.skip is not None
    return RequestMetrics(
        queue_seconds=account.queue_seconds,
        time_to_first_token_seconds=account.time_to_first_token_seconds,
        inter_token_latency_seconds=account.inter_token_latency_seconds,
        duration_seconds=account.elapsed_seconds,
        skip=account.skip,
    )

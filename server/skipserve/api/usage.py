"""What replies say of a request's account: tokens and times."""

from skipserve.api.wire import RequestMetrics, TokenDetails, Usage
from skipserve.asking.account import Account
from skipserve.asking.report import num_visual


def usage(*accounts: Account) -> Usage:
    """Return the `usage` object of a reply to one question or several."""
    requests = [account.prepared.request for account in accounts]
    num_prompt = sum(request.num_prompt for request in requests)
    num_generated = sum(account.num_generated for account in accounts)
    return Usage(
        prompt_tokens=num_prompt,
        completion_tokens=num_generated,
        total_tokens=num_prompt + num_generated,
        prompt_tokens_details=TokenDetails(
            cached_tokens=sum(account.num_cached for account in accounts),
            multimodal_tokens=sum(num_visual(request) for request in requests),
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

"""What is told of a request's account: tokens and times in replies, its use for billing."""

from dataclasses import asdict
from datetime import UTC, datetime

from skipserve.api.exchange import Exchange
from skipserve.api.wire import RequestMetrics, TokenDetails, Usage
from skipserve.asking.account import Account
from skipserve.asking.report import num_visual
from skipserve.budgets.client import Use


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
            cached_tokens=sum(account.num_told_cached for account in accounts),
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


def usage_record(exchange: Exchange, use: Use) -> dict[str, object]:
    """Return the record of a request that has ended, and of what it took, for the usage log."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "key": exchange.client.name,
        "request_id": exchange.request_id,
        "skip_policy": exchange.prepared.policy.name,
        **asdict(use),
        "status": exchange.error.status if exchange.error else exchange.status,
        "finish_reason": exchange.finish_reason,
    }

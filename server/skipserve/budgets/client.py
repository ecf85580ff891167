"""One who asks: what it may ask for, what it may use, and what it has used."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from enum import StrEnum
from functools import cached_property
from ipaddress import IPv6Address, ip_address
from time import monotonic_ns

from skipserve.budgets.bucket import Bucket
from skipserve.budgets.keys import KeyEntry, KeyLimits
from skipserve.digests import digest_of
from skipserve.errors import InvalidRequestError, RateLimitError
from skipserve.media.places import Owner

_NETWORK_BYTES = 8
_OWNER_BYTES = 7


class Resource(StrEnum):
    """What a key may use so much of in a minute."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    FLOPS = "flops"


class Limited(StrEnum):
    """Why a request of a key was turned away."""

    REQUESTS = Resource.REQUESTS
    TOKENS = Resource.TOKENS
    FLOPS = Resource.FLOPS
    CONCURRENT = "concurrent"
    QUEUED = "queued"


# What requests cost, by resource.
Cost = Mapping[Resource, int]
# Where it was taken from, by resource, and how much.
Reserved = dict[Resource, tuple[Bucket, int]]


@dataclass(frozen=True)
class Rights:
    """What may be asked for.

    Attributes:
        policies: the names of skip policies; None for all.
        takes_inline: whether policies may be spelt out.
    """

    policies: frozenset[str] | None = None
    takes_inline: bool = True

    def has(self, policy_name: str) -> bool:
        """Whether a named policy may be asked for."""
        return self.policies is None or policy_name in self.policies


@dataclass(frozen=True)
class Use:
    """What a request has taken, or several together.

    Attributes:
        prompt_tokens: rows of prompts.
        cached_tokens: those of them that were not computed.
        completion_tokens: tokens that were generated.
        computed_flops: what was planned for the rest.
        full_flops: what the full model would have cost for the same.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    computed_flops: int = 0
    full_flops: int = 0

    def __add__(self, other: "Use") -> "Use":
        return Use(*(getattr(self, it.name) + getattr(other, it.name) for it in fields(Use)))

    @property
    def cost(self) -> Cost:
        """What it counts of a key's rates: what was found in a cache costs nothing."""
        tokens = self.prompt_tokens - self.cached_tokens + self.completion_tokens
        return {Resource.TOKENS: tokens, Resource.FLOPS: self.computed_flops}


class Client:
    """Whoever has one key, or one address where keys are not wanted.

    Attributes:
        owner: who shares what there is only so much of among all of its requests.
        name: of its key in the keys file; None for others.
        rights: what it may ask for.
        is_admin: whether it may see what others use.
        num_requests: how many it has sent.
        used: what those that have ended took.

    Args:
        owner: as above.
        name: as above.
        clock: the time in nanoseconds.
    """

    def __init__(
        self, owner: Owner, name: str | None = None, clock: Callable[[], int] = monotonic_ns
    ) -> None:
        self.owner = owner
        self.name = name
        self.rights = Rights()
        self.is_admin = False
        self.num_requests = 0
        self.used = Use()
        self._limits = KeyLimits()
        self._told_rates: dict[str, str] | None = None
        self._clock = clock
        self._buckets: dict[Resource, Bucket] = {}
        self._num_under_way = 0

    @classmethod
    def of_address(cls, address: str) -> "Client":
        """Return whoever asks from an address; of IPv6, from a network of the smallest size."""
        try:
            parsed = ip_address(address.partition("%")[0])
        except ValueError:
            return cls(address)
        if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is None:
            return cls(parsed.packed[:_NETWORK_BYTES].hex())
        return cls(address)

    @classmethod
    def of_entry(cls, entry: KeyEntry, clock: Callable[[], int] = monotonic_ns) -> "Client":
        """Return whoever has a key of the keys file."""
        client = cls(digest_of(b"key name", entry.name.encode()), entry.name, clock)
        client.follow(entry)
        return client

    def follow(self, entry: KeyEntry) -> None:
        """Do from now on as a keys file says; what was used stays used."""
        policies = None if entry.policies is None else frozenset(entry.policies)
        self.rights = Rights(policies, entry.takes_inline)
        self.is_admin = entry.admin
        self.limit(entry.limits)

    def limit(self, limits: KeyLimits) -> None:
        """Hold it to other limits from now on; what was used stays used."""
        if limits == self._limits:
            return
        self._limits = limits
        for resource in Resource:
            per_minute: int | None = getattr(limits, f"{resource}_per_minute")
            if per_minute is None:
                self._buckets.pop(resource, None)
            elif resource in self._buckets:
                self._buckets[resource].resize(per_minute)
            else:
                self._buckets[resource] = Bucket(per_minute, self._clock)

    @property
    def limits(self) -> KeyLimits:
        """How much it may use."""
        return self._limits

    @cached_property
    def owner_number(self) -> int:
        """The owner as the engine knows it: 56 bits, which tell nothing of a key."""
        owner = self.owner if isinstance(self.owner, bytes) else self.owner.encode()
        return int.from_bytes(digest_of(b"owner", owner)[:_OWNER_BYTES])

    @property
    def rate_headers(self) -> dict[str, str]:
        """What replies say of its rates."""
        if self._told_rates is not None:
            return self._told_rates
        headers = {}
        for resource, bucket in self._buckets.items():
            name = resource.capitalize()
            headers[f"X-RateLimit-Limit-{name}"] = str(bucket.per_minute)
            headers[f"X-RateLimit-Remaining-{name}"] = str(bucket.remaining)
            headers[f"X-RateLimit-Reset-{name}"] = str(math.ceil(bucket.reset_seconds))
        return headers

    def tell_rates(self, headers: dict[str, str]) -> None:
        """Say this of its rates from now on: they are counted elsewhere."""
        self._told_rates = headers

    @contextmanager
    def spend(self) -> Iterator["Spending"]:
        """Count a request as under way, and hold what it reserves until it has ended.

        Raises:
            RateLimitError: as many are under way as may be, or in this minute.
        """
        most = self._limits.concurrent
        if most is not None and self._num_under_way >= most:
            raise RateLimitError(
                f"this API key has {most} requests under way, as many as it may; "
                "wait until one has ended",
                reason=Limited.CONCURRENT,
            )
        self.reserve({Resource.REQUESTS: 1})
        self.num_requests += 1
        self._num_under_way += 1
        spending = Spending(self)
        try:
            yield spending
        finally:
            spending.close()
            self._num_under_way -= 1

    def check_queue(self, num_queued: int) -> None:
        """Check that one more request of its may wait.

        Raises:
            RateLimitError: as many wait as may.
        """
        most = self._limits.queued
        if most is not None and num_queued >= most:
            raise RateLimitError(
                f"{most} requests of this API key wait, as many as may; try again later",
                reason=Limited.QUEUED,
            )

    def check_possible(self, bound: Cost) -> None:
        """Check that a request could ever be paid.

        Raises:
            InvalidRequestError: it may cost more than a whole minute brings.
        """
        for resource, amount in bound.items():
            bucket = self._buckets.get(resource)
            if bucket is not None and amount > bucket.per_minute:
                raise InvalidRequestError(
                    f"the request may cost {amount} {_unit(resource)}, and this API key has "
                    f"{bucket.per_minute} a minute: ask for fewer tokens with max_tokens, or send "
                    "less",
                    param="max_tokens",
                )

    def reserve(self, bound: Cost) -> Reserved:
        """Take all of an amount, or nothing of it.

        Raises:
            RateLimitError: there is not so much now.
        """
        limited = [(it, self._buckets[it]) for it in bound if it in self._buckets]
        waits = [(bucket.seconds_until(bound[it]), it) for it, bucket in limited]
        seconds, resource = max(waits, default=(0.0, Resource.REQUESTS))
        if seconds > 0:
            wait = math.ceil(seconds)
            raise RateLimitError(
                f"this API key may use {self._buckets[resource].per_minute} {_unit(resource)} a "
                f"minute, and has too few left for this request; try again in {wait} s",
                reason=Limited(resource.value),
                retry_after_seconds=wait,
            )
        for it, bucket in limited:
            bucket.take(bound[it])
        return {it: (bucket, bound[it]) for it, bucket in limited}


@dataclass
class Spending:
    """What one request has reserved of its client's rates; given back unless it is used.

    Attributes:
        client: whose request it is.
    """

    client: Client
    _reserved: Reserved = field(default_factory=dict)
    _used: Use = Use()
    _num_open: int = 0

    def reserve(self, *bounds: Cost) -> None:
        """Reserve the most that the request may cost: all of it, or nothing.

        Args:
            bounds: the most that each of its questions may cost, all of the same resources.

        Raises:
            InvalidRequestError: the client can never have so much.
            RateLimitError: it has not so much now.
        """
        total = {resource: sum(bound[resource] for bound in bounds) for resource in bounds[0]}
        self.client.check_possible(total)
        self._reserved = self.client.reserve(total)
        self._num_open = len(bounds)

    def settle(self, use: Use) -> None:
        """Note what a question took. With the last one the request is paid."""
        self.client.used += use
        self._used += use
        self._num_open -= 1
        if self._num_open <= 0:
            self.close()

    def close(self) -> None:
        """Pay what the request took, and give the rest back; once."""
        for resource, (bucket, amount) in self._reserved.items():
            bucket.take(self._used.cost[resource] - amount)
        self._reserved = {}


def _unit(resource: Resource) -> str:
    return "FLOPs" if resource is Resource.FLOPS else resource.value

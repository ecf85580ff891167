"""Which hosts images may be fetched from, and which addresses may be connected to for that.

A name says who may be asked; an address or a network says which addresses that are not public may
be connected to. So a name on the list cannot be made to lead into the operator's network.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Self

IpAddress = IPv4Address | IPv6Address
IpNetwork = IPv4Network | IPv6Network

_NAME = re.compile(r"(\*\.)?[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
_ENTRY = re.compile(r"(\[[0-9a-f:.]+\]|[^\[\]:]+)(?::([0-9]{1,5}))?")
# Resolvers of C read 2130706433, 127.1 and 0x7f.1 as addresses.
_LIKE_NUMBER = re.compile(r"([0-9]+|0x[0-9a-f]*)$")

_PUBLIC_V6 = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
# Global to Python's table, or to that of some of its versions, and yet special: what machines of a
# cloud are told by (Azure), relays, tunnels that hold another address, examples.
_SPECIAL = tuple(
    map(
        ip_network,
        (
            *("168.63.129.16/32", "192.0.0.0/24", "192.88.99.0/24"),
            *("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"),
        ),
    )
)


@dataclass(frozen=True)
class MediaHost:
    """One entry of the list.

    Attributes:
        host: a name, one with a star at its beginning, or a network of addresses.
        port: the one that may be asked; None for those that HTTP and HTTPS have by default.
    """

    host: str | IpNetwork
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `images.example.com`, `*.example.com`, `minio:9000`, `10.0.0.0/8` or `[::1]:8080`.

        Raises:
            ValueError: it is none of these.
        """
        given = text.strip().lower()
        if (network := _network(given)) is not None:
            return cls(network)
        match = _ENTRY.fullmatch(given)
        if match is None or not 0 < int(match[2] or 1) < 65536:
            raise _wrong_entry(text)
        port = int(match[2]) if match[2] else None
        if (network := _network(match[1].strip("[]"))) is not None:
            return cls(network, port)
        if not _is_name(match[1]):
            raise _wrong_entry(text)
        return cls(match[1], port)

    def has(self, host: str, address: IpAddress | None) -> bool:
        """Whether a host is this one or one of these; `address` is what it spells, if it does."""
        if not isinstance(self.host, str):
            return address is not None and address in self.host
        if self.host.startswith("*."):
            return host.endswith(self.host[1:])
        return host == self.host


@dataclass(frozen=True)
class MediaHosts:
    """Whom images may be fetched from.

    Attributes:
        listed: entries of the list.
        takes_any: whether any other host with a public address may be asked too.
    """

    listed: tuple[MediaHost, ...] = ()
    takes_any: bool = False

    @classmethod
    def parse(cls, texts: Iterable[str], *, takes_any: bool) -> Self:
        """Read a list.

        Raises:
            ValueError: an entry is not of a form that `MediaHost` knows.
        """
        return cls(tuple(map(MediaHost.parse, texts)), takes_any)

    @property
    def is_on(self) -> bool:
        """Whether any host may be asked."""
        return self.takes_any or bool(self.listed)

    def may_ask(self, host: str, port: int, default_port: int) -> bool:
        """Whether a host may be asked at a port; any but the scheme's own must be listed."""
        address, is_default = spelt_address(host), port == default_port
        return (self.takes_any and is_default) or any(
            (entry.port == port or (entry.port is None and is_default)) and entry.has(host, address)
            for entry in self.listed
        )

    def may_connect(self, address: IpAddress, port: int) -> bool:
        """Whether an address may be connected to: it is public, or on the list.

        On the list, an address with a port is open at that one alone, others at any that the list
        has for the name that leads there.
        """
        return is_public(address) or any(
            address in entry.host and entry.port in (None, port)
            for entry in self.listed
            if not isinstance(entry.host, str)
        )


def is_host(text: str) -> bool:
    """Whether a text in lower case is a name or an address in its one spelling."""
    return spelt_address(text) is not None or (_is_name(text) and "*" not in text)


def spelt_address(host: str) -> IpAddress | None:
    """Return the address that a host spells, in the one spelling that all readers agree on."""
    try:
        return None if "%" in host else ip_address(host)
    except ValueError:
        return None


def is_public(address: IpAddress) -> bool:
    """Whether an address is one of the public internet, for one machine.

    Addresses that hold an IPv4 address, mapped or of NAT64, are judged by that.
    """
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped
        if address in _NAT64:
            inner = IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
        if address not in _PUBLIC_V6:
            return False
    is_special = any(address in network for network in _SPECIAL)
    return address.is_global and not address.is_multicast and not is_special


def _is_name(text: str) -> bool:
    return (
        len(text) <= 253
        and _NAME.fullmatch(text) is not None
        and _LIKE_NUMBER.fullmatch(text.rpartition(".")[2]) is None
    )


def _network(text: str) -> IpNetwork | None:
    try:
        return None if "%" in text else ip_network(text)
    except ValueError:
        return None


def _wrong_entry(text: str) -> ValueError:
    return ValueError(
        f"{text!r} must be a name such as images.example.com, *.example.com or minio:9000, or an "
        "address or network such as 10.0.0.5, 10.0.0.0/8 or [::1]:8080"
    )

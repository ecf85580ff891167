"""Tests of who may be asked for images, and at which addresses."""

from ipaddress import ip_address

import pytest

from skipserve.media.hosts import MediaHost, MediaHosts, is_host, is_public

pytestmark = pytest.mark.fast

PUBLIC = (
    *("8.8.8.8", "93.184.216.34", "2606:2800:220:1::1", "2a00:1450::200e"),
    *("::ffff:8.8.8.8", "64:ff9b::808:808"),
)
NOT_PUBLIC = (
    *("127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.9.9"),
    *("192.168.1.1", "169.254.169.254", "169.254.170.2", "100.64.0.1", "100.100.100.200"),
    *("168.63.129.16", "192.0.0.192", "192.0.2.1", "192.88.99.1", "198.18.0.1", "203.0.113.5"),
    *("224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255"),
    *("::", "::1", "::127.0.0.1", "fe80::1", "fe80::1%eth0", "fec0::1", "fc00::1", "fd00:ec2::254"),
    *("ff02::1", "2001::1", "2001:db8::1", "2002:7f00:1::", "2002:808:808::", "3fff::1", "100::1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:0:127.0.0.1"),
    *("64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::808:808", "64:ff9b::a00:1"),
)


@pytest.mark.parametrize("text", PUBLIC)
def test_public_addresses(text: str) -> None:
    assert is_public(ip_address(text))


@pytest.mark.parametrize("text", NOT_PUBLIC)
def test_addresses_that_are_not_public(text: str) -> None:
    assert not is_public(ip_address(text))


@pytest.mark.parametrize(
    "text",
    [
        *("", "*", "*.", "a b", "http://a.b", "a.b/c", "a..b", ".a", "a.b.", "a-b:0"),
        *("a:99999", "a:x", "[::1", "10.0.0.5/8", "127.1", "2130706433", "0x7f.1", "a@b", "b.*"),
        *("x" * 64, "bücher.example", "::1:80:zz", "*.0x7f"),
    ],
)
def test_what_is_no_host(text: str) -> None:
    with pytest.raises(ValueError, match="must be a name such as"):
        MediaHost.parse(text)


@pytest.mark.parametrize(
    ("listed", "host", "port", "default_port"),
    [
        ("images.example.com", "images.example.com", 443, 443),
        (" Images.Example.COM ", "images.example.com", 80, 80),
        ("*.example.com", "a.b.example.com", 443, 443),
        ("minio:9000", "minio", 9000, 80),
        ("minio:80", "minio", 80, 80),
        ("10.0.0.0/8", "10.1.2.3", 80, 80),
        ("10.0.0.5:8080", "10.0.0.5", 8080, 80),
        ("[::1]:8080", "::1", 8080, 80),
        ("::1", "::1", 443, 443),
    ],
)
def test_hosts_on_the_list(listed: str, host: str, port: int, default_port: int) -> None:
    assert MediaHosts.parse([listed], takes_any=False).may_ask(host, port, default_port)


@pytest.mark.parametrize(
    ("listed", "host", "port"),
    [
        ("images.example.com", "example.com", 80),
        ("images.example.com", "a.images.example.com", 80),
        ("images.example.com", "images.example.com", 8080),
        ("images.example.com", "images.example.com.evil.com", 80),
        ("*.example.com", "example.com", 80),
        ("*.example.com", "badexample.com", 80),
        ("minio:9000", "minio", 80),
        ("10.0.0.0/8", "minio", 80),
        ("10.0.0.0/8", "11.0.0.1", 80),
        ("10.0.0.0/8", "10.0.0.1", 8080),
    ],
)
def test_hosts_off_the_list(listed: str, host: str, port: int) -> None:
    assert not MediaHosts.parse([listed], takes_any=False).may_ask(host, port, 80)


def test_any_host_is_any_at_the_ports_of_http() -> None:
    hosts = MediaHosts.parse(["minio:9000"], takes_any=True)
    assert hosts.may_ask("example.com", 443, 443)
    assert hosts.may_ask("minio", 9000, 80)
    assert not hosts.may_ask("example.com", 22, 80)
    assert not hosts.may_ask("example.com", 443, 80)


def test_a_name_on_the_list_opens_no_address() -> None:
    inside, loopback = ip_address("10.0.0.5"), ip_address("127.0.0.1")
    named = MediaHosts.parse(["minio:9000"], takes_any=True)
    assert not named.may_connect(inside, 9000)
    assert named.may_connect(ip_address("8.8.8.8"), 9000)
    both = MediaHosts.parse(["minio:9000", "10.0.0.0/8"], takes_any=False)
    assert both.may_connect(inside, 9000)
    assert not both.may_connect(loopback, 9000)
    assert not both.may_connect(ip_address("::ffff:127.0.0.1"), 9000)


def test_an_address_with_a_port_is_open_there_alone() -> None:
    hosts = MediaHosts.parse(["10.0.0.5:9000"], takes_any=True)
    assert hosts.may_connect(ip_address("10.0.0.5"), 9000)
    assert not hosts.may_connect(ip_address("10.0.0.5"), 80)


def test_hosts_are_spelt_as_all_readers_agree() -> None:
    assert all(map(is_host, ("a", "a-b.example", "a_b.c", "127.0.0.1", "::1", "1.example")))
    odd = ("", "127.1", "2130706433", "0x7f.1", "0177.0.0.1", "fe80::1%eth0", "a.b.", "*.a", "a%41")
    assert not any(map(is_host, odd))

"""Attacks the demo server as it is shipped, on loopback alone, and says what each attack took.

As a script: `attack.py 600` begins no further attack after so many seconds. The pool of pages is
full before the first one: what an attack takes comes on top of it.
"""

import contextlib
import re
import resource
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field

import httpx
from bystander import Sight, bystanding
from full_pool import SHIPPED_POOL, fill_pool
from hostile_bodies import CHAT, HOSTILE_BODIES, JSON
from hostile_pictures import exif_of_many_faults, flat_png, repeated_scans, webp_canvas
from pictures import data_uri, question
from process_tree import cpu_seconds, watched_memory
from raw_client import connect, post_head, post_whole, read_all, read_reply
from server_process import ServerProcess

MIB = 2**20
# Smallest of the limits that are shipped.
_MOST_BYTES = 2048 * MIB
_PATIENCE_SECONDS = 60.0
_FLOOD_SECONDS = 5.0
# What an attack says of itself, for its line.
Attack = Callable[[ServerProcess], str]


@dataclass
class Cost:
    """What an attack took, and what others saw of it.

    Attributes:
        told: by the attack itself.
        seconds: on the clock.
        cpu_seconds: of the server, the engine and those that decode pictures.
        peak_bytes: of the same, at once.
        sight: what someone else saw of it.
    """

    told: str = ""
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_bytes: int = 0
    sight: Sight = field(default_factory=Sight)

    @property
    def is_borne(self) -> bool:
        """Whether the server took no more memory than it may, and still answered someone else."""
        has_answered = bool(self.sight.hi and self.sight.health)
        return self.peak_bytes < _MOST_BYTES and has_answered

    def __str__(self) -> str:
        memory = f"{self.peak_bytes / MIB:.0f} MiB"
        own = f"{self.seconds:.1f} s, CPU {self.cpu_seconds:.1f} s, peak {memory}"
        seen = self.sight
        slowest = [f"{max(taken, default=0):.2f} s" for taken in (seen.hi, seen.health)]
        refused = f"{seen.num_refused} of {len(seen.hi) + len(seen.health)} refused"
        return f"{own}; others: Hi {slowest[0]}, health {slowest[1]}, {refused}; {self.told}"


def bodies(server: ServerProcess) -> str:
    """Send each hostile body of 4 MiB, and one of 31."""
    worst = ("", 0.0)
    with server.client() as client:
        for name, make in HOSTILE_BODIES.items():
            before = cpu_seconds(server.process_id)
            client.post(CHAT, content=make(4 * MIB), headers=JSON)
            worst = max(
                worst, (name, cpu_seconds(server.process_id) - before), key=lambda it: it[1]
            )
        client.post(CHAT, content=HOSTILE_BODIES["messages of objects"](31 * MIB), headers=JSON)
    per_mib = f"{1000 * worst[1] / 4:.0f} ms a MiB"
    return f"the worst of {len(HOSTILE_BODIES)} kinds is {worst[0]!r}: {per_mib}"


def scans(server: ServerProcess) -> str:
    """Send six progressive JPEGs at once that repeat their scans."""
    many = data_uri(repeated_scans(3000, 3000), "image/jpeg")
    allowed = data_uri(repeated_scans(6000, 100), "image/jpeg")
    return f"{_ask_at_once(server, 6, many)}; as many scans as may be, in 2 s: " + _ask_at_once(
        server, 6, allowed, timeout_seconds=2
    )


def canvases(server: ServerProcess) -> str:
    """Send small files of large pictures: thin ones, a WebP's canvas, two of four colours."""
    return "; ".join(
        (
            "thin " + _ask_at_once(server, 6, data_uri(flat_png(1, 40_000_000))),
            "canvas " + _ask_at_once(server, 6, data_uri(webp_canvas(6300), "image/webp")),
            "RGBA " + _ask_at_once(server, 6, data_uri(flat_png(6300, 6300, 6))),
        )
    )


def unread_streams(server: ServerProcess) -> str:
    """Ask for 262 streams, and read none."""
    body = question("Hi", stream=True, logprobs=True, top_logprobs=20, max_tokens=40)
    with ExitStack() as stack:
        for _ in range(262):
            connection = stack.enter_context(connect(server.url, receive_bytes=2048))
            connection.sendall(post_whole(CHAT, body))
        time.sleep(3)
    return "262 streams"


def heads(server: ServerProcess) -> str:
    """Open 2,000 connections from four addresses, with half a head each; then no head at all."""
    _let_open(4096)
    printed, num_open = len(server.output), 0
    with ExitStack() as stack:
        for index in range(2000):
            with contextlib.suppress(OSError):
                connection = connect(server.url, address=f"127.0.0.{2 + index % 4}")
                stack.enter_context(connection).sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n")
                num_open += 1
        time.sleep(2)
    return f"{num_open} connections; {len(server.output) - printed} bytes of log"


def large_bodies(server: ServerProcess) -> str:
    """Send 60 bodies of 31 MiB, but for their ends."""
    head = post_head(CHAT, f"Content-Length: {32 * MIB}") + b'{"messages": "data:image/png;base64,'

    def send(_: int) -> bytes:
        with connect(server.url) as connection:
            connection.settimeout(5)
            try:
                connection.sendall(head)
                for _ in range(31):
                    connection.sendall(b"A" * MIB)
                return connection.recv(12)[9:]
            except OSError:
                return b"cut off"

    with ThreadPoolExecutor(60) as threads:
        told = list(threads.map(send, range(60)))
    return f"{told.count(b'503')} told 503, {told.count(b'cut off')} waiting or cut off"


def exif(server: ServerProcess) -> str:
    """Send eight pictures of 15,000 faults in their EXIF."""
    printed = server.output.count("\n")
    told = _ask_at_once(server, 1, *[data_uri(exif_of_many_faults(15_000))] * 8)
    return f"{told}; {server.output.count(chr(10)) - printed} lines of log"


def not_http(server: ServerProcess) -> str:
    """Send what cannot be parsed, a method of 10,000 letters, and HEAD."""
    sent = {
        "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        "method": b"A" * 10_000 + b" / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        "HEAD": b"HEAD /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    }
    told = []
    for name, content in sent.items():
        with connect(server.url) as connection:
            connection.sendall(content)
            told.append(f"{name} {read_all(connection)[9:12].decode()}")
    longest = max(map(len, server.output.splitlines()), default=0)
    return f"{', '.join(told)}; the longest line of log has {longest} letters"


def rebinding(server: ServerProcess) -> str:
    """Ask as a page of elsewhere has a browser ask."""
    told = []
    with server.client() as client:
        for name, value in (("Host", "evil.example"), ("Origin", "http://evil.example")):
            reply = client.post(CHAT, json=question("Hi"), headers={name: value})
            told.append(f"{name} {reply.status_code}")
    return ", ".join(told)


def overload(server: ServerProcess) -> str:
    """Let 300 clients ask and ask again, whatever they are told, for five seconds."""
    return _ask_on_and_on(server, 300, post_whole(CHAT, question("Hi", max_tokens=4)))


def pages(server: ServerProcess) -> str:
    """Let 50 clients ask for the metrics, and then for what is not there, for five seconds each."""
    metrics, nothing = (
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        for path in ("/metrics", "/v1/nothing")
    )
    told = _ask_on_and_on(server, 50, metrics), _ask_on_and_on(server, 50, nothing)
    return "; ".join(told)


def one_key_s_flood(_shipped: ServerProcess) -> str:
    """Flood with one key a server of two keys, and count what the other is refused."""
    flags = ("--max-queued-requests", "16", "--max-running-requests", "8")
    keys = {"SKIPSERVE_API_KEY": "one,other"}
    is_over = threading.Event()
    with ServerProcess("demo", *flags, **keys) as server:

        def ask(key: str, **fields: object) -> int:
            with httpx.Client(base_url=server.url, timeout=None, trust_env=False) as client:
                headers = {"Authorization": f"Bearer {key}"}
                body = question("Hi", **fields)
                return client.post(CHAT, json=body, headers=headers).status_code

        def flood() -> None:
            while not is_over.is_set():
                ask("one", max_tokens=10)

        with ThreadPoolExecutor(32) as threads:
            for _ in range(32):
                threads.submit(flood)
            time.sleep(2)
            told, ends_at = [ask("other")], time.monotonic() + 30
            while len(told) < 25 and time.monotonic() < ends_at:
                told.append(ask("other"))
            is_over.set()
    return f"{len(told) - told.count(200)} of {len(told)} of the other key's refused"


def sigterm(_shipped: ServerProcess) -> str:
    """Tell a server to end while streams run and a costly picture is decoded; then insist."""
    with ServerProcess("demo", "--grace-seconds", "1") as server, ExitStack() as stack:
        body = question("Hi", stream=True, max_tokens=200)
        for _ in range(40):
            stack.enter_context(connect(server.url)).sendall(post_whole(CHAT, body))
        picture = data_uri(repeated_scans(6000, 100), "image/jpeg")
        stack.enter_context(connect(server.url)).sendall(post_whole(CHAT, question("Hi", picture)))
        time.sleep(1)
        begun = time.monotonic()
        server.signal(signal.SIGTERM)
        time.sleep(0.5)
        server.signal(signal.SIGTERM)
        code, output = server.wait()
        seconds = time.monotonic() - begun
    return f"exit code {code} after {seconds:.1f} s, {output.count('Traceback')} tracebacks"


# By the number of what broke once.
ATTACKS: dict[str, Attack] = {
    "1 bodies": bodies,
    "2 repeated scans": scans,
    "3 small files of large pictures": canvases,
    "4 streams that nobody reads": unread_streams,
    "5 half heads": heads,
    "5 large bodies": large_bodies,
    "6 told to end": sigterm,
    "7 faulty EXIF": exif,
    "8 no HTTP": not_http,
    "9 rebinding": rebinding,
    "10 overload": overload,
    "10 pages and errors": pages,
    "11 one key's flood": one_key_s_flood,
}


def run(server: ServerProcess, attack: Attack) -> Cost:
    """Run an attack beside others, who ask for little."""
    cost, begun, before = Cost(), time.monotonic(), cpu_seconds(server.process_id)
    with watched_memory(server.process_id) as most, bystanding(server.url) as cost.sight:
        cost.told = attack(server)
    cost.seconds = time.monotonic() - begun
    cost.cpu_seconds = cpu_seconds(server.process_id) - before
    cost.peak_bytes = most[0]
    return cost


def _ask_on_and_on(server: ServerProcess, num_clients: int, request: bytes) -> str:
    """Ask on so many connections, each again when it is answered; count what is told."""
    statuses: Counter[str] = Counter()
    ends_at = time.monotonic() + _FLOOD_SECONDS

    def ask(_: int) -> None:
        with connect(server.url) as connection:
            connection.settimeout(_PATIENCE_SECONDS)
            while time.monotonic() < ends_at:
                connection.sendall(request)
                statuses[read_reply(connection)[0][9:12].decode()] += 1

    with ThreadPoolExecutor(num_clients) as threads:
        list(threads.map(ask, range(num_clients)))
    return ", ".join(f"{number} times {status}" for status, number in sorted(statuses.items()))


def _ask_at_once(server: ServerProcess, count: int, *urls: str, **fields: object) -> str:
    """Ask about pictures from several clients; return how often each status was told."""

    def ask(_: int) -> int:
        with server.client() as client:
            return client.post(CHAT, json=question("Hi", *urls, **fields)).status_code

    with ThreadPoolExecutor(count) as threads:
        statuses = list(threads.map(ask, range(count)))
    return ", ".join(f"{statuses.count(it)} times {it}" for it in sorted(set(statuses)))


def _let_open(num_files: int) -> None:
    """Let this process open so many files, as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < num_files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(num_files, hard), hard))


def main(seconds: float) -> bool:
    """Run the attacks one after the other; return whether the server has withstood them."""
    ends_at, has_held = time.monotonic() + seconds, True
    with ServerProcess("demo", *SHIPPED_POOL) as server:
        fill_pool(server)
        for name, attack in ATTACKS.items():
            if time.monotonic() > ends_at:
                sys.stdout.write(f"{name}: left out, the time is over\n")
                continue
            cost = run(server, attack)
            has_held &= cost.is_borne
            sys.stdout.write(f"{'held  ' if cost.is_borne else 'MISSED'}  {name}: {cost}\n")
            sys.stdout.flush()
        with server.client() as client:
            has_held &= client.post(CHAT, json=question("Hi")).status_code == 200
        faults = len(re.findall("Traceback", server.output))
    sys.stdout.write(f"{faults} tracebacks in the log; withstood: {has_held}\n")
    return has_held and not faults


if __name__ == "__main__":
    sys.exit(not main(float(sys.argv[1])))

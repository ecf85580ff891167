"""What can be had on a host, from files as kernels write them."""

from pathlib import Path

import pytest

from skipserve.engine.host_memory import available_bytes

pytestmark = pytest.mark.fast

KIB = 1024
MACHINE = 8_000_000 * KIB
# Little is free, for the kernel keeps copies of files; most of it can be had.
MEMINFO = """\
MemTotal:       16000000 kB
MemFree:           20000 kB
MemAvailable:    8000000 kB
Cached:          7900000 kB
HugePages_Total:       0
"""
UNLIMITED = {"v2": "max\n", "v1": "9223372036854771712\n"}
FOLDERS = {"v2": "sys/fs/cgroup", "v1": "sys/fs/cgroup/memory"}


class Host:
    """A folder with the files of a kernel, of one version of control groups."""

    def __init__(self, root: Path, version: str) -> None:
        self.root, self.version = root, version
        (root / "proc/self").mkdir(parents=True)
        (root / "proc/meminfo").write_text(MEMINFO)

    def is_in(self, path: str) -> None:
        """Put the process into a group."""
        lines = {
            "v2": [f"0::{path}"],
            "v1": ["12:pids:/elsewhere", f"4:hugetlb,memory:{path}", "0::/unified"],
        }
        (self.root / "proc/self/cgroup").write_text("\n".join([*lines[self.version], ""]))

    def group(self, path: str, limit: int | None, used: int, cache: int | None = None) -> Path:
        """Make a group; of what it uses, `cache` are copies of files."""
        folder = self.root / FOLDERS[self.version] / path
        folder.mkdir(parents=True, exist_ok=True)
        names = {
            "v2": ("memory.max", "memory.current", "inactive_file"),
            "v1": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        }[self.version]
        (folder / names[0]).write_text(UNLIMITED[self.version] if limit is None else f"{limit}\n")
        (folder / names[1]).write_text(f"{used}\n")
        if cache is not None:
            # Version 1 tells the group's own part beside that of all groups within.
            own = "anon 7\ninactive_file 1\n" if self.version == "v1" else "anon 7\n"
            (folder / "memory.stat").write_text(f"{own}{names[2]} {cache}\nactive_file 5\n")
        return folder

    @property
    def available(self) -> int:
        return available_bytes(self.root)


@pytest.fixture(params=["v1", "v2"])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Host:
    return Host(tmp_path, request.param)


def test_copies_of_files_can_be_had(host: Host) -> None:
    assert host.available == MACHINE
    host.is_in("/service")
    host.group("service", limit=50_000, used=49_000, cache=40_000)
    assert host.available == 41_000


def test_the_tightest_of_all_groups_around_counts(host: Host) -> None:
    host.is_in("/pods/pod:1/engine")
    host.group("", limit=None, used=10**12)
    host.group("pods", limit=900_000, used=300_000, cache=100_000)
    host.group("pods/pod:1", limit=200_000, used=90_000, cache=30_000)
    assert host.available == 140_000
    host.group("pods/pod:1/engine", limit=60_000, used=1_000, cache=0)
    assert host.available == 59_000
    host.group("pods", limit=900_000, used=890_000, cache=100)
    assert host.available == 10_100


def test_another_group_does_not_count(host: Host) -> None:
    host.is_in("/ours")
    host.group("ours", limit=None, used=5)
    host.group("theirs", limit=10, used=5)
    host.group("ours/within", limit=10, used=5)
    assert host.available == MACHINE


@pytest.mark.parametrize("path", ["/", "/docker/0123", "/../../other.slice"])
def test_within_a_container_the_outermost_group_is_its_own(host: Host, path: str) -> None:
    host.is_in(path)
    host.group("", limit=5_000, used=1_000, cache=500)
    assert host.available == 4_500


def test_without_the_name_of_the_group_the_outermost_counts(host: Host) -> None:
    host.group("", limit=5_000, used=1_000, cache=500)
    assert host.available == 4_500


def test_files_that_are_missing_or_odd_limit_nothing(host: Host) -> None:
    host.is_in("/a")
    folder = host.group("a", limit=5_000, used=1_000)
    assert host.available == 4_000, "all of it may be in use"
    (folder / "memory.stat").write_text("odd\n\ninactive_file\ntotal_inactive_file many\n")
    assert host.available == 4_000
    for file in folder.iterdir():
        if file.name != "memory.stat":
            file.write_text("")
    assert host.available == MACHINE


def test_never_less_than_nothing(host: Host) -> None:
    host.group("", limit=5_000, used=6_000, cache=0)
    assert host.available == 0


def test_a_group_that_is_slowed_down_is_full(tmp_path: Path) -> None:
    host = Host(tmp_path, "v2")
    host.is_in("/a")
    folder = host.group("a", limit=5_000, used=1_000)
    (folder / "memory.high").write_text("max\n")
    assert host.available == 4_000
    (folder / "memory.high").write_text("3000\n")
    assert host.available == 2_000


@pytest.mark.parametrize("meminfo", [None, "MemTotal: 16 kB\n", "MemAvailable:\n", "", "\n"])
def test_where_the_kernel_does_not_say_half_of_all_is_taken(
    tmp_path: Path, meminfo: str | None
) -> None:
    if meminfo is not None:
        (tmp_path / "proc").mkdir()
        (tmp_path / "proc/meminfo").write_text(meminfo)
    assert 2**20 < available_bytes(tmp_path) < 2**50


def test_this_machine_has_memory() -> None:
    assert 2**20 < available_bytes() < 2**50

"""Whether the device computes what it should: the tests of kernels and models, run there."""

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree

from on_gpu.bench import Bench, Rows
from report import Row

_ROOT = Path(__file__).parents[2]

# So many processes compile beside each other; each takes a few gigabytes of the device.
_MOST_PROCESSES = 8

# Warnings of other versions of torch are no errors here.
_OPTIONS = ("-q", "-rfE", "-W", "default", "-p", "no:cacheprovider")


def run_tests(bench: Bench) -> Rows:
    """Run the tests in processes of their own, and count what became of them."""
    processes = min(len(os.sched_getaffinity(0)) - 1, _MOST_PROCESSES)
    with TemporaryDirectory() as folder:
        report = Path(folder) / "tests.xml"
        command = [sys.executable, "-m", "pytest", *_OPTIONS, *bench.amount.tests]
        command += ["--device", bench.device.type, "-n", str(processes), f"--junitxml={report}"]
        status = subprocess.run(command, cwd=_ROOT, stdout=sys.stderr, check=False).returncode
        assert report.is_file(), f"pytest ended with status {status} and left no report"
        counts = _counts(report)
    num_wrong = counts["failures"] + counts["errors"]
    yield Row("skipped", counts["skipped"], "tests")
    yield Row("passed", counts["tests"] - counts["skipped"] - num_wrong, "tests", target=1)
    yield Row("failed", num_wrong, "tests", target=0, is_limit=True)
    assert status == 0 or num_wrong, f"pytest ended with status {status}"


def _counts(report: Path) -> dict[str, int]:
    suites = ElementTree.parse(report).getroot().iter("testsuite")
    attributes = [suite.attrib for suite in suites]
    names = ("tests", "failures", "errors", "skipped")
    return {name: sum(int(each[name]) for each in attributes) for name in names}

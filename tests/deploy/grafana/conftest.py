"""What the tests of the dashboards share: the folder of the code that makes them."""

import sys

from monitoring_files import GRAFANA


def pytest_configure() -> None:
    """Let tests import that code as `build.py` does: from its own folder."""
    sys.path.append(str(GRAFANA))

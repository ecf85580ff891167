"""The overview: what someone on call looks at first. One row for each part of the server."""

from skipserve_dashboards.engine_rows import CACHES, ENGINE, RUNNING
from skipserve_dashboards.front_end_rows import FRONT_END
from skipserve_dashboards.key_rows import KEYS
from skipserve_dashboards.layout import Board
from skipserve_dashboards.service_rows import NOW, SERVICE
from skipserve_dashboards.spread_rows import SPREAD
from skipserve_dashboards.variables import MODEL, NAMESPACE, REPLICA

OVERVIEW = Board(
    uid="skipserve-overview",
    title="skipserve: overview",
    description="How the service does: requests, the engine, the front end, the caches.",
    variables=(NAMESPACE, MODEL, REPLICA),
    rows=(NOW, SERVICE, KEYS, ENGINE, FRONT_END, CACHES, SPREAD, RUNNING),
    since="1h",
)

"""Descriptions of panels to Grafana's own form, by its typed builders. Knows no metric."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    prometheus,
    stat,
    table,
    timeseries,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as kinds
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import prometheus as prometheus_models
from grafana_foundation_sdk.models import units

from skipserve_dashboards.promql import FIRING, Query

SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
TAG = "skipserve"
WIDTH = 24
_PANEL_HEIGHT = 8

RATIO = units.PercentUnit
SECONDS = units.Seconds
BYTES = units.BytesIEC
COUNT = units.Short

AnyPanel = timeseries.Panel | stat.Panel | bargauge.Panel | table.Panel


class View(Enum):
    """How the answers to a panel's questions are drawn."""

    LINES = "lines"
    STACK = "stack"
    BARS = "bars"
    NUMBER = "number"
    TABLE = "table"


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
        title: of at most a few words.
        description: what it shows, and what to think of it.
        unit: of all values, in Grafana's words.
        queries: the questions; a table joins their answers, one column each.
        view: how it is drawn.
        limits: a colour from each value on; green below the first.
        base: the colour below the first limit.
        alerts: the alerts that watch this; each has an incident page.
        column_units: for a table: the units of columns that have another, by legend.
        width: out of 24.
    """

    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    view: View = View.LINES
    limits: Mapping[float, str] = field(default_factory=dict)
    base: str = "green"
    alerts: tuple[str, ...] = ()
    column_units: Mapping[str, str] = field(default_factory=dict)
    width: int = 8


@dataclass(frozen=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Board:
    """One dashboard.

    Attributes:
        uid: its address in Grafana, for ever.
        title: its name there.
        description: what it is for.
        variables: what can be chosen at its top, besides the data source.
        rows: from top to bottom.
        since: the time it shows at first, up to now.
    """

    uid: str
    title: str
    description: str
    variables: tuple[dashboard.QueryVariable | dashboard.CustomVariable, ...]
    rows: tuple[Row, ...]
    since: str


def render(board: Board, docs: str) -> str:
    """Return a dashboard's JSON.

    Args:
        board: what is on it.
        docs: where the folder `docs` is to be read.
    """
    built = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(board.description)
        .tags([TAG])
        .readonly()
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .refresh("10s")
        .time(f"now-{board.since}", "now")
        .link(_other_boards())
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data").type("prometheus"))
        .annotation(_firing_alerts())
    )
    for variable in board.variables:
        built.with_variable(variable)
    number = 0
    for row in board.rows:
        number += 1
        built.with_row(dashboard.Row(row.title).id(number))
        for panel in row.panels:
            number += 1
            built.with_panel(_build(panel, docs).id(number))
    return json.dumps(built.build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def _build(panel: Panel, docs: str) -> AnyPanel:
    built = _DRAW[panel.view](panel)
    for number, query in enumerate(panel.queries):
        built.with_target(_target(query, panel.view, chr(ord("A") + number)))
    return (
        built.title(panel.title)
        .description(panel.description)
        .datasource(SOURCE)
        .unit(panel.unit)
        .height(4 if panel.view is View.NUMBER else _PANEL_HEIGHT)
        .span(panel.width)
        .thresholds(_thresholds(panel))
        .mappings([_nothing_known()])
        .links([_incident_link(alert, docs) for alert in panel.alerts])
    )


def _draw_lines(panel: Panel) -> timeseries.Panel:
    drawn = (
        timeseries.Panel()
        .line_width(1)
        .fill_opacity(0)
        .show_points(kinds.VisibilityMode.NEVER)
        .color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
        .tooltip(_all_sorted())
        .legend(_legend())
    )
    if panel.unit == RATIO:
        drawn.min(0)
    if panel.limits:
        style = common.GraphThresholdsStyleConfig().mode(kinds.GraphThresholdsStyleMode.DASHED)
        drawn.thresholds_style(style)
    return drawn.axis_soft_min(0)


def _draw_stack(panel: Panel) -> timeseries.Panel:
    stacking = common.StackingConfig().group("all").mode(kinds.StackingMode.NORMAL)
    return _draw_lines(panel).fill_opacity(30).stacking(stacking)


def _draw_number(_: Panel) -> stat.Panel:
    return stat.Panel().graph_mode(kinds.BigValueGraphMode.NONE).reduce_options(_last())


def _draw_bars(_: Panel) -> bargauge.Panel:
    return (
        bargauge.Panel()
        .orientation(kinds.VizOrientation.HORIZONTAL)
        .display_mode(kinds.BarGaugeDisplayMode.BASIC)
        .min(0)
        .reduce_options(_last())
    )


def _draw_table(panel: Panel) -> table.Panel:
    drawn = table.Panel().filterable(True)
    for legend, unit in panel.column_units.items():
        drawn.override_by_name(legend, [models.DynamicConfigValue(id_val="unit", value=unit)])
    for transformation in _one_column_each(panel.queries):
        drawn.with_transformation(transformation)
    return drawn


_DRAW: Mapping[View, Callable[[Panel], AnyPanel]] = {
    View.LINES: _draw_lines,
    View.STACK: _draw_stack,
    View.BARS: _draw_bars,
    View.NUMBER: _draw_number,
    View.TABLE: _draw_table,
}


def _target(query: Query, view: View, letter: str) -> prometheus.Dataquery:
    target = (
        prometheus.Dataquery()
        .expr(query.expression)
        .legend_format(query.legend)
        .datasource(SOURCE)
        .ref_id(letter)
    )
    if view in {View.LINES, View.STACK}:
        return target.range()
    # Of a range, the last value that was known would stay when a server is gone.
    target = target.instant()
    return target.format(prometheus_models.PromQueryFormat.TABLE) if view is View.TABLE else target


def _one_column_each(queries: tuple[Query, ...]) -> tuple[models.DataTransformerConfig, ...]:
    """Return what joins the answers by their labels and names the columns."""
    letters = [chr(ord("A") + number) for number in range(len(queries))]
    names = {
        f"Value #{letter}": query.legend for letter, query in zip(letters, queries, strict=True)
    }
    # A lone answer is not numbered.
    names["Value"] = queries[0].legend
    return (
        models.DataTransformerConfig(id_val="merge", options={}),
        models.DataTransformerConfig(
            id_val="organize", options={"excludeByName": {"Time": True}, "renameByName": names}
        ),
    )


def _thresholds(panel: Panel) -> dashboard.ThresholdsConfig:
    steps = [models.Threshold(value=None, color=panel.base)]
    steps += [models.Threshold(value=value, color=colour) for value, colour in panel.limits.items()]
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


def _nothing_known() -> models.SpecialValueMap:
    """Show a dash for what was divided by nothing."""
    return models.SpecialValueMap(
        options=models.DashboardSpecialValueMapOptions(
            match=models.SpecialValueMatch.NA_N, result=models.ValueMappingResult(text="-")
        )
    )


def _incident_link(alert: str, docs: str) -> dashboard.DashboardLink:
    return (
        dashboard.DashboardLink(f"Incident page: {alert}")
        .type(models.DashboardLinkType.LINK)
        .url(f"{docs}/operations/incidents/{alert}.md")
        .target_blank(True)
    )


def _other_boards() -> dashboard.DashboardLink:
    return (
        dashboard.DashboardLink("skipserve")
        .type(models.DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .include_vars(True)
        .keep_time(True)
    )


def _firing_alerts() -> dashboard.AnnotationQuery:
    return (
        dashboard.AnnotationQuery()
        .name("Alerts")
        .datasource(SOURCE)
        .enable(True)
        .icon_color("red")
        .expr(FIRING)
    )


def _all_sorted() -> common.VizTooltipOptions:
    tooltip = common.VizTooltipOptions().mode(kinds.TooltipDisplayMode.MULTI)
    return tooltip.sort(kinds.SortOrder.DESCENDING)


def _legend() -> common.VizLegendOptions:
    legend = common.VizLegendOptions().display_mode(kinds.LegendDisplayMode.LIST)
    return legend.placement(kinds.LegendPlacement.BOTTOM).show_legend(True)


def _last() -> common.ReduceDataOptions:
    return common.ReduceDataOptions().calcs(["lastNotNull"])

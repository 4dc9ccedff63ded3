"""From a board to Grafana's JSON, by the Grafana Foundation SDK: how panels look, said once."""

from __future__ import annotations

import json
import warnings

with warnings.catch_warnings():
    # The SDK prefers its second schema, which Grafana provisions from files only since 12.
    warnings.simplefilter("ignore", DeprecationWarning)
    from grafana_foundation_sdk.builders import (
        common,
        dashboard,
        prometheus,
        stat,
        table,
        timeseries,
    )
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    BigValueTextMode,
    DataSourceRef,
    GraphDrawStyle,
    LegendDisplayMode,
    LegendPlacement,
    LineInterpolation,
    ScaleDistribution,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataTransformerConfig,
    DynamicConfigValue,
    FieldColorModeId,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
    VariableOption,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from velatura_ops.dashboards.board import BLUE, COLUMNS, RED, Board, Kind, Panel, Variable

FIRST_ROW = 1000  # rows are numbered from here, so that a new panel leaves their numbers alone
LIMITS = ("limit", "target")  # series of these names are dashed: what the others should not pass
DATASOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")


def to_json(board: Board) -> str:
    """The dashboard as Grafana reads it, the same text for the same board."""
    return json.dumps(_dashboard(board).build(), cls=JSONEncoder, indent=1, sort_keys=True) + "\n"


def _dashboard(board: Board) -> dashboard.Dashboard:
    built = (
        dashboard.Dashboard(board.title)
        .uid(f"velatura-{board.name}")
        .description(board.description)
        .tags(["velatura"])
        .timezone("browser")
        .time(board.span, "now")
        .refresh("10s")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .readonly()
        .link(
            dashboard.DashboardLink("Velatura")
            .type(DashboardLinkType.DASHBOARDS)
            .tags(["velatura"])
            .placement("")  # beside the choices, where one sees it
            .include_vars(True)
            .keep_time(True)
        )
        .annotation(
            dashboard.AnnotationQuery()
            .name("Firing alerts")
            .datasource(DATASOURCE)
            .enable(True)
            .icon_color(RED)
            .expr('ALERTS{job="velatura",alertstate="firing"}')
            .step("30s")
            .title_format("{{alertname}}")
            .text_format("{{instance}} {{grpc_method}} {{model}}")
        )
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data").type("prometheus"))
    )
    for variable in board.variables:
        built.with_variable(_variable(variable))
    number = 0
    for place, row in enumerate(board.rows):
        if sum(panel.width for panel in row.panels) % COLUMNS:
            raise ValueError(f"{board.name}, row {row.title!r}: the widths must fill lines of 24")
        built.with_row(dashboard.Row(row.title).id(FIRST_ROW + place))
        for panel in row.panels:
            number += 1
            built.with_panel(_panel(panel).id(number))
    return built


def _variable(variable: Variable) -> dashboard.QueryVariable:
    label = variable.of or variable.name
    return (
        dashboard.QueryVariable(variable.name)
        .label(variable.label)
        .datasource(DATASOURCE)
        .query(f"label_values({variable.metric}, {label})")
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(VariableOption(selected=True, text="All", value="$__all"))
    )


Builder = timeseries.Panel | stat.Panel | table.Panel


def _panel(panel: Panel) -> Builder:
    match panel.kind:
        case Kind.STAT:
            built: Builder = _stat(panel)
        case Kind.TABLE:
            built = _table(panel)
        case _:
            built = _timeseries(panel)
    built = (
        built.title(panel.title)
        .description(panel.description)
        .datasource(DATASOURCE)
        .unit(panel.unit)
        .span(panel.width)
        .height(panel.height)
    )
    if panel.optional:
        built.no_value("none")
    for number, query in enumerate(panel.queries):
        target = (
            prometheus.Dataquery().expr(query.expr).legend_format(query.legend or "__auto")
        ).ref_id(chr(ord("A") + number))
        if panel.kind is Kind.TABLE:
            target = target.format(PromQueryFormat.TABLE).instant()
        else:
            target = target.range()
        built.with_target(target)
    return built


def _timeseries(panel: Panel) -> timeseries.Panel:
    stacked = panel.kind is Kind.STACK
    built = (
        timeseries.Panel()
        .draw_style(GraphDrawStyle.LINE)
        .line_interpolation(LineInterpolation.LINEAR)
        .line_width(1 if stacked else 2)
        .fill_opacity(60 if stacked else 4)
        .show_points(VisibilityMode.NEVER)
        .span_nulls(False)
        .stacking(
            common.StackingConfig().mode(StackingMode.NORMAL if stacked else StackingMode.NONE)
        )
        .color_scheme(dashboard.FieldColor().mode(FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.TABLE)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs(["lastNotNull", "max"])
        )
        .tooltip(
            common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING)
        )
    )
    if panel.least is not None and not panel.log:
        built.min(panel.least)
    if panel.most is not None:
        built.max(panel.most)
    if panel.log:
        built.scale_distribution(
            common.ScaleDistributionConfig().type(ScaleDistribution.LOG).log(10)
        )
    for name, colour in panel.colours.items():
        properties = [DynamicConfigValue("color", {"mode": "fixed", "fixedColor": colour})]
        if name in LIMITS:
            dash = {"fill": "dash", "dash": [8, 6]}
            properties += [
                DynamicConfigValue("custom.lineStyle", dash),
                DynamicConfigValue("custom.fillOpacity", 0),
            ]
        built.override_by_name(name, properties)
    return built


def _stat(panel: Panel) -> stat.Panel:
    steps = [Threshold(value=value, color=colour) for value, colour in panel.thresholds]
    built = (
        stat.Panel()
        .graph_mode(BigValueGraphMode.NONE if panel.words else BigValueGraphMode.AREA)
        .color_mode(BigValueColorMode.VALUE)
        .text_mode(BigValueTextMode.AUTO)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(
            dashboard.ThresholdsConfig()
            .mode(ThresholdsMode.ABSOLUTE)
            .steps(steps or [Threshold(value=None, color=BLUE)])
        )
        .color_scheme(dashboard.FieldColor().mode(FieldColorModeId.THRESHOLDS))
    )
    if panel.least is not None:
        built.min(panel.least)
    if panel.words:
        results = {
            value: ValueMappingResult(text=word, index=index)
            for index, (value, word) in enumerate(panel.words.items())
        }
        built.mappings([ValueMap(options=results)])
    return built


def _table(panel: Panel) -> table.Panel:
    kept = {name: index for index, name in enumerate(panel.columns)}
    return (
        table.Panel()
        .with_transformation(
            DataTransformerConfig(
                id_val="filterFieldsByName", options={"include": {"names": list(kept)}}
            )
        )
        .with_transformation(
            DataTransformerConfig(id_val="organize", options={"indexByName": kept})
        )
    )

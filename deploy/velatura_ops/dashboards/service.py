"""Service: rate, errors and duration by method, and what hurts, on one screen."""

from __future__ import annotations

from velatura_ops.dashboards.board import (
    BLUE,
    CODES,
    GREEN,
    ORANGE,
    QUANTILES,
    RED,
    STAGES,
    YELLOW,
    Board,
    Kind,
    Panel,
    Query,
    Row,
    Variable,
)
from velatura_ops.dashboards.promql import FAULTS, mean, quantile, rate, select, total

METHOD = 'grpc_method=~"$method"'
HANDLED = "grpc_server_handled_total"
SECONDS = "grpc_server_handling_seconds"
OK = 'grpc_code="OK"'


def share_of(codes: str, by: str = "") -> str:
    """Share of the calls that end with one of `codes`."""
    chosen = rate(HANDLED, METHOD, f'grpc_code=~"{codes}"', by=by)
    return f"{chosen} / ({rate(HANDLED, METHOD, by=by)} > 0)"


def per_call(metric: str, *labels: str) -> str:
    """A histogram's seconds for each call that ended."""
    return f"{rate(f'{metric}_sum', *labels)} / ({rate(HANDLED)} > 0)"


WELL = Row(
    "Is it well?",
    (
        Panel(
            "Ready",
            "Whether every instance serves and every network is ready. If not: see Models, then "
            "the runbook's VelaturaNotReady.",
            "short",
            (Query(f"min({select('velatura_ready')})", "ready"),),
            width=4,
            height=4,
            kind=Kind.STAT,
            thresholds=((None, RED), (1, GREEN)),
            words={"0": "no", "1": "yes"},
        ),
        Panel(
            "Calls",
            "Calls that end, per second. A sudden zero is a caller or a network between.",
            "reqps",
            (Query(rate(HANDLED, METHOD), "calls"),),
            width=4,
            height=4,
            kind=Kind.STAT,
        ),
        Panel(
            "Failing",
            "Share of calls that fail by the service's fault: INTERNAL, UNKNOWN, UNAVAILABLE, "
            "DATA_LOSS, DEADLINE_EXCEEDED. Over 1 %: see how calls end, below.",
            "percentunit",
            (Query(share_of(FAULTS), "failing"),),
            width=4,
            height=4,
            kind=Kind.STAT,
            thresholds=((None, GREEN), (0.01, YELLOW), (0.1, RED)),
        ),
        Panel(
            "Refused",
            "Share of calls that were told to come back later (RESOURCE_EXHAUSTED): more comes in "
            "than the networks carry. Add instances, or slow the callers down.",
            "percentunit",
            (Query(share_of("RESOURCE_EXHAUSTED"), "refused"),),
            width=4,
            height=4,
            kind=Kind.STAT,
            thresholds=((None, GREEN), (0.01, ORANGE), (0.1, RED)),
        ),
        Panel(
            "Slowest method, p99",
            "99 % of the slowest method's successful calls are faster. The targets are in "
            "deploy/prometheus/rules/recording.yml.",
            "s",
            (
                Query(
                    f"max({quantile(0.99, SECONDS, METHOD, OK, by='grpc_method')} > 0)", "slowest"
                ),
            ),
            width=4,
            height=4,
            kind=Kind.STAT,
            thresholds=((None, GREEN), (2, YELLOW), (5, RED)),
        ),
        Panel(
            "Room for calls, used",
            "Calls in work as a share of --max-requests. At 100 % the server refuses more.",
            "percentunit",
            (
                Query(
                    f"{total('grpc_server_in_flight')} / {total('velatura_requests_limit')}", "used"
                ),
            ),
            width=4,
            height=4,
            kind=Kind.STAT,
            thresholds=((None, GREEN), (0.7, YELLOW), (0.9, RED)),
        ),
    ),
)
METHODS = Row(
    "Rate, errors, duration",
    (
        Panel(
            "Which methods are called?",
            "Calls begun per second. Compare with what the callers say they send.",
            "reqps",
            (
                Query(
                    rate("grpc_server_started_total", METHOD, by="grpc_method") + " > 0",
                    "{{grpc_method}}",
                ),
            ),
            kind=Kind.STACK,
        ),
        Panel(
            "How do calls end?",
            "By status code. Orange: overload, add instances. Red and purple: ours to mend, read "
            "the log by request id. Blue: the callers' requests are wrong.",
            "reqps",
            (Query(rate(HANDLED, METHOD, by="grpc_code") + " > 0", "{{grpc_code}}"),),
            kind=Kind.STACK,
            colours=CODES,
        ),
        Panel(
            "How long do successful calls take?",
            "Over all chosen methods. p99 far from p50: queues or large pictures; see what takes "
            "the time, below.",
            "s",
            tuple(
                Query(quantile(share, SECONDS, METHOD, OK), name)
                for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))
            ),
            colours=QUANTILES,
        ),
        Panel(
            "Which method is slow?",
            "p99 of successful calls by method. Choose the method above to see it alone.",
            "s",
            (
                Query(
                    quantile(0.99, SECONDS, METHOD, OK, by="grpc_method") + " > 0",
                    "{{grpc_method}}",
                ),
            ),
        ),
        Panel(
            "Which method fails?",
            "Share of calls that fail by the service's fault, by method.",
            "percentunit",
            (Query(share_of(FAULTS, by="grpc_method"), "{{grpc_method}}"),),
        ),
        Panel(
            "Why do calls fail?",
            "By the reason in the error's details. OVERLOADED and TOO_MANY_REQUESTS: capacity. "
            "DEVICE_FAILED and INTERNAL: ours. The others: the callers'.",
            "reqps",
            (Query(rate("velatura_call_failures_total", by="reason") + " > 0", "{{reason}}"),),
            kind=Kind.STACK,
        ),
    ),
)
HURTS = Row(
    "What hurts?",
    (
        Panel(
            "What takes the time of a call?",
            "Seconds of each stage for one call, on average; stages run side by side, so they do "
            "not add up to the call's time. Waiting: add instances. Networks: larger batches or a "
            "GPU. Decoding and encoding: smaller pictures, JPEG, more --pixel-threads.",
            "s",
            (
                Query(per_call("velatura_queue_wait_seconds"), "waiting"),
                Query(per_call("velatura_inference_seconds"), "networks"),
                Query(per_call("velatura_codec_seconds", 'operation="decode"'), "decoding"),
                Query(per_call("velatura_codec_seconds", 'operation="encode"'), "encoding"),
            ),
            width=16,
            kind=Kind.STACK,
            colours=STAGES,
        ),
        Panel(
            "How many calls are in work?",
            "By method. A method that climbs and stays is stuck or overloaded.",
            "short",
            (
                Query(
                    total("grpc_server_in_flight", METHOD, by="grpc_method") + " > 0",
                    "{{grpc_method}}",
                ),
            ),
            kind=Kind.STACK,
        ),
        Panel(
            "How much is sent and received?",
            "Bytes of messages per second. Raw pictures are ten times as large as JPEG.",
            "Bps",
            (
                Query(rate("grpc_server_msg_received_bytes_sum", METHOD), "received"),
                Query(rate("grpc_server_msg_sent_bytes_sum", METHOD), "sent"),
            ),
            colours={"received": BLUE, "sent": GREEN},
        ),
        Panel(
            "Which pictures cost most to code?",
            "Mean time to decode or encode one picture, by format.",
            "s",
            (
                Query(
                    mean("velatura_codec_seconds", by="operation, format") + " > 0",
                    "{{operation}} {{format}}",
                ),
            ),
        ),
        Panel(
            "How many pixels pass?",
            "Pixels decoded and encoded per second: the load that the number of calls hides.",
            "short",
            (Query(rate("velatura_pixels_total", by="operation"), "{{operation}}"),),
            colours={"decode": BLUE, "encode": GREEN},
        ),
    ),
)
STATE = Row(
    "Alerts and versions",
    (
        Panel(
            "Which alerts fire?",
            "Each has a runbook under its name in docs/operations.md.",
            "short",
            (Query(select("ALERTS", 'alertstate="firing"')),),
            width=12,
            height=6,
            kind=Kind.TABLE,
            columns=("alertname", "severity", "instance", "grpc_method", "model"),
            optional="No alert fires.",
        ),
        Panel(
            "What runs here?",
            "Version and bundle of each instance. Two versions outside a rollout: one is stuck.",
            "short",
            (
                Query(
                    f"{select('velatura_build_info')} * on (instance) group_left (name, sha256) "
                    f"{select('velatura_bundle_info')}"
                ),
            ),
            width=12,
            height=6,
            kind=Kind.TABLE,
            columns=("instance", "version", "python", "name", "sha256"),
        ),
    ),
)
SERVICE = Board(
    "service",
    "Velatura: Service",
    "Rate, errors and duration of every method, and what hurts.",
    (
        Variable("instance", "Instance", "velatura_ready"),
        Variable("method", "Method", "grpc_server_started_total", of="grpc_method"),
    ),
    (WELL, METHODS, HURTS, STATE),
)

"""Load test: what is sent, what is carried, and what gives way first, as the server sees it."""

from __future__ import annotations

from velatura_ops.dashboards.board import (
    BLUE,
    CODES,
    GREEN,
    ORANGE,
    PURPLE,
    QUANTILES,
    RED,
    YELLOW,
    Board,
    Kind,
    Panel,
    Query,
    Row,
    Variable,
)
from velatura_ops.dashboards.models import EACH, busy, capacity
from velatura_ops.dashboards.promql import FAULTS, mean, quantile, rate, total
from velatura_ops.dashboards.resources import CPU, LAG
from velatura_ops.dashboards.service import HANDLED, METHOD, OK, SECONDS, share_of

MODEL = 'model=~"$model"'

VERDICT = Row(
    "Verdict",
    (
        Panel(
            "Carried",
            "Successful calls per second.",
            "reqps",
            (Query(rate(HANDLED, METHOD, OK), "carried"),),
            width=4,
            height=4,
            kind=Kind.STAT,
            thresholds=((None, GREEN),),
        ),
        Panel(
            "p50",
            "Half of the successful calls are faster.",
            "s",
            (Query(quantile(0.5, SECONDS, METHOD, OK), "p50"),),
            width=4,
            height=4,
            kind=Kind.STAT,
        ),
        Panel(
            "p99",
            "99 % of the successful calls are faster. The server's view: what callers see has the "
            "network and their own queues on top.",
            "s",
            (Query(quantile(0.99, SECONDS, METHOD, OK), "p99"),),
            width=4,
            height=4,
            kind=Kind.STAT,
            thresholds=((None, GREEN), (2, YELLOW), (5, RED)),
        ),
        Panel(
            "Failing",
            "Share that fails by the service's fault. A load test that breaks things found "
            "something: see how calls end.",
            "percentunit",
            (Query(share_of(FAULTS), "failing"),),
            width=4,
            height=4,
            kind=Kind.STAT,
            thresholds=((None, GREEN), (0.01, YELLOW), (0.1, RED)),
        ),
        Panel(
            "Refused",
            "Share that was refused: beyond the limit this must rise while p99 stays.",
            "percentunit",
            (Query(share_of("RESOURCE_EXHAUSTED"), "refused"),),
            width=4,
            height=4,
            kind=Kind.STAT,
            thresholds=((None, GREEN), (0.01, ORANGE)),
        ),
        Panel(
            "Items in a batch",
            "Mean over all networks: what batching gains.",
            "short",
            (Query(mean("velatura_batch_size", MODEL), "items"),),
            width=4,
            height=4,
            kind=Kind.STAT,
        ),
    ),
)
CARRIED = Row(
    "What does it carry?",
    (
        Panel(
            "Sent and carried",
            "Calls begun, calls that succeeded, calls refused, per second. Where carried stops "
            "following sent, the limit is reached.",
            "reqps",
            (
                Query(rate("grpc_server_started_total", METHOD), "sent"),
                Query(rate(HANDLED, METHOD, OK), "carried"),
                Query(rate(HANDLED, METHOD, 'grpc_code="RESOURCE_EXHAUSTED"'), "refused"),
            ),
            colours={"sent": BLUE, "carried": GREEN, "refused": ORANGE},
        ),
        Panel(
            "How long do successful calls take?",
            "Latency at this load. The limit to plan with is the load at which p99 still meets "
            "its target.",
            "s",
            tuple(
                Query(quantile(share, SECONDS, METHOD, OK), name)
                for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))
            ),
            colours=QUANTILES,
        ),
        Panel(
            "How many calls are in work?",
            "The server's concurrency; by Little's law, carried calls per second times seconds.",
            "short",
            (Query(total("grpc_server_in_flight", METHOD), "in work"),),
            colours={"in work": PURPLE},
        ),
        Panel(
            "How do calls end?",
            "By status code. Only green and orange should be there.",
            "reqps",
            (Query(rate(HANDLED, METHOD, by="grpc_code") + " > 0", "{{grpc_code}}"),),
            kind=Kind.STACK,
            colours=CODES,
        ),
        Panel(
            "Which methods are called?",
            "The mix that the load test sends.",
            "reqps",
            (Query(rate(HANDLED, METHOD, by="grpc_method") + " > 0", "{{grpc_method}}"),),
            kind=Kind.STACK,
        ),
        Panel(
            "How many pixels pass?",
            "Decoded and encoded per second. Runs with other picture sizes compare by this.",
            "short",
            (Query(rate("velatura_pixels_total", by="operation"), "{{operation}}"),),
            colours={"decode": BLUE, "encode": GREEN},
        ),
    ),
)
LIMIT = Row(
    "What gives way first?",
    (
        Panel(
            "Which resource is full?",
            "CPUs used, the busiest network's time, room for calls used. The first at 100 % is the "
            "limit: CPUs, add cores; a network, larger batches or a GPU; room, --max-requests.",
            "percentunit",
            (
                Query(f"max({CPU})", "CPUs"),
                Query(f"max({busy()})", "busiest network"),
                Query(
                    f"{total('grpc_server_in_flight')} / {total('velatura_requests_limit')}",
                    "room for calls",
                ),
            ),
            colours={"CPUs": BLUE, "busiest network": ORANGE, "room for calls": PURPLE},
        ),
        Panel(
            "Which queue is long?",
            "p99 of the wait for each network.",
            "s",
            (
                Query(
                    quantile(0.99, "velatura_queue_wait_seconds", MODEL, by="model") + " >= 0", EACH
                ),
            ),
        ),
        Panel(
            "Do batches grow with the load?",
            "Mean items in a batch. At the limit they should be near --max-batch-size.",
            "short",
            (Query(mean("velatura_batch_size", MODEL, by="model") + " > 0", EACH),),
            least=1,
        ),
        Panel(
            "How much of each network's capacity is used?",
            "Items run per second over n / (a n + b) with full batches.",
            "percentunit",
            (
                Query(
                    f"{rate('velatura_batch_size_sum', MODEL, by='model')} / {capacity()}",
                    EACH,
                ),
            ),
        ),
        Panel(
            "Does pixel work wait?",
            "Tasks of the pool for decoding, compositing and encoding.",
            "short",
            (
                Query(total("velatura_pixel_tasks_running"), "running"),
                Query(total("velatura_pixel_tasks_waiting"), "waiting"),
            ),
            colours={"running": GREEN, "waiting": YELLOW},
        ),
        Panel(
            "Does the event loop keep up?",
            "How late its timers fire, p99.",
            "s",
            (Query(quantile(0.99, LAG), "p99"),),
            colours=QUANTILES,
        ),
    ),
)
LOAD = Board(
    "load",
    "Velatura: Load test",
    "What is sent, what is carried, and what gives way first, as the server sees it.",
    (
        Variable("instance", "Instance", "velatura_ready"),
        Variable("method", "Method", "grpc_server_started_total", of="grpc_method"),
        Variable("model", "Network", "velatura_model_ready"),
    ),
    (VERDICT, CARRIED, LIMIT),
    span="now-15m",
)

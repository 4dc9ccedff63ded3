"""Models: queue, batches, inference and cost of every network."""

from __future__ import annotations

from velatura_ops.dashboards.board import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RED,
    YELLOW,
    Board,
    Kind,
    Panel,
    Query,
    Row,
    Variable,
)
from velatura_ops.dashboards.promql import mean, quantile, rate, select, total

MODEL = 'model=~"$model"'
A, B = "velatura_model_cost_item_seconds", "velatura_model_cost_batch_seconds"
LIMIT = "velatura_model_batch_limit"
EACH = "{{model}}"


def busy(by: str = "model") -> str:
    """Share of the time in which a network's places on the device are taken."""
    places = f"sum by ({by}) ({select('velatura_model_instances', MODEL)})"
    return f"{rate('velatura_inference_seconds_sum', MODEL, by=by)} / {places}"


def capacity() -> str:
    """Items per second of a network with full batches and the machine to itself: n / (a n + b)."""
    full = f"{select(LIMIT, MODEL)}"
    cost = f"({select(A, MODEL)} * {full} + {select(B, MODEL)} > 0)"
    return f"sum by (model) ({select('velatura_model_instances', MODEL)} * {full} / {cost})"


def efficiency() -> str:
    """Share of a mean batch's time that is spent on its items rather than on its being a batch."""
    items = (
        f"avg by (model) ({select(A, MODEL)}) * ({mean('velatura_batch_size', MODEL, by='model')})"
    )
    return f"{items} / ({items} + avg by (model) ({select(B, MODEL)}))"


NOW = Row(
    "Now",
    (
        Panel(
            "Networks not ready",
            "Networks that take no requests. Not zero: the runbook's VelaturaModelNotReady.",
            "short",
            (
                Query(
                    f"count({select('velatura_model_ready', MODEL)}) - "
                    + total("velatura_model_ready", MODEL),
                    "not ready",
                ),
            ),
            width=4,
            height=4,
            kind=Kind.STAT,
            thresholds=((None, GREEN), (1, RED)),
        ),
        Panel(
            "Items waiting",
            "In all queues. Steadily above zero means batches form; growing means overload.",
            "short",
            (Query(total("velatura_queue_depth", MODEL), "waiting"),),
            width=4,
            height=4,
            kind=Kind.STAT,
            thresholds=((None, GREEN), (64, YELLOW), (200, RED)),
        ),
        Panel(
            "Wait, p99",
            "From arrival to the device, the network that is worst. Over half a second: the "
            "runbook's VelaturaQueueWaitHigh.",
            "s",
            (
                Query(
                    f"max({quantile(0.99, 'velatura_queue_wait_seconds', MODEL, by='model')} >= 0)",
                    "wait",
                ),
            ),
            width=4,
            height=4,
            kind=Kind.STAT,
            thresholds=((None, GREEN), (0.5, YELLOW), (2, RED)),
        ),
        Panel(
            "Busiest network",
            "Share of the time in which it is on the device. Near 100 % it sets the limit of the "
            "whole; see capacity, below.",
            "percentunit",
            (Query(f"max({busy()})", "busiest"),),
            width=4,
            height=4,
            kind=Kind.STAT,
            thresholds=((None, GREEN), (0.7, YELLOW), (0.9, RED)),
        ),
        Panel(
            "Refused",
            "Requests to networks that were refused at arrival, per second.",
            "reqps",
            (Query(rate("velatura_admission_refusals_total", MODEL), "refused"),),
            width=4,
            height=4,
            kind=Kind.STAT,
            thresholds=((None, GREEN), (0.1, ORANGE), (5, RED)),
        ),
        Panel(
            "Failed runs",
            "Batches that failed on the device, per second. Any: read the log for 'device failed'.",
            "short",
            (Query(f"{rate('velatura_model_failures_total', MODEL)} or vector(0)", "failed"),),
            width=4,
            height=4,
            kind=Kind.STAT,
            thresholds=((None, GREEN), (0.0001, RED)),
        ),
    ),
)
QUEUE = Row(
    "Queue",
    (
        Panel(
            "How much waits for each network?",
            "Items in the queue. Short peaks are how batches form. A plateau at the limit is "
            "overload: add instances.",
            "short",
            (Query(total("velatura_queue_depth", MODEL, by="model"), EACH),),
        ),
        Panel(
            "How long do items wait, p99?",
            "From arrival to the device. About one batch's time is normal under load.",
            "s",
            (
                Query(
                    quantile(0.99, "velatura_queue_wait_seconds", MODEL, by="model") + " >= 0", EACH
                ),
            ),
        ),
        Panel(
            "What becomes of requests to networks?",
            "refused: overload. expired and cancelled: callers that could not wait, which cost no "
            "device time. invalid: wrong tensors. device, other: ours to mend.",
            "reqps",
            (
                Query(
                    rate("velatura_model_requests_total", MODEL, by="outcome") + " > 0",
                    "{{outcome}}",
                ),
            ),
            kind=Kind.STACK,
            colours={
                "ok": GREEN,
                "refused": ORANGE,
                "expired": YELLOW,
                "cancelled": GREY,
                "invalid": BLUE,
                "device": RED,
                "other": PURPLE,
            },
        ),
        Panel(
            "Why are requests refused?",
            "deadline: it could not be met behind what waits. queue_items, queue_bytes: the queue "
            "is full. expired: it had passed on arrival. draining: the server stops.",
            "reqps",
            (
                Query(
                    rate("velatura_admission_refusals_total", MODEL, by="model, reason") + " > 0",
                    "{{model}} {{reason}}",
                ),
            ),
            kind=Kind.STACK,
            width=6,
        ),
        Panel(
            "What left the queue without a run?",
            "Items of callers that hung up, whose deadline passed while they waited or could not "
            "be met any more (late), or who had most of a full queue (displaced). Much of it: "
            "deadlines are too short for this load.",
            "short",
            (
                Query(
                    rate("velatura_queue_dropped_total", MODEL, by="reason"),
                    "{{reason}}",
                ),
            ),
            width=6,
        ),
        Panel(
            "How full are the queues?",
            "Share of the limit of waiting items. At 100 % requests are refused.",
            "percentunit",
            (
                Query(
                    f"{total('velatura_queue_depth', MODEL, by='model')} / "
                    + total("velatura_model_queue_limit", MODEL, by="model"),
                    EACH,
                ),
            ),
            width=6,
        ),
        Panel(
            "How far are estimates stretched?",
            "What admission multiplies its estimates by, learned from what nearly all calls took. "
            "High: much besides the networks takes the CPUs, such as codecs or other programs.",
            "short",
            (Query(f"avg by (model) ({select('velatura_admission_stretch_ratio', MODEL)})", EACH),),
            least=1,
            width=6,
        ),
    ),
)
BATCHES = Row(
    "Batches",
    (
        Panel(
            "How large are batches?",
            "Mean items in a batch. Load makes batches: 1 at night is well. 1 under load: the "
            "callers' shapes differ, or they come one after another.",
            "short",
            (Query(mean("velatura_batch_size", MODEL, by="model") + " > 0", EACH),),
            least=1,
            width=6,
        ),
        Panel(
            "What closes batches?",
            "device_free: an idle device took what was there. full: the limit, which is the best "
            "use. cost: more items would not have been cheaper. shape: others wait with other "
            "shapes. retry: a batch failed, item by item again.",
            "short",
            (
                Query(
                    rate("velatura_batch_closed_total", MODEL, by="reason") + " > 0", "{{reason}}"
                ),
            ),
            kind=Kind.STACK,
            colours={
                "device_free": GREEN,
                "full": BLUE,
                "cost": BLUE,
                "delay": YELLOW,
                "deadline": ORANGE,
                "shape": PURPLE,
                "retry": RED,
            },
            width=6,
        ),
        Panel(
            "Which lanes run?",
            "Batches. wide: all CPUs for a caller alone. narrow: one a CPU, for many callers. Much "
            "padding: --pad-batches has too few sizes.",
            "short",
            (
                Query(rate("velatura_lane_runs_total", MODEL, by="lane") + " > 0", "{{lane}}"),
                Query(rate("velatura_batch_padding_items_total", MODEL), "padding items"),
            ),
            kind=Kind.STACK,
            width=6,
        ),
        Panel(
            "How much of a batch's time is for its items?",
            "By the learned cost a n + b: a n / (a n + b) at the mean size. Low: larger batches "
            "would carry more; a little --max-queue-delay-ms makes them.",
            "percentunit",
            (Query(efficiency(), EACH),),
            most=1.0,
            width=6,
        ),
    ),
)
INFERENCE = Row(
    "Inference and cost",
    (
        Panel(
            "How long does a batch run, p99?",
            "Time of one batch on the device. Grows with the machine's other work too.",
            "s",
            (
                Query(
                    quantile(0.99, "velatura_inference_seconds", MODEL, by="model") + " > 0", EACH
                ),
            ),
            log=True,
        ),
        Panel(
            "How busy is each network?",
            "Share of the time in which a batch of it runs. Networks share the CPUs: the sum over "
            "networks may pass 100 % while the CPUs are full.",
            "percentunit",
            (Query(busy(), EACH),),
        ),
        Panel(
            "What does one more item cost?",
            "The learned a of a n + b. A slow rise is a slower machine; a step is another version.",
            "s",
            (Query(f"avg by (model) ({select(A, MODEL)})", EACH),),
        ),
        Panel(
            "What does a batch cost, however small?",
            "The learned b of a n + b. Large against a: larger batches pay off.",
            "s",
            (Query(f"avg by (model) ({select(B, MODEL)})", EACH),),
        ),
        Panel(
            "How much could each network carry?",
            "Items per second with full batches and the machine to itself. Plan with 70 % of it.",
            "short",
            (Query(capacity(), EACH),),
            log=True,
        ),
        Panel(
            "How much does each network carry?",
            "Items run per second. Against what it could carry, at the left.",
            "short",
            (Query(rate("velatura_batch_size_sum", MODEL, by="model"), EACH),),
        ),
    ),
)
WHAT = Row(
    "What runs",
    (
        Panel(
            "Which networks run, and on what?",
            "Version, role, hash and execution provider. CPUExecutionProvider where a GPU was "
            "meant: the runbook's VelaturaProviderFallback.",
            "short",
            (Query(select("velatura_model_info", MODEL)),),
            width=16,
            kind=Kind.TABLE,
            columns=("instance", "model", "version", "role", "provider", "sha256"),
        ),
        Panel(
            "Why did runs fail?",
            "Batches that failed on the device, per second, by reason. device_lost: restart the "
            "instance. non_finite: report the input's request id.",
            "short",
            (
                Query(
                    rate("velatura_model_failures_total", MODEL, by="model, reason") + " > 0",
                    "{{model}} {{reason}}",
                ),
            ),
            kind=Kind.STACK,
            optional="Healthy networks do not fail.",
        ),
    ),
)
MODELS = Board(
    "models",
    "Velatura: Models",
    "Queue, batches, inference and cost of every network.",
    (
        Variable("instance", "Instance", "velatura_ready"),
        Variable("model", "Network", "velatura_model_ready"),
    ),
    (NOW, QUEUE, BATCHES, INFERENCE, WHAT),
)

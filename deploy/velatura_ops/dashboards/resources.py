"""Resources: use, saturation and errors of CPU, memory, GPU, threads and the event loop."""

from __future__ import annotations

from velatura_ops.dashboards.board import (
    BLUE,
    GREEN,
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
from velatura_ops.dashboards.promql import quantile, rate, select, total

EACH = "{{instance}}"
NO_GPU = "GPU figures are there only where NVML is: the extra [gpu] on an NVIDIA machine."
CPU = (
    f"{rate('process_cpu_seconds_total', by='instance')} / {total('velatura_cpus', by='instance')}"
)
LAG = "velatura_event_loop_lag_seconds"

NOW = Row(
    "Now",
    (
        Panel(
            "CPU used",
            "Of the CPUs that the fullest instance may use. Full CPUs are the goal under load; "
            "full CPUs and long waits mean add instances.",
            "percentunit",
            (Query(f"max({CPU})", "used"),),
            width=4,
            height=4,
            kind=Kind.STAT,
            thresholds=((None, GREEN), (0.85, YELLOW), (1, RED)),
        ),
        Panel(
            "Memory",
            "Resident, the largest instance. Compare with the container's limit.",
            "bytes",
            (Query(f"max({select('process_resident_memory_bytes')})", "resident"),),
            width=4,
            height=4,
            kind=Kind.STAT,
        ),
        Panel(
            "Event loop, p99",
            "How late the event loop runs a timer. Over 0.1 s every call suffers: the runbook's "
            "VelaturaEventLoopLag.",
            "s",
            (Query(quantile(0.99, LAG), "late"),),
            width=4,
            height=4,
            kind=Kind.STAT,
            thresholds=((None, GREEN), (0.05, YELLOW), (0.1, RED)),
        ),
        Panel(
            "Pixel work waiting",
            "Tasks that wait for a thread to decode, composite or encode. Steadily above zero: "
            "more --pixel-threads where CPUs are free, else more instances.",
            "short",
            (Query(total("velatura_pixel_tasks_waiting"), "waiting"),),
            width=4,
            height=4,
            kind=Kind.STAT,
            thresholds=((None, GREEN), (8, YELLOW), (32, RED)),
        ),
        Panel(
            "File descriptors",
            "Open, as a share of the limit. Climbing without end: connections are not closed.",
            "percentunit",
            (
                Query(
                    f"max({select('process_open_fds')} / {select('process_max_fds')})",
                    "open",
                ),
            ),
            width=4,
            height=4,
            kind=Kind.STAT,
            thresholds=((None, GREEN), (0.7, YELLOW), (0.9, RED)),
        ),
        Panel(
            "Up for",
            "Since the youngest instance's start. Always small: it restarts, read why in its log.",
            "s",
            (Query(f"time() - max({select('process_start_time_seconds')})", "up"),),
            width=4,
            height=4,
            kind=Kind.STAT,
        ),
    ),
)
CPUS = Row(
    "CPU and threads",
    (
        Panel(
            "How much CPU is used?",
            "Share of the CPUs that the process may use, by affinity and cgroup quota.",
            "percentunit",
            (Query(CPU, EACH),),
        ),
        Panel(
            "Does the event loop keep up?",
            "How late timers fire. The loop must only hand on work: p99 over 0.1 s means that "
            "something computes on it, or that the CPUs are starved.",
            "s",
            tuple(
                Query(quantile(share, LAG), name)
                for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))
            ),
            colours=QUANTILES,
        ),
        Panel(
            "Does pixel work wait for threads?",
            "Tasks of the pool for decoding, compositing and encoding, against its threads.",
            "short",
            (
                Query(total("velatura_pixel_tasks_running"), "running"),
                Query(total("velatura_pixel_tasks_waiting"), "waiting"),
                Query(total("velatura_pixel_threads"), "limit"),
            ),
            colours={"running": GREEN, "waiting": YELLOW, "limit": RED},
        ),
        Panel(
            "How many threads are there?",
            "Native threads, onnxruntime's too. Should be level; a climb is a leak.",
            "short",
            (Query(total("velatura_threads", by="instance"), EACH),),
        ),
        Panel(
            "How often does Python collect garbage?",
            "Collections per second by generation. Generation 2 more than once a second takes "
            "time from calls.",
            "short",
            (
                Query(
                    rate("python_gc_collections_total", by="generation"),
                    "generation {{generation}}",
                ),
            ),
        ),
        Panel(
            "How much CPU does a call take?",
            "CPU seconds of the process for each call that ends. Multiply by the expected calls "
            "per second to get CPUs.",
            "s",
            (
                Query(
                    f"{rate('process_cpu_seconds_total')} / "
                    f"({rate('grpc_server_handled_total')} > 0)",
                    "a call",
                ),
            ),
            colours={"a call": BLUE},
        ),
    ),
)
MEMORY = Row(
    "Memory and files",
    (
        Panel(
            "How much memory is used?",
            "Resident. Level after the first hour; a steady climb is a leak: keep a log, restart.",
            "bytes",
            (Query(total("process_resident_memory_bytes", by="instance"), EACH),),
        ),
        Panel(
            "How much memory waits in queues?",
            "Bytes of tensors that wait for networks. Bounded by --max-queue-mib for each.",
            "bytes",
            (Query(total("velatura_queue_bytes", by="model"), "{{model}}"),),
            kind=Kind.STACK,
        ),
        Panel(
            "How many files and connections are open?",
            "File descriptors. Follows the number of connections.",
            "short",
            (Query(total("process_open_fds", by="instance"), EACH),),
        ),
    ),
)
CACHES = Row(
    "What is kept between requests",
    (
        Panel(
            "How much is found instead of computed?",
            "Of the results that requests ask for. High where pictures are edited again and again; "
            "near zero for pictures that come once, and then --cache-mib may be 0.",
            "percentunit",
            (
                Query(
                    rate("velatura_cache_requests_total", 'outcome="hit"', by="cache")
                    + " / "
                    + rate("velatura_cache_requests_total", by="cache"),
                    "{{cache}}",
                ),
            ),
            most=1.0,
        ),
        Panel(
            "How full are the caches?",
            "Bytes kept, of each cache's share of --cache-mib. Full and many hits: a larger one "
            "may find more.",
            "percentunit",
            (
                Query(
                    f"{total('velatura_cache_bytes', by='cache')} / "
                    + total("velatura_cache_limit_bytes", by="cache"),
                    "{{cache}}",
                ),
            ),
            most=1.0,
        ),
        Panel(
            "How often is somebody else's result waited for?",
            "Requests per second that found what they need being computed for another one. Many: "
            "callers send the same several times at once.",
            "reqps",
            (Query(rate("velatura_single_flight_joined_total", by="cache"), "{{cache}}"),),
        ),
    ),
)
GPU = Row(
    "GPU",
    (
        Panel(
            "How busy are the GPUs?",
            "Share of the time with a kernel running. Low under load: the CPUs or the callers are "
            "the limit.",
            "percentunit",
            (
                Query(
                    f"avg by (instance, gpu) ({select('velatura_gpu_utilization_ratio')})",
                    "{{instance}} {{gpu}}",
                ),
            ),
            width=12,
            height=5,
            most=1.0,
            optional=NO_GPU,
        ),
        Panel(
            "How full is the GPUs' memory?",
            "Used of all there is, other processes' too. Near 100 %: set --gpu-memory-mib, or "
            "lower --max-batch-size.",
            "percentunit",
            (
                Query(
                    f"{total('velatura_gpu_memory_used_bytes', by='instance, gpu')} / "
                    + total("velatura_gpu_memory_total_bytes", by="instance, gpu"),
                    "{{instance}} {{gpu}}",
                ),
            ),
            width=12,
            height=5,
            most=1.0,
            optional=NO_GPU,
        ),
    ),
)
RESOURCES = Board(
    "resources",
    "Velatura: Resources",
    "Use, saturation and errors of CPU, memory, GPU, threads and the event loop.",
    (Variable("instance", "Instance", "velatura_ready"),),
    (NOW, CPUS, MEMORY, CACHES, GPU),
)

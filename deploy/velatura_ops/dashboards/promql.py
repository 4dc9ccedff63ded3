"""The few shapes of PromQL that the dashboards are made of.

Every query is for the chosen instances of our job, over `$__rate_interval`, so that a panel shows
what it shows at any zoom.
"""

from __future__ import annotations

INTERVAL = "$__rate_interval"
# What makes a failed call the service's fault, as in deploy/prometheus/rules/recording.yml.
FAULTS = "INTERNAL|UNKNOWN|UNAVAILABLE|DATA_LOSS|DEADLINE_EXCEEDED"


def select(metric: str, *labels: str) -> str:
    """`metric` of the chosen instances, narrowed by matchers such as `model=~"$model"`."""
    matchers = ('job="velatura"', 'instance=~"$instance"', *labels)
    return f"{metric}{{{','.join(matchers)}}}"


def rate(metric: str, *labels: str, by: str = "") -> str:
    """Growth of a counter per second, summed, one series for each value of `by`."""
    return f"{_sum(by)} (rate({select(metric, *labels)}[{INTERVAL}]))"


def total(metric: str, *labels: str, by: str = "") -> str:
    """A gauge, summed."""
    return f"{_sum(by)} ({select(metric, *labels)})"


def quantile(share: float, metric: str, *labels: str, by: str = "") -> str:
    """A quantile of a histogram's recent observations."""
    per_bucket = rate(f"{metric}_bucket", *labels, by=f"{by}, le" if by else "le")
    return f"histogram_quantile({share:g}, {per_bucket})"


def mean(metric: str, *labels: str, by: str = "") -> str:
    """The mean of a histogram's recent observations."""
    return f"{rate(f'{metric}_sum', *labels, by=by)} / {rate(f'{metric}_count', *labels, by=by)}"


def _sum(by: str) -> str:
    return f"sum by ({by})" if by else "sum"

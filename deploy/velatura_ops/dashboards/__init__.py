"""The dashboards, from code. `python -m velatura_ops.dashboards` writes them to
deploy/grafana/dashboards, `--check` tells whether they are written.
"""

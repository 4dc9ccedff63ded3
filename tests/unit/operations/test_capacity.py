"""Capacity from the cost model, on figures that can be worked out by hand."""

from __future__ import annotations

import pytest

from velatura_ops.capacity import capacity

# 100 calls succeeded. The synthesis ran 200 items in 50 batches, the encoder 100 in 100.
PAGE = """\
# TYPE grpc_server_handled_total counter
grpc_server_handled_total{grpc_method="EditImage",grpc_code="OK"} 100
grpc_server_handled_total{grpc_method="EditImage",grpc_code="RESOURCE_EXHAUSTED"} 50
# TYPE velatura_batch_size histogram
velatura_batch_size_bucket{model="synthesis",le="+Inf"} 50
velatura_batch_size_sum{model="synthesis"} 200
velatura_batch_size_count{model="synthesis"} 50
velatura_batch_size_bucket{model="encoder",le="+Inf"} 100
velatura_batch_size_sum{model="encoder"} 100
velatura_batch_size_count{model="encoder"} 100
velatura_batch_size_bucket{model="unused",le="+Inf"} 0
velatura_batch_size_sum{model="unused"} 0
velatura_batch_size_count{model="unused"} 0
# TYPE velatura_model_cost_item_seconds gauge
velatura_model_cost_item_seconds{model="synthesis"} 0.002
velatura_model_cost_item_seconds{model="encoder"} 0.004
velatura_model_cost_item_seconds{model="unused"} 1
# TYPE velatura_model_cost_batch_seconds gauge
velatura_model_cost_batch_seconds{model="synthesis"} 0.004
velatura_model_cost_batch_seconds{model="encoder"} 0.008
velatura_model_cost_batch_seconds{model="unused"} 1
# TYPE velatura_model_batch_limit gauge
velatura_model_batch_limit{model="synthesis"} 8
velatura_model_batch_limit{model="encoder"} 8
velatura_model_batch_limit{model="unused"} 8
"""


def test_a_call_costs_what_its_items_cost() -> None:
    found = capacity(PAGE)
    encoder, synthesis = found.networks
    assert (encoder.name, encoder.items_per_call, encoder.mean_batch) == ("encoder", 1.0, 1.0)
    assert (synthesis.items_per_call, synthesis.mean_batch) == (2.0, 4.0)
    # Mean batches: 1 × (4 + 8/1) + 2 × (2 + 4/4) = 18 ms.
    # Full batches: 1 × (4 + 8/8) + 2 × (2 + 4/8) = 10 ms.
    assert found.calls_per_second(full=False) == pytest.approx(1 / 0.018)
    assert found.calls_per_second(full=True) == pytest.approx(100.0)


@pytest.mark.parametrize(("calls", "instances"), [(1, 1), (70, 1), (71, 2), (140, 2), (500, 8)])
def test_instances_are_planned_with_room_to_spare(calls: float, instances: int) -> None:
    assert capacity(PAGE).instances(calls) == instances


def test_a_server_that_nobody_called_is_refused() -> None:
    with pytest.raises(ValueError, match="load the server first"):
        capacity(PAGE.replace('"OK"} 100', '"OK"} 0'))

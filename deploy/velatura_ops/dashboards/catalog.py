"""All dashboards, in the order in which one looks at them."""

from __future__ import annotations

from velatura_ops.dashboards.board import Board
from velatura_ops.dashboards.loadtest import LOAD
from velatura_ops.dashboards.models import MODELS
from velatura_ops.dashboards.resources import RESOURCES
from velatura_ops.dashboards.service import SERVICE

BOARDS: tuple[Board, ...] = (SERVICE, MODELS, RESOURCES, LOAD)

"""From settings to the engine's options, for serving and for tuning."""

from __future__ import annotations

from velatura.server.engine.options import EngineOptions
from velatura.server.settings import MIB, Settings, sizes_of

MEGAPIXEL = 1_000_000


def engine_options(settings: Settings) -> EngineOptions:
    """The engine's part of the settings."""
    return EngineOptions(
        provider=settings.provider,
        strict=settings.strict_provider,
        gpu_mem_limit=settings.gpu_memory_mib * MIB,
        cuda_graphs=settings.cuda_graphs,
        tensorrt_cache=settings.tensorrt_cache,
        tensorrt_fp16=settings.tensorrt_fp16,
        openvino_precision=settings.openvino_precision,
        intra_threads=settings.intra_threads,
        instances=settings.instances,
        max_batch_size=settings.max_batch_size,
        pad_sizes=sizes_of(settings.pad_batches) if settings.pad_batches else (),
        warm_sides=sizes_of(settings.warm_sides),
        max_queue_items=settings.max_queue_items,
        max_queue_bytes=settings.max_queue_mib * MIB,
        max_backlog_bytes=settings.max_backlog_mib * MIB,
        max_backlog_pixels=settings.max_backlog_megapixels * MEGAPIXEL,
        max_queue_delay_s=settings.max_queue_delay_ms / 1000,
        refuse_late=settings.admission,
    )

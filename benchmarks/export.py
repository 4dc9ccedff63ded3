"""What exporting a generator is worth on this machine: eager torch against onnxruntime.

The same network, the same latents and the same number of threads, in turns within one run, so that
whatever else the machine does strikes all. In eager torch it is computed twice: as its paper and
the published code put it, a weight for every sample, and as this project trains it, which is
written for batches and faster already. A second table, measured in the same turns, has OpenVINO and
bfloat16 (`benchmarks.precisions`), of graphs written for it. Run by `make bench-export`; `--forms`
also measures the ways to write an up-sampling layer, `--providers` the graphs written for one
provider on the others, and `--fusions` what onnxruntime's own rewriting adds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor, nn

from benchmarks import precisions
from benchmarks.paper_form import PaperForm
from velatura.export.checkpoints.native import load_generator
from velatura.export.cost import count_flops
from velatura.export.formats import Provider
from velatura.export.generator_networks import Origin, synthesis_spec
from velatura.export.networks.stylegan2 import Generator, GeneratorConfig, SynthesisNetwork
from velatura.export.networks.upsampling import UpsamplingForm, upsample_convolve
from velatura.export.optimize import optimize
from velatura.export.specification import Background, FloatArray, NetworkSpec, Port
from velatura.export.trace import trace
from velatura.server.engine.openvino import Precision
from velatura.v1 import bundle_pb2

Call = Callable[[], object]
# The threads of torch and of onnxruntime spin for a while after a call, and would take the CPUs
# from whoever comes next.
PAUSE_S = 0.05
QUICK_S = 0.5
_NOWHERE = Origin("none", "random weights", "nothing", "")
# The `paper256` configuration of StyleGAN2-ADA: channel_base 16384, channel_max 512.
PAPER256 = GeneratorConfig(
    resolution=256,
    z_dim=512,
    w_dim=512,
    mapping_layers=8,
    channels={r: min(512, 16384 // r) for r in (4, 8, 16, 32, 64, 128, 256)},
    resample_filter=(1, 3, 3, 1),
    conv_clamp=256,
)


@dataclass(frozen=True)
class Candidate:
    """A generator's synthesis network in torch, its graph, and the one written for OpenVINO."""

    spec: NetworkSpec
    graph: Path
    for_openvino: Path


def embedded(weights: Path, bundle: Path) -> Candidate:
    """The avatars as shipped, which are written alike for all providers."""
    spec = synthesis_spec("avatar-synthesis", load_generator(weights), _NOWHERE)
    graph = bundle / f"{spec.name}.onnx"
    return Candidate(spec, graph, graph)


def stylegan2_ada(folder: Path) -> Candidate:
    """A 256 px StyleGAN2-ADA of random weights, exported now."""
    torch.manual_seed(0)
    generator = Generator(PAPER256)
    with torch.no_grad():
        for name, parameter in generator.named_parameters():
            # At nothing, noise and biases would be dropped from the graph.
            if name.endswith("noise_strength"):
                parameter.fill_(0.1)
            elif name.endswith(("conv0.bias", "conv1.bias", "torgb.bias")):
                parameter.normal_(0, 0.1)
    name = "stylegan2-ada-256"
    spec = synthesis_spec(name, generator.eval(), _NOWHERE)
    other = synthesis_spec(f"{name}-openvino", generator, _NOWHERE, Provider.OPENVINO)
    return Candidate(spec, _export(spec, folder), _export(other, folder))


def _export(spec: NetworkSpec, folder: Path) -> Path:
    path = folder / f"{spec.name}.onnx"
    trace(spec, path)
    optimize(path, spec.name)
    return path


def in_turns(calls: Sequence[Call], seconds: float) -> list[float]:
    """Median seconds of each call, over rounds of all of them, three rounds at least."""
    quick = [timed(call) < QUICK_S for call in calls]  # the first run allocates
    times: list[list[float]] = [[] for _ in calls]
    begin = time.perf_counter()
    while len(times[0]) < 3 or time.perf_counter() - begin < seconds:
        for taken, call, again in zip(times, calls, quick, strict=True):
            time.sleep(PAUSE_S)
            if again:  # not with another network's numbers in the caches
                call()
            taken.append(timed(call))
    return [statistics.median(taken) for taken in times]


def timed(call: Call) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def session(
    graph: Path,
    threads: int,
    level: ort.GraphOptimizationLevel = ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.graph_optimization_level = level
    options.log_severity_level = 3
    return ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])


def matrix_product() -> tuple[Call, int]:
    """A float32 product of 2048 × 2048 by torch's BLAS, and its operations."""
    side = 2048
    left, right = torch.randn(side, side), torch.randn(side, side)
    return (lambda: left @ right), 2 * side**3


def compare(candidate: Candidate, threads: int, batch: int, seconds: float) -> tuple[str, str]:
    """One row of the table, and one of that of the precisions."""
    torch.set_num_threads(threads)
    spec = candidate.spec
    inputs = spec.sample(batch, None)
    latents = torch.from_numpy(inputs["w_plus"])
    graph = session(candidate.graph, threads)
    paper = PaperForm(cast("SynthesisNetwork", spec.module))
    torch.testing.assert_close(paper(latents), spec.module(latents), atol=1e-3, rtol=1e-3)
    product, operations = matrix_product()
    others = precisions.ways(
        candidate.for_openvino,
        threads,
        inputs,
        lambda: paper(latents),
        lambda: spec.module(latents),
    )
    calls: list[Call] = [
        lambda: paper(latents),
        lambda: spec.run_torch(inputs),
        lambda: graph.run(None, inputs),
        product,
        *others.values(),
    ]
    as_published, eager, exported, peak, *rest = in_turns(calls, seconds)
    rate = count_flops(spec) * batch / exported / 1e9
    best = operations / peak / 1e9
    head = f"{spec.name} | {threads} | {batch}"
    first = (
        f"| {head} | {as_published * 1e3:.1f} | {eager * 1e3:.1f} "
        f"| {exported * 1e3:.1f} | {as_published / exported:.2f} × | {eager / exported:.2f} × "
        f"| {rate:.0f} | {best:.0f} | {rate / best:.0%} |"
    )
    taken = dict(zip(others, rest, strict=True))
    reference: FloatArray = graph.run(None, inputs)[0]
    return first, precisions.row(head, others, taken, (as_published, eager), reference)


class _Upsampling(nn.Module):
    """One up-sampling layer, without what surrounds it."""

    def __init__(
        self, ins: int, outs: int, taps: tuple[int, ...], form: UpsamplingForm | None
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outs, ins, 3, 3) / (3 * ins**0.5))
        self.taps, self.form = taps, form

    def forward(self, x: Tensor) -> Tensor:
        if self.form is not None:
            return upsample_convolve(x, self.weight, self.taps, self.form)
        # The picture is filtered first: the form that the paper draws, at its highest cost.
        kernel = _picture_filter(self.taps, x.shape[1])
        margin = (len(self.taps) - 2) // 2
        large = nn.functional.conv_transpose2d(
            x, kernel, stride=2, padding=margin, groups=x.shape[1]
        )
        return nn.functional.conv2d(large, self.weight, padding=1)


def _picture_filter(taps: tuple[int, ...], channels: int) -> Tensor:
    row = torch.tensor(taps, dtype=torch.float32) * (2 / sum(taps))
    return torch.outer(row, row).expand(channels, 1, -1, -1)


def upsampling_forms(folder: Path, threads: int, seconds: float) -> Iterator[str]:
    """Milliseconds of each form in onnxruntime, for the layers of both generators."""
    torch.set_num_threads(threads)
    forms: tuple[UpsamplingForm | None, ...] = (*UpsamplingForm, None)
    avatar = [(2, (128, 128, 8)), (2, (128, 64, 16)), (2, (64, 32, 32)), (2, (32, 16, 64))]
    ada = [(4, (512, 512, 16)), (4, (512, 256, 32)), (4, (256, 128, 64)), (4, (128, 64, 128))]
    for taps, (ins, outs, size) in avatar + ada:
        calls: list[Call] = []
        filter_taps = (1, 1) if taps == 2 else (1, 3, 3, 1)
        for number, form in enumerate(forms):
            spec = _layer_spec(_Upsampling(ins, outs, filter_taps, form), ins, outs, size)
            path = _export(spec, folder)
            named = path.rename(folder / f"{ins}-{size}-{number}.onnx")
            calls.append(_running(session(named, threads), spec.sample(1, None)))
        cells = " | ".join(f"{taken * 1e3:.2f}" for taken in in_turns(calls, seconds))
        yield f"| {taps} taps, {ins}→{outs} from {size}² | {cells} |"


def _layer_spec(layer: nn.Module, ins: int, outs: int, size: int) -> NetworkSpec:
    return NetworkSpec(
        name="layer",
        role=bundle_pb2.ROLE_UNSPECIFIED,
        module=layer.eval(),
        inputs=(Port("x", (-1, ins, size, size)),),
        outputs=(Port("y", (-1, outs, 2 * size, 2 * size)),),
        background=Background("", "", "", ""),
    )


def _running(graph: ort.InferenceSession, inputs: dict[str, FloatArray]) -> Call:
    return lambda: graph.run(None, inputs)


def fusions(candidates: Sequence[Candidate], threads: int, seconds: float) -> Iterator[str]:
    """Milliseconds at onnxruntime's levels: only ALL changes the layout to blocks of channels."""
    levels = ort.GraphOptimizationLevel
    for candidate in candidates:
        inputs = candidate.spec.sample(1, None)
        calls = [
            _running(session(candidate.graph, threads, level), inputs)
            for level in (
                levels.ORT_ENABLE_BASIC,
                levels.ORT_ENABLE_EXTENDED,
                levels.ORT_ENABLE_ALL,
            )
        ]
        cells = " | ".join(f"{taken * 1e3:.1f}" for taken in in_turns(calls, seconds))
        yield f"| {candidate.spec.name} | {cells} |"


def provider_forms(candidate: Candidate, threads: int, seconds: float) -> Iterator[str]:
    """Milliseconds of the graphs written for onnxruntime's CPU kernels and for all others."""
    inputs = candidate.spec.sample(1, None)
    graphs = (candidate.graph, candidate.for_openvino)
    ways = {"onnxruntime f32": [session(graph, threads) for graph in graphs]}
    for precision in Precision:
        if not precisions.unavailable(precision):
            ways[f"OpenVINO {precision}"] = [
                precisions.openvino_session(graph, threads, precision) for graph in graphs
            ]
    for name, sessions in ways.items():
        times = in_turns([_running(each, inputs) for each in sessions], seconds)
        cells = " | ".join(f"{taken * 1e3:.1f}" for taken in times)
        yield f"| {candidate.spec.name} | {name} | {cells} |"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default="training/weights")
    parser.add_argument("--bundle", type=Path, default="models")
    parser.add_argument("--seconds", type=float, default=10, help="for each row, at least")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--threads", type=int, nargs="+", default=[])
    parser.add_argument("--only", choices=["avatar", "ada"], help="one of the generators")
    parser.add_argument("--forms", action="store_true", help="up-sampling layers, too")
    parser.add_argument("--providers", action="store_true", help="both forms of graphs, too")
    parser.add_argument("--fusions", action="store_true", help="onnxruntime's levels, too")
    return parser.parse_args()


def _heading(*cells: str) -> None:
    print(f"| {' | '.join(cells)} |\n|{'---|' * len(cells)}", flush=True)


def _more_tables(
    chosen: argparse.Namespace, candidates: Sequence[Candidate], folder: Path, threads: int
) -> None:
    if chosen.forms:
        print(f"\nUp-sampling layers at batch 1, {threads} threads, ms in onnxruntime:\n")
        _heading("layer", *UpsamplingForm, "filter first")
        for row in upsampling_forms(folder, threads, chosen.seconds / 4):
            print(row, flush=True)
    if chosen.providers:
        print(f"\nGraphs by what they were written for, batch 1, {threads} threads, ms:\n")
        _heading("network", "run by", "for the CPU provider", "for the others")
        for candidate in candidates:
            if candidate.graph != candidate.for_openvino:
                for row in provider_forms(candidate, threads, chosen.seconds):
                    print(row, flush=True)
    if chosen.fusions:
        print(f"\nonnxruntime's levels at batch 1, {threads} threads, ms:\n")
        _heading("network", "basic", "extended", "all")
        for row in fusions(candidates, threads, chosen.seconds):
            print(row, flush=True)


def main() -> None:
    chosen = _arguments()
    cores = len(os.sched_getaffinity(0))
    threads = chosen.threads or sorted({cores, 1}, reverse=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder, candidates = Path(scratch), []
        if chosen.only != "ada":
            weights = chosen.weights / "avatar-generator.safetensors"
            candidates.append(embedded(weights, chosen.bundle))
        if chosen.only != "avatar":
            candidates.append(stylegan2_ada(folder))
        print(f"torch {torch.__version__}, onnxruntime {ort.__version__}, {cores} CPUs, numpy "
              f"{np.__version__}; medians, in turns\n")  # fmt: skip
        _heading("network", "threads", "batch", "eager torch as published, ms",
                 "eager torch, ours, ms", "onnxruntime, ms", "faster by", "than ours by",
                 "GFLOP/s", "matrix product, GFLOP/s", "share")  # fmt: skip
        more = []
        for candidate in candidates:
            for count in threads:
                for batch in chosen.batches:
                    first, second = compare(candidate, count, batch, chosen.seconds)
                    print(first, flush=True)
                    more.append(second)
        print("\nOpenVINO and bfloat16, in the same turns; PSNR is against onnxruntime's float32 "
              "over outputs clipped to [-1, 1]:\n")  # fmt: skip
        _heading(*precisions.HEADING)
        print(*more, sep="\n", flush=True)
        _more_tables(chosen, candidates, folder, threads[0])


if __name__ == "__main__":
    main()

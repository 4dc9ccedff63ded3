"""The main job in one command: start a server, edit faces, stylise photographs, show the results.

    make demo            (or: .venv/bin/python examples/demo.py)

Writes out/demo.png, one sheet of before and after, and prints how long each call took. Ends with
exit code 1, saying why, when an answer is not as promised, or when the server that it started does
not end cleanly.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image, ImageDraw
from sheet import Cell, Section, draw_sheet

from velatura.client import Client, Region

ROOT = Path(__file__).parents[1]
IMAGES = Path(__file__).parent / "images"
START_S, STOP_S = 90.0, 30.0

Result = TypeVar("Result")


@dataclass(frozen=True)
class Face:
    """One edit: a picture, what to change, and where (None: anywhere)."""

    file: str
    label: str
    edits: dict[str, float]
    region: Region | None = None


FACES = (
    Face("rowan.png", "smile", {"smile": 1.0}, Region("mouth", grow_px=16, feather_px=8)),
    Face("noor.png", "sad", {"sad": 1.0}),
    Face("malik.png", "glasses", {"glasses": 1.0}, Region((96, 120, 320, 150), feather_px=16)),
    Face("iris.png", "blonde hair", {"hair_blonde": 1.0}, Region("hair")),
    Face("dario.png", "red clothing", {"clothing_red": 1.0}, Region("clothing")),
    Face("frida.png", "blue background", {"background_blue": 1.0}),
    Face("august.png", "smile and glasses", {"smile": 1.0, "glasses": 1.0}),
    Face("sven.png", "smile", {"smile": 1.0}, Region("mouth", grow_px=16, feather_px=8)),
)


@dataclass(frozen=True)
class Painting:
    """One stylisation: the styles, and where (a box or an ellipse as shares of the picture)."""

    label: str
    styles: Any
    strength: float = 1.0
    preserve_color: bool = False
    where: tuple[float, float, float, float] | None = None
    is_round: bool = False


PHOTOGRAPHS = {
    "mountains.jpg": (
        Painting("print-navy-cream", "print-navy-cream"),
        Painting("by example: brushes.jpg", IMAGES / "brushes.jpg", preserve_color=True),
        Painting("blue-yellow-strokes", "blue-yellow-strokes", where=(0.5, 0.0, 0.5, 1.0)),
    ),
    "dandelions.jpg": (
        Painting("pastel-lavender-gold", "pastel-lavender-gold", strength=0.8),
        Painting("two presets mixed", {"blue-yellow-strokes": 2.0, "wine-gold": 1.0}),
        Painting("autumn-brush", "autumn-brush", where=(0.13, 0.0, 0.33, 0.6), is_round=True),
    ),
}


STYLIZE = "presets, mixes and examples, at the photograph's own resolution, anywhere or in a region"


@dataclass
class Record:
    """What each call took, as seen by the caller, and which promises were not kept."""

    problems: list[str] = field(default_factory=list)
    rows: list[tuple[str, str, float]] = field(default_factory=list)

    def time(self, what: str, size: tuple[int, int], call: Callable[[], Result]) -> Result:
        started = time.perf_counter()
        result = call()
        self.rows.append((what, f"{size[0]}×{size[1]}", time.perf_counter() - started))
        return result

    def table(self) -> str:
        width = max(len(row[0]) for row in self.rows)
        rows = [f"  {what:<{width}}  {size:>9}  {s * 1000:7.0f} ms" for what, size, s in self.rows]
        return "\n".join(rows)

    def expect(self, holds: bool, otherwise: str) -> None:
        if not holds:
            self.problems.append(otherwise)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "demo.png")
    parser.add_argument("--bundle", help="bundle directory; the server's default if left out")
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    record = Record()
    log = options.out.with_name("demo-server.log")
    with running_server(options.bundle, log, record) as address:
        ready = time.perf_counter() - started
        with Client(address, timeout=120.0) as client:
            catalog = client.list_models()
            sections = [
                faces_section(client, record),
                photograph_section(client, record, "mountains.jpg", "Stylize", STYLIZE),
                photograph_section(client, record, "dandelions.jpg", "", ""),
                segments_section(client, record),
            ]
    sheet = draw_sheet(
        "Velatura",
        "Before and after, as answered by a gRPC service running on this machine",
        sections,
        f"Bundle {catalog.bundle_name} {catalog.bundle_version} on "
        f"{', '.join(sorted({m.provider for m in catalog.models}))}. "
        "“Outside” is the largest difference of any sample outside the region, 0 to 255.",
    )
    sheet.save(options.out, optimize=True)
    print(f"server ready after {ready:.1f} s\n{record.table()}")
    print(f"done in {time.perf_counter() - started:.1f} s: look at {options.out}")
    for problem in record.problems:
        print(f"demo: {problem}", file=sys.stderr)
    return 1 if record.problems else 0


def faces_section(client: Client, record: Record) -> Section:
    """Every face before and after; the calls overlap, so that the server batches them."""

    def edit(face: Face) -> Cell:
        with Image.open(IMAGES / face.file) as before:
            before.load()
        result = record.time(
            f"edit {face.file}: {face.label}",
            before.size,
            lambda: client.edit_image(IMAGES / face.file, face.edits, region=face.region),
        )
        record.expect(result.image.size == before.size, f"{face.file} came back in another size")
        where = region_name(face.region)
        label = face.label if before.width == before.height else f"{face.label} ({size_of(before)})"
        note = f"{where} · {figures(result, face.file, record)}"
        return Cell([before, result.image], label, note)

    with ThreadPoolExecutor(len(FACES)) as pool:
        cells = list(pool.map(edit, FACES))
    text = "directions in the latent space, painted back into the original inside the region only"
    return Section("EditImage", text, 4, 180, cells)


def photograph_section(client: Client, record: Record, name: str, title: str, text: str) -> Section:
    """A photograph and its stylisations."""
    with Image.open(IMAGES / name) as photograph:
        photograph.load()
    cells = [Cell([photograph], "original", size_of(photograph))]
    for painting in PHOTOGRAPHS[name]:
        result = record.time(
            f"stylise {name}: {painting.label}",
            photograph.size,
            lambda p=painting: client.stylize(  # type: ignore[misc]
                IMAGES / name,
                p.styles,
                strength=p.strength,
                preserve_color=p.preserve_color,
                region=painted_region(p, photograph.size),
                output="png",
            ),
        )
        record.expect(result.image.size == photograph.size, f"{name} came back in another size")
        details = [
            *(["colours kept"] if painting.preserve_color else []),
            *([f"strength {painting.strength:g}"] if painting.strength < 1 else []),
        ]
        kind = ("mask" if painting.is_round else "box") if painting.where else "whole picture"
        cells.append(
            Cell(
                [result.image],
                painting.label,
                " · ".join([kind, *details, figures(result, name, record)]),
                painting.where,
                painting.is_round,
            )
        )
    height = round(368 * photograph.height / photograph.width)
    return Section(title, text, 4, height, cells)


def segments_section(client: Client, record: Record) -> Section:
    """Faces and what the segmenter sees in them."""
    cells = []
    for name in ("rowan.png", "malik.png", "iris.png", "sven.png"):
        with Image.open(IMAGES / name) as face:
            face.load()
        result = record.time(
            f"segment {name}",
            face.size,
            lambda file=name: client.segment(IMAGES / file, with_overlay=True),  # type: ignore[misc]
        )
        overlay = result.overlay or face  # asked for, so it is there
        record.expect(overlay.size == face.size, f"{name}: the overlay has another size")
        largest = sorted(result.areas, key=lambda area: -area.share)[:3]
        note = ", ".join(f"{area.name} {area.share:.0%}" for area in largest)
        present = sum(area.pixels > 0 for area in result.areas)
        cells.append(Cell([face, overlay], f"{present} classes", note))
    return Section("Segment", "the regions that edits and styles may name", 4, 180, cells)


def painted_region(painting: Painting, size: tuple[int, int]) -> Region | None:
    """The painting's box, or its ellipse as a mask, in pixels."""
    if painting.where is None:
        return None
    x, y, w, h = (
        round(share * extent) for share, extent in zip(painting.where, size * 2, strict=True)
    )
    if not painting.is_round:
        return Region((x, y, w, h))
    mask = Image.new("L", size, 0)
    ImageDraw.Draw(mask).ellipse((x, y, x + w - 1, y + h - 1), fill=255)
    return Region(mask, feather_px=12)


def region_name(region: Region | None) -> str:
    """What a caption says of a region."""
    if region is None:
        return "whole picture"
    return ", ".join(part if isinstance(part, str) else "box" for part in region.parts)


def figures(result: Any, what: str, record: Record) -> str:
    """The server's own measurements; a change outside the region is a defect."""
    outside, inside = result.max_difference_outside, result.mean_difference_inside
    record.expect(outside == 0, f"{what}: something changed outside the region")
    record.expect(inside > 0, f"{what}: nothing changed inside the region")
    return f"outside {outside} · inside {inside:.1f}"


def size_of(image: Image.Image) -> str:
    return f"{image.width} x {image.height}"  # Pillow's own font has no multiplication sign


@contextmanager
def running_server(bundle: str | None, log: Path, record: Record) -> Iterator[str]:
    """A server of our own on free ports; the address once it serves. Stopped by SIGTERM."""
    address, metrics = free_address(), free_address()
    command = [
        *(str(Path(sys.executable).with_name("velatura-server")), "serve"),
        *("--listen", address, "--metrics-listen", metrics),
        *(("--bundle", bundle) if bundle else ()),
    ]
    with log.open("wb") as output:
        process = start(command, output)
        try:
            wait_ready(process, address, log)
            yield address
        except BaseException:
            process.kill()
            process.wait()
            raise
        process.send_signal(signal.SIGTERM)
        code = process.wait(STOP_S)
    record.expect(code == 0, f"the server ended with exit code {code}; see {log}")


def start(command: Sequence[str], output: Any) -> subprocess.Popen[bytes]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("VELATURA_METRICS")}
    return subprocess.Popen(command, stdout=output, stderr=output, env=environment)  # noqa: S603


def wait_ready(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    """Return when the server serves; end with its last words when it does not."""
    end = time.monotonic() + START_S
    with Client(address) as client:
        while time.monotonic() < end and process.poll() is None:
            try:
                client.wait_ready(1.0)
            except TimeoutError:
                continue
            return
    last = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
    raise SystemExit(f"demo: the server did not get ready within {START_S:g} s:\n{last}")


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


if __name__ == "__main__":
    raise SystemExit(main())

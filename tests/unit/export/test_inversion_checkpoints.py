"""pSp, e4e and ReStyle files load strictly, and compute what the papers say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from velatura.export.checkpoints.inversion import load_decoder, load_encoder
from velatura.export.convert import convert, open_generator, recognise
from velatura.export.directions.registry import write_directions
from velatura.export.errors import CheckpointError
from velatura.export.formats import Format
from velatura.export.inversion_networks import inversion_module
from velatura.export.networks.gradual_style import StyleEncoder, StyleEncoderConfig
from velatura.export.networks.inversion import View, shown
from velatura.export.networks.ir_se50 import BackboneConfig
from velatura.export.networks.stylegan2 import Generator, GeneratorConfig
from velatura.export.own_bundle import OwnFiles, load_own, origin_of

from . import inversion_files, rosinality_files

DIRECT = ["GradualStyleEncoder", "Encoder4Editing", "ResNetGradualStyleEncoder"]
RESTYLE = [
    "BackboneEncoder",
    "ResNetBackboneEncoder",
    "ProgressiveBackboneEncoder",
    "ResNetProgressiveBackboneEncoder",
    "GradualStyleEncoder",
]


def generator_of(resolution: int = 32) -> Generator:
    """A generator of the files' W+ at another resolution has another number of layers."""
    torch.manual_seed(5)
    channels = {2**i: 4 for i in range(2, resolution.bit_length())}
    config = GeneratorConfig(resolution, 8, 8, 2, channels=channels)
    return Generator(config).eval().requires_grad_(False)


def images(count: int, size: int, seed: int = 0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 8, 8, generator=rng) * 2 - 1
    return F.interpolate(coarse, size=(size, size), mode="bicubic").clamp(-1, 1)


@pytest.mark.parametrize("modern", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("encoder_type", DIRECT)
def test_a_file_computes_what_its_tensors_say(
    tmp_path: Path, encoder_type: str, modern: bool
) -> None:
    state, average = inversion_files.build(encoder_type), inversion_files.average()
    path = tmp_path / "e.pt"
    inversion_files.write(
        path, state, encoder_type, latent_avg=average, modern=modern, namespace=modern
    )
    encoder = load_encoder(path)
    assert not encoder.iterative
    module = inversion_module(encoder, generator_of())
    image = images(2, 32)
    large = F.interpolate(image.double(), size=(256, 256), mode="bilinear", align_corners=False)
    wanted = inversion_files.expected(state, encoder_type, large) + average
    torch.testing.assert_close(module(image).double(), wanted, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("encoder_type", RESTYLE)
def test_restyle_goes_back_and_forth_as_published(tmp_path: Path, encoder_type: str) -> None:
    state, average = inversion_files.build(encoder_type, 6), inversion_files.average()
    path = inversion_files.write(tmp_path / "r.pt", state, encoder_type, latent_avg=average)
    encoder, generator = load_encoder(path), load_decoder(path)
    assert encoder.iterative
    image = images(2, 32)
    large = F.interpolate(image.double(), size=(256, 256), mode="bilinear", align_corners=False)
    exact = generator.synthesis.double()
    latents = average.double().expand(2, -1, -1)
    for _ in range(3):
        made = F.adaptive_avg_pool2d(exact(latents), 256)
        latents = latents + inversion_files.expected(
            state, encoder_type, torch.cat([large, made], dim=1)
        )
    module = inversion_module(encoder, load_decoder(path), 3)
    torch.testing.assert_close(module(image).double(), latents, atol=1e-3, rtol=1e-3)
    assert (latents - average).abs().max() > 0.1


def test_large_pictures_of_the_generator_are_averaged() -> None:
    """As the official code pools what is larger than the encoder's input."""
    image = torch.randn(1, 3, 512, 512)
    torch.testing.assert_close(
        shown(image, letterboxed=False), F.adaptive_avg_pool2d(image, (256, 256))
    )
    cut = F.adaptive_avg_pool2d(image, (256, 256))[:, :, 32:224]
    torch.testing.assert_close(shown(image, letterboxed=True), cut)


@pytest.mark.parametrize("size", [64, 256, 512, 1024])
def test_images_are_resized_as_pillow_resizes_them(size: int) -> None:
    image = images(1, size)
    whole = View(size, letterboxed=False)(image)
    for channel in range(3):
        plane = Image.fromarray(image[0, channel].numpy(), "F")
        resized = plane.resize((256, 256), Image.Resampling.BILINEAR)
        wanted = torch.frombuffer(bytearray(resized.tobytes()), dtype=torch.float32)
        torch.testing.assert_close(whole[0, channel].flatten(), wanted, atol=1e-4, rtol=0)


def test_encoders_for_cars_see_the_middle_rows(tmp_path: Path) -> None:
    kind = "Encoder4Editing"
    path = inversion_files.write(
        tmp_path / "cars.pt",
        inversion_files.build(kind),
        kind,
        latent_avg=inversion_files.average(),
        dataset_type="cars_encode",
    )
    encoder = load_encoder(path)
    assert encoder.letterboxed
    module = inversion_module(encoder, generator_of())
    image = images(1, 32)
    changed = image.clone()
    changed[:, :, :4] = 1
    changed[:, :, 28:] = -1
    assert torch.equal(module(image), module(changed))
    changed[:, :, 4] = 1
    assert not torch.equal(module(image), module(changed))
    assert View(512, letterboxed=True)(images(1, 512)).shape == (1, 3, 192, 256)


def test_the_official_sizes_have_the_official_names() -> None:
    """At full width nothing is computed: names and shapes alone are compared."""
    for kind, pyramid, deltas, channels, backbone in (
        ("GradualStyleEncoder", True, False, 3, "ir"),
        ("Encoder4Editing", True, True, 3, "ir"),
        ("BackboneEncoder", False, False, 6, "ir"),
        ("ResNetBackboneEncoder", False, False, 6, "resnet"),
    ):
        units = (3, 4, 14, 3) if backbone == "ir" else (3, 4, 6, 3)
        shape = inversion_files.Shape((64, 128, 256, 512), units, 18, 512)
        with torch.device("meta"):
            official = inversion_files.build(kind, channels, shape)
            ours = StyleEncoder(
                StyleEncoderConfig(
                    BackboneConfig(backbone, units=units, image_channels=channels),  # type: ignore[arg-type]
                    pyramid=pyramid,
                    deltas=deltas,
                )
            ).state_dict()
        assert {n: t.shape for n, t in ours.items()} == {n: t.shape for n, t in official.items()}
    assert BackboneConfig().taps == (6, 20, 23)
    assert BackboneConfig("resnet", units=(3, 4, 6, 3)).taps == (6, 12, 15)


def test_the_decoder_is_a_generator_of_its_own(tmp_path: Path) -> None:
    decoder, average = rosinality_files.build(), inversion_files.average()
    kind = "Encoder4Editing"
    path = inversion_files.write(
        tmp_path / "e.pt", inversion_files.build(kind), kind, decoder=decoder, latent_avg=average
    )
    assert recognise(path) is Format.INVERSION
    generator = open_generator(path)
    z = torch.randn(2, rosinality_files.W_DIM)
    _, wanted = rosinality_files.expected(decoder, z)
    torch.testing.assert_close(generator(z, torch.ones(2)).double(), wanted, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(generator.mapping.w_avg, average[0])
    written = convert(path, tmp_path / "g.safetensors")
    torch.testing.assert_close(written.mapping.w_avg, open_generator(path).mapping.w_avg)


def test_directions_are_found_for_a_file_as_it_is(tmp_path: Path) -> None:
    kind = "Encoder4Editing"
    path, found = tmp_path / "e.pt", tmp_path / "directions.json"
    inversion_files.write(
        path, inversion_files.build(kind), kind, latent_avg=inversion_files.average()
    )
    assert write_directions("sefa", path, found, count=2) == ["sefa-0", "sefa-1"]
    own = load_own(OwnFiles(path, path, directions=found), "faces", origin_of("", ""))
    assert [spec.name for spec in own.specs] == [
        "faces-synthesis",
        "faces-mapping",
        "faces-encoder",
    ]
    assert len(own.directions.directions) == 2


def test_whether_the_average_is_added_is_the_files_own_choice(tmp_path: Path) -> None:
    kind = "GradualStyleEncoder"
    state, average = inversion_files.build(kind), inversion_files.average()

    def loaded(**entries: Any) -> Tensor:
        return load_encoder(
            inversion_files.write(tmp_path / "e.pt", state, kind, **entries)
        ).average

    assert torch.equal(loaded(latent_avg=average), average)
    assert torch.equal(loaded(latent_avg=average[0]), average)
    assert not loaded(latent_avg=average, start_from_latent_avg=False).any()


@pytest.mark.parametrize(
    ("tensors", "options", "message"),
    [
        ({"styles.2.linear.bias": None}, {}, r"Missing key.*styles\.2\.linear\.bias"),
        ({"extra": torch.zeros(1)}, {}, r"Unexpected key.*extra"),
        ({"latlayer1.bias": torch.zeros(3)}, {}, r"size mismatch for latlayer1\.bias"),
        ({"latlayer1.bias": torch.full((64,), torch.nan)}, {}, "latlayer1.bias holds numbers"),
        ({"input_layer.0.weight": torch.zeros(16, 1, 3, 3)}, {}, "the image has 1 channels"),
        ({"input_layer.0.weight": None}, {}, r"no tensor input_layer\.0\.weight"),
        ({"body.3.res_layer.3.weight": torch.zeros(32, 32, 3, 3)}, {}, "four rising widths"),
        ({}, {"encoder_type": "BackboneEncoderUsingLastLayerIntoW"}, "encoder_type is 'Backbone"),
        ({}, {"latent_avg": None}, "the file has no latent_avg"),
        ({}, {"latent_avg": torch.zeros(3, 8)}, r"latent_avg has shape \[3, 8\]"),
    ],
)
def test_what_does_not_fit_is_named(
    tmp_path: Path, tensors: dict[str, Tensor | None], options: dict[str, Any], message: str
) -> None:
    kind = "Encoder4Editing"
    state = inversion_files.build(kind)
    for name, tensor in tensors.items():
        if tensor is None:
            del state[name]
        else:
            state[name] = tensor
    average = options.pop("latent_avg", inversion_files.average())
    path = tmp_path / "e.pt"
    inversion_files.write(
        path, state, options.pop("encoder_type", kind), latent_avg=average, **options
    )
    with pytest.raises(CheckpointError, match=r"e\.pt: encoder: (.|\n)*" + message):
        load_encoder(path)


def test_files_without_the_part_asked_for_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "g.pt"
    rosinality_files.write(path, rosinality_files.build())
    with pytest.raises(CheckpointError, match="no opts"):
        load_encoder(path)
    torch.save({"state_dict": {"encoder.x": torch.zeros(1)}, "opts": {}}, path)
    with pytest.raises(CheckpointError, match="encoder_type is None"):
        load_encoder(path)
    with pytest.raises(CheckpointError, match=r"no decoder\.\* tensors"):
        load_decoder(path)


def test_an_encoder_of_another_generator_is_refused(tmp_path: Path) -> None:
    kind = "BackboneEncoder"
    path = tmp_path / "r.pt"
    state = inversion_files.build(kind, 6)
    encoder = load_encoder(
        inversion_files.write(path, state, kind, latent_avg=inversion_files.average())
    )
    with pytest.raises(CheckpointError, match=r"W\+ of 8 × 8, the generator has 10 × 8"):
        inversion_module(encoder, generator_of(64))
    with pytest.raises(CheckpointError, match="--iterations 0: give 1 to 20"):
        inversion_module(encoder, generator_of(), 0)

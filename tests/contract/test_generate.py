"""GenerateService on a real server: order, reproducibility, truncation, mixing, edits."""

from __future__ import annotations

import grpc
import numpy as np
import pytest

from velatura.v1 import catalog_pb2, edit_pb2, edit_pb2_grpc, generate_pb2, generate_pb2_grpc

from ..running import RunningServer, opened, samples

Stub = generate_pb2_grpc.GenerateServiceStub
LARGEST_SEED = 2**64 - 1


def generated(stub: Stub, **fields: object) -> list[generate_pb2.GenerateResponse]:
    return list(stub.Generate(generate_pb2.GenerateRequest(**fields)))  # type: ignore[arg-type]


def latents(sample: generate_pb2.GenerateResponse) -> np.ndarray:  # type: ignore[type-arg]
    return np.frombuffer(sample.latent_token[17:-8], "<f4").reshape(12, -1)


def test_samples_come_in_the_order_of_the_seeds(
    generating: Stub, models: catalog_pb2.ListModelsResponse
) -> None:
    seeds = [5, LARGEST_SEED, 0, *range(100, 118), 5]
    answers = generated(generating, seeds=seeds)
    assert [each.seed for each in answers] == seeds
    assert [each.index for each in answers] == list(range(len(seeds)))
    size = models.generators[0].resolution
    assert all(opened(each.image).size == (size, size) for each in answers)
    assert all(opened(each.image).format == "PNG" for each in answers)
    assert answers[0].latent_token == answers[-1].latent_token


def test_a_seed_gives_the_same_image_alone_and_among_others(generating: Stub) -> None:
    (alone,) = generated(generating, seeds=[3])
    among = generated(generating, seeds=range(8))[3]
    other = generated(generating, seeds=[4])[0]
    assert np.abs(samples(alone.image) - samples(among.image)).max() <= 1
    assert latents(alone) == pytest.approx(latents(among), abs=1e-5)
    assert np.abs(latents(alone) - latents(other)).max() > 0.1


def test_psi_zero_gives_the_centre_of_truncation_and_the_default_is_seven_tenths(
    generating: Stub,
) -> None:
    (centre,) = map(latents, generated(generating, seeds=[1], truncation_psi=0))
    default = generated(generating, seeds=[1])[0]
    assert (
        default.latent_token == generated(generating, seeds=[1], truncation_psi=0.7)[0].latent_token
    )
    full = generated(generating, seeds=[1], truncation_psi=1)[0]
    moved = np.abs(latents(full) - centre).max()
    assert moved > 0.1
    assert latents(default) == pytest.approx(centre + 0.7 * (latents(full) - centre), abs=1e-3)


def test_samples_of_low_psi_gather_at_few_centres_near_the_average(
    generating: Stub, models: catalog_pb2.ListModelsResponse
) -> None:
    w_avg = np.asarray(models.generators[0].w_avg)
    centres, full = (
        np.stack(
            [latents(each)[0] for each in generated(generating, seeds=range(8), truncation_psi=psi)]
        )
        for psi in (0, 1)
    )  # [8, w_dim] each
    spread = np.linalg.norm(centres - w_avg, axis=1).mean()
    assert 0 < spread < np.linalg.norm(full - w_avg, axis=1).mean()


def test_mixing_takes_the_named_layers_of_the_second_seed(generating: Stub) -> None:
    first, second = generated(generating, seeds=[10, 20])
    mixing = generate_pb2.StyleMixing(seed=20, layers=edit_pb2.LayerRange(start=4, end=8))
    (mixed,) = generated(generating, seeds=[10], mixing=mixing)
    assert latents(mixed)[4:8] == pytest.approx(latents(second)[4:8], abs=1e-5)
    assert latents(mixed)[:4] == pytest.approx(latents(first)[:4], abs=1e-5)
    assert latents(mixed)[8:] == pytest.approx(latents(first)[8:], abs=1e-5)


def test_edits_apply_to_every_sample(generating: Stub) -> None:
    layers = edit_pb2.LayerRange(start=8, end=12)
    edit = edit_pb2.Edit(offset=edit_pb2.OffsetEdit(layers=layers, values=[0.5]))
    plain = generated(generating, seeds=[1, 2])
    edited = generated(generating, seeds=[1, 2], edits=[edit])
    for before, after in zip(plain, edited, strict=True):
        assert latents(after)[8:] == pytest.approx(latents(before)[8:] + 0.5, abs=1e-5)
        assert np.array_equal(latents(after)[:8], latents(before)[:8])


def test_a_samples_token_can_be_edited(
    generating: Stub, editing: edit_pb2_grpc.EditServiceStub
) -> None:
    (sample,) = generated(generating, seeds=[6])
    layers = edit_pb2.LayerRange(start=0, end=1)
    nothing = edit_pb2.Edit(offset=edit_pb2.OffsetEdit(layers=layers, values=[0]))
    answer = editing.EditImage(
        edit_pb2.EditImageRequest(latent_token=sample.latent_token, edits=[nothing])
    )
    assert np.abs(samples(answer.image) - samples(sample.image)).max() <= 1


def test_samples_are_sent_before_the_last_is_done(generating: Stub) -> None:
    call = generating.Generate(generate_pb2.GenerateRequest(seeds=range(200)))
    first = next(iter(call))
    assert first.index == 0
    assert call.is_active()
    call.cancel()


def test_a_caller_who_hangs_up_stops_the_work(generating: Stub, server: RunningServer) -> None:
    before = server.total("velatura_batch_size_sum", model="avatar-synthesis")
    call = generating.Generate(generate_pb2.GenerateRequest(seeds=range(256)))
    next(iter(call))
    call.cancel()
    # The next request waits behind what is left of the cancelled one: by its end, that is over.
    generated(generating, seeds=[1])
    done = server.total("velatura_batch_size_sum", model="avatar-synthesis") - before
    assert done < 200
    assert call.code() is grpc.StatusCode.CANCELLED

"""Widening a checkpoint of the embedded model's training changes nothing that it says."""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from blora.embedded.training.grow import grow, grow_unet


def _vae(widths: tuple[int, ...]) -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=widths,
        layers_per_block=1,
        norm_num_groups=1,
        mid_block_add_attention=False,
    )


def _unet(widths: tuple[int, ...]) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=widths,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DCrossAttn",
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=(1, 1, 2),
        attention_head_dim=(1, 2, 4),
        norm_num_groups=4,
        use_linear_projection=True,
        cross_attention_dim=16,
    )


@torch.no_grad()
def test_vae_says_the_same_exactly() -> None:
    torch.manual_seed(0)
    narrow, wide = _vae((4, 8)), _vae((8, 16))
    wide.load_state_dict(grow(narrow.state_dict(), wide, {}))
    x = torch.rand(2, 3, 16, 16)
    before, after = narrow.encode(x).latent_dist, wide.encode(x).latent_dist
    torch.testing.assert_close(after.mean, before.mean, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(after.std, before.std, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(wide.decode(before.mean).sample, narrow.decode(before.mean).sample, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_unet_says_nearly_the_same_and_copies_part_ways() -> None:
    """Two norms over a mixture of levels see other groups, which an untrained model feels more than a trained one."""
    torch.manual_seed(0)
    narrow, wide, other = _unet((8, 16, 32)), _unet((16, 32, 32)), _unet((8, 16, 32))
    wide.load_state_dict(grow_unet(narrow.state_dict(), (8, 16, 32), wide))
    x, context = torch.randn(2, 4, 8, 8), torch.randn(2, 5, 16)
    for t in (3, 500, 999):
        before, after, apart = (unet(x, t, context).sample for unet in (narrow, wide, other))
        assert (after - before).norm() < 0.4 * (apart - before).norm()
    read = wide.down_blocks[0].resnets[0].conv1.weight
    assert not torch.equal(read[:, 0], read[:, 1])


@torch.no_grad()
@pytest.mark.parametrize("level", [0, 1])
def test_levels_before_the_mixed_norms_are_exact(level: int) -> None:
    torch.manual_seed(1)
    narrow, wide = _unet((8, 16, 32)), _unet((16, 32, 32))
    wide.load_state_dict(grow_unet(narrow.state_dict(), (8, 16, 32), wide))
    seen: list[torch.Tensor] = []
    for unet in (narrow, wide):
        unet.down_blocks[level].register_forward_hook(lambda module, args, output: seen.append(output[0]))
        unet(torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)), 400, torch.ones(2, 5, 16))
    torch.testing.assert_close(seen[1], seen[0].repeat_interleave(2, 1), atol=1e-5, rtol=1e-4)

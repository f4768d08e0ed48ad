"""What is measured of networks, on ones small enough to know the answer."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from segtool.models.measure import effective_field, settle_norms, shift_consistency


def images(count: int = 2, side: int = 40) -> list[torch.Tensor]:
    return list(torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1)))


def test_the_effective_field_of_one_convolution_is_its_kernel_and_of_a_1x1_the_pixel():
    for kernel in (1, 3, 5):
        conv = nn.Conv2d(3, 4, kernel, padding=kernel // 2)
        nn.init.ones_(conv.weight)
        field = effective_field(conv, images())
        assert field is not None
        assert field.most == kernel
        # Ones: of 9 equal parts one lies in the centre, of 25 nine within 3x3.
        assert field.half == {1: 1, 3: 3, 5: 5}[kernel]


def test_half_of_the_gradient_lies_where_the_weights_put_it():
    conv = nn.Conv2d(1, 1, 5, padding=2, bias=False)
    nn.init.ones_(conv.weight)
    conv.weight.data[0, 0, 2, 2] = -24.0  # as much as the 24 others; its sign does not count
    field = effective_field(conv, [torch.zeros(1, 9, 11)])
    assert field is not None
    assert (field.half, field.most) == (1, 5)


def test_the_effective_field_of_many_layers_is_smaller_than_the_one_by_layout():
    torch.manual_seed(0)
    deep = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(12)))
    field = effective_field(deep, images())
    assert field is not None
    assert field.half < field.most < 25


def test_a_network_that_ignores_the_image_has_no_effective_field():
    conv = nn.Conv2d(3, 2, 3, padding=1)
    nn.init.zeros_(conv.weight)
    assert effective_field(conv, images()) is None


def test_convolutions_without_stride_move_with_the_image_except_at_borders():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 5, padding=2), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1))
    rows = shift_consistency(network, images(), stride=1, margin=3)
    assert [row.pixels for row in rows] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert all(row.inside == 1 and row.whole for row in rows)
    assert all(row.consistency < 1 for row in rows)


class AnySize(nn.Sequential):
    """Pads at the bottom and the right to a multiple of 4, and crops back."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        height, width = x.shape[-2:]
        padded = nn.functional.pad(x, (0, -width % 4, 0, -height % 4), mode="replicate")
        return super().forward(padded)[..., :height, :width]


@pytest.mark.parametrize("down", [nn.Conv2d(3, 3, 3, stride=4, padding=1), nn.MaxPool2d(4)], ids=["stride", "pool"])
def test_a_strided_network_moves_with_the_image_by_multiples_of_its_stride_only(down):
    torch.manual_seed(0)
    network = AnySize(down, nn.Conv2d(3, 4, 1), nn.Upsample(scale_factor=4))
    rows = shift_consistency(network, images(), shifts=(1, 2, 3, 4, 8), stride=4, margin=4)
    for row in rows:
        assert row.whole == (row.pixels % 4 == 0)
        assert (row.inside == 1) == row.whole


def test_the_share_is_that_of_a_count_by_hand():
    class Columns(nn.Module):
        """Class 1 in every second column, wherever the image is; so a shift of 1 changes every pixel."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            odd = (torch.arange(x.shape[-1]) % 2).expand(x.shape[0], 1, *x.shape[-2:]).float()
            return torch.cat([0.5 - odd, odd - 0.5], 1)

    one, two = shift_consistency(Columns(), images(), shifts=(1, 2), stride=2, margin=30)
    assert (one.consistency, two.consistency) == (0.0, 1.0)
    assert one.inside is None


def test_settled_norms_have_the_statistics_of_the_images():
    network = nn.Sequential(nn.BatchNorm2d(3))
    given = [image * 3 + 2 for image in images()]
    settle_norms(network, given)
    assert not network.training
    assert network[0].momentum == 0.1
    assert torch.allclose(network[0].running_mean, torch.stack([image.mean((1, 2)) for image in given]).mean(0))

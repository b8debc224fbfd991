from __future__ import annotations

import math

import pytest
import torch

from sklearn_diffult.augmentations import AUGMENTATIONS, N_CONDITIONS, SHIFT, Change


def _change(n=1, **values):
    zeros = {name: torch.zeros(n) for name in ("scale", "stretch", "angle", "right", "down")}
    return Change(**zeros | {name: torch.full((n,), float(v)) for name, v in values.items()})


@pytest.fixture
def images():
    return torch.rand(3, 2, 12, 16, generator=torch.Generator().manual_seed(0))


def test_no_change_returns_the_images_bit_for_bit_and_a_condition_of_zero(images):
    change = Change.draw(3, 0.0, torch.Generator().manual_seed(0))
    assert torch.equal(change.apply(images), images)
    assert torch.equal(change.condition(), torch.zeros(3, N_CONDITIONS))


def test_a_shift_by_whole_pixels_moves_right_and_down_and_repeats_the_edge(images):
    moved = _change(3, right=2 / 16, down=3 / 12).apply(images)
    torch.testing.assert_close(moved[:, :, 3:, 2:], images[:, :, :-3, :-2])
    torch.testing.assert_close(moved[:, :, 3:, 0], images[:, :, :-3, 0])


def test_half_a_turn_is_both_flips(images):
    torch.testing.assert_close(
        _change(3, angle=math.pi).apply(images), images.flip(-1, -2), atol=1e-5, rtol=0
    )


def test_a_quarter_turn_keeps_pixels_square_in_an_image_that_is_not():
    image = torch.zeros(1, 1, 9, 17)
    image[0, 0, 4, 8:12] = 1  # from the centre four pixels to the right
    turned = _change(angle=math.pi / 2).apply(image)
    wanted = torch.zeros_like(image)
    wanted[0, 0, 4:8, 8] = 1  # clockwise: from the centre four pixels down
    torch.testing.assert_close(turned, wanted, atol=1e-5, rtol=0)


def test_magnifying_by_two_shows_the_middle_half():
    ramp = torch.linspace(-1, 1, 16).expand(1, 1, 16, 16)
    magnified = _change(scale=1).apply(ramp)
    torch.testing.assert_close(magnified[..., 1:-1], ramp[..., 1:-1] / 2, atol=1e-6, rtol=0)
    stretched = _change(scale=0.5, stretch=1).apply(ramp)  # twice as wide, as high as before
    torch.testing.assert_close(stretched[..., 1:-1], ramp[..., 1:-1] / 2, atol=1e-6, rtol=0)
    torch.testing.assert_close(
        _change(scale=0.5, stretch=-1).apply(ramp), ramp.clone(), atol=1e-6, rtol=0
    )


def test_each_kind_of_change_comes_up_with_its_probability():
    change = Change.draw(20_000, 0.3, torch.Generator().manual_seed(0))
    told = change.condition() != 0
    shares = told.float().mean(0).tolist()
    # Standard error 0.003. The cosine belongs to the sine.
    assert shares == pytest.approx([0.3] * 6, abs=0.015)
    assert change.right[change.right != 0].std() == pytest.approx(SHIFT, rel=0.05)


def test_only_the_changed_images_of_a_batch_change(images):
    change = _change(3)
    change.angle[1] = math.pi
    changed = change.apply(images)
    assert torch.equal(changed[[0, 2]], images[[0, 2]])
    torch.testing.assert_close(changed[1], images[1].flip(-1, -2), atol=1e-5, rtol=0)


def test_erasing_covers_one_rectangle_of_one_value_in_every_fourth_image():
    images = torch.full((4000, 2, 24, 32), 3.0)  # a value that no rectangle has
    erased = AUGMENTATIONS["erase"](images, torch.Generator().manual_seed(0))
    is_covered = erased[:, 0] != 3
    changed = is_covered.flatten(1).any(dim=1)
    assert changed.float().mean() == pytest.approx(0.25, abs=0.03)
    rows, columns = is_covered[changed].any(dim=2), is_covered[changed].any(dim=1)
    assert torch.equal(is_covered[changed], rows[:, :, None] & columns[:, None, :])
    # One run of rows and one of columns, that is at most one step up along each side.
    for side in (rows, columns):
        padded = torch.nn.functional.pad(side.int(), (1, 0))
        assert (padded.diff(dim=1) == 1).sum(dim=1).max() == 1
    # No side of the image is spared more than the one across.
    for side in (rows.float().mean(dim=0), columns.float().mean(dim=0)):
        assert side[0] > 0.02
        assert float(side[0]) == pytest.approx(float(side[-1]), abs=0.05)
    area = is_covered[changed].float().mean(dim=(1, 2))
    assert area.mean() == pytest.approx((0.02 + 0.33) / 2, abs=0.01)
    covered = torch.where(is_covered[:, None], erased, torch.nan)[changed].flatten(1)
    values = covered.nanmean(dim=1, keepdim=True)
    torch.testing.assert_close(covered.nan_to_num(0), values * ~covered.isnan())
    assert values.min() >= -1
    assert values.max() <= 1


def test_solarizing_inverts_what_is_brighter_than_a_value_of_its_own():
    ramp = torch.linspace(-1, 1, 64).reshape(1, 1, 8, 8).expand(4000, 1, 8, 8)
    solarized = AUGMENTATIONS["solarize"](ramp, torch.Generator().manual_seed(0)).flatten(1)
    flat = ramp.flatten(1)
    is_inverted = solarized != flat
    assert torch.equal(solarized[is_inverted], -flat[is_inverted])
    # From some pixel on, all are inverted.
    assert (is_inverted.int().diff(dim=1) >= 0).all()
    assert is_inverted.any(dim=1).float().mean() == pytest.approx(0.3, abs=0.03)
    assert is_inverted.float().mean() == pytest.approx(0.15, abs=0.02)


def test_an_affine_change_leaves_about_four_images_in_nine_alone():
    images = torch.rand(4000, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    changed = AUGMENTATIONS["affine"](images, torch.Generator().manual_seed(1))
    is_alone = (changed == images).flatten(1).all(dim=1)
    assert is_alone.float().mean() == pytest.approx(0.85**5, abs=0.03)

import cv2
import numpy as np
import pytest
import torch

from ifttn.insight.canvases import blur


@pytest.mark.parametrize("sigma", [0.4, 1.2, 2.5])
def test_blur_is_a_gaussian_with_a_reflected_border(sigma):
    images = np.random.default_rng(0).uniform(0, 255, (20, 32)).astype(np.float32)
    side = 2 * int(4 * sigma + 0.5) + 1
    expected = cv2.GaussianBlur(images, (side, side), sigma, borderType=cv2.BORDER_REFLECT)
    ours = blur(torch.from_numpy(images)[None, None], sigma)[0, 0]
    np.testing.assert_allclose(ours, expected, atol=1e-3)


def test_blur_keeps_the_mean_even_where_it_reaches_past_the_image():
    images = torch.rand(1, 2, 6, 6) * 255
    torch.testing.assert_close(blur(images, 4.0).mean(), images.mean())

"""The contact sheets of checkpoints."""

import numpy as np
import pytest
from PIL import Image

from benchmarks import gallery
from benchmarks.gallery import MARGIN, PAN, SIDE


@pytest.mark.parametrize("name", ["compact-x2", "vsrresnet-x4"])
def test_a_sheet_shows_original_bicubic_and_network(name, tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "SUBJECTS", {})  # text and line art need no files
    pixels = np.asarray(gallery.sheet(name, tmp_path)).astype(float)
    assert pixels.shape == (SIDE + 16, 6 * SIDE, 3)
    for left in (0, 3 * SIDE):
        original, smooth, ours = (pixels[16:, left + at * SIDE : left + (at + 1) * SIDE] for at in range(3))
        assert np.square(ours - original).mean() < 0.8 * np.square(smooth - original).mean()


def test_subjects_near_a_border_are_whole(tmp_path, monkeypatch):
    (tmp_path / "data/bench").mkdir(parents=True)
    Image.fromarray(np.full((SIDE, SIDE + 4 * PAN, 3), 90, np.uint8)).save(tmp_path / "data/bench/a.png")
    monkeypatch.setattr(gallery, "SUBJECTS", {"corner": ("a.png", 0, 0)})
    shapes = {pixels.shape for _, pixels in gallery.originals(tmp_path)}
    assert shapes == {(SIDE + 2 * MARGIN, SIDE + 2 * MARGIN + 4 * PAN, 3)}

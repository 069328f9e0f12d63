"""Number of images per forward pass where it changes no result."""

from __future__ import annotations

IMAGES, PIXELS = 500, 2**23
"""Most images, and most pixels, of one forward pass."""


def images_at_once(size: int) -> int:
    """Images per pass for square images of ``size`` pixels a side, at least one."""
    return max(1, min(IMAGES, PIXELS // size**2))

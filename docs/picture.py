"""Draw ``docs/condensed.png``: ``python docs/picture.py``, in the root of a checkout.

One image per class, cut from the contact sheets in ``results/condensed``, whose left half shows condensed images and
whose right half shows real ones.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image

SHEETS = [Path("results/condensed", f"{run}.png") for run in ("digits-edc-ipc10", "cifar10_light-edc-ipc10")]
CLASSES, COLUMNS, GAP, SHOWN = 10, 10, 2, 48


def strip(sheet: Image.Image) -> Image.Image:
    """Real images in the upper row, condensed ones in the lower, one column per class."""
    tile = (sheet.height - GAP) // CLASSES  # an image and the gap beside it
    rows = Image.new("RGB", (CLASSES * (SHOWN + GAP), 2 * (SHOWN + GAP)), "white")
    for y, left in enumerate((GAP + COLUMNS * tile + 3 * GAP, GAP)):
        for x in range(CLASSES):
            top = GAP + x * tile
            image = sheet.crop((left, top, left + tile - GAP, top + tile - GAP))
            rows.paste(image.resize((SHOWN, SHOWN), Image.Resampling.NEAREST), (x * (SHOWN + GAP), y * (SHOWN + GAP)))
    return rows


if __name__ == "__main__":
    strips = [strip(Image.open(path).convert("RGB")) for path in SHEETS]
    whole = Image.new("RGB", (sum(rows.width for rows in strips) + 16, strips[0].height), "white")
    for place, rows in enumerate(strips):
        whole.paste(rows, (place * (rows.width + 16), 0))
    whole.save("docs/condensed.png", optimize=True)

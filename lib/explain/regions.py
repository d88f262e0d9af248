"""Where a perturbation lies and where a map points, against the lesion and the model's own salient region.

A region is a float array (n, H, W) in [0, 1], the share of each pixel that belongs to it; a mask is one of 0 and 1.
"""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from lib import StudyError
from lib.data.preprocessing import resize
from lib.explain.gradcam import top_area

NIH_PIXELS = 1024  # the width and height of the x-rays that BBox_List_2017.csv is about
SEGMENTATIONS = "HAM10000_segmentations_lesion_tschandl"


def lesion_masks(image_ids, dataset: str, folder: str | Path, size: int) -> tuple[np.ndarray, str]:
    """Masks of what makes an image's label, bool (n, size, size), and where they come from.

    Looked for in the data set's folder, in this order: `masks/` (phantoms), the lesion segmentations of HAM10000
    (Tschandl et al. 2018, `<image_id>_segmentation.png`), the pneumothorax boxes of NIH (Wang et al. 2017,
    BBox_List_2017.csv; a box counts as a mask). Masks are resized as images are. An image without one has an empty
    mask; where a set has none at all the source is "". Raises StudyError for a mask file that cannot be read.
    """
    ids, folder = [str(i) for i in image_ids], Path(folder)
    found = np.zeros((len(ids), size, size), bool)
    if (folder / "masks").is_dir():
        files, source = {i: folder / "masks" / f"{i}.png" for i in ids}, "phantom masks"
    elif segmented := next(iter(sorted(folder.rglob(SEGMENTATIONS))), None):
        files = {i: segmented / f"{i}_segmentation.png" for i in ids}
        source = "published lesion segmentations"
    elif dataset == "chestxray14" and (folder / "BBox_List_2017.csv").is_file():
        boxes = _boxes(folder / "BBox_List_2017.csv")
        for n, name in enumerate(ids):
            for x, y, width, height in boxes.get(name, ()):
                rows, columns = _cells(y, height, size), _cells(x, width, size)
                found[n, rows, columns] = True
        return found, "published pneumothorax boxes"
    else:
        return found, ""
    for n, file in enumerate(files.values()):
        if not file.is_file():
            continue
        mask = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
        if mask is None:
            raise StudyError(f"The mask {file.name} cannot be read; remove it or fetch it again.")
        found[n] = resize(mask, size) > 127
    return found, source


def _boxes(path) -> dict[str, list]:
    table = pd.read_csv(path).iloc[:, :6]  # the header's "[x,y,w,h]" is torn apart by its commas
    table.columns = ["image", "finding", "x", "y", "width", "height"]
    table = table[table["finding"] == "Pneumothorax"]
    names = table["image"].str.removesuffix(".png")
    return {name: rows[["x", "y", "width", "height"]].to_numpy() for name, rows in table.groupby(names)}


def _cells(start, length, size) -> slice:
    scale = size / NIH_PIXELS
    return slice(int(np.floor(start * scale)), int(np.ceil((start + length) * scale)))


def energy(perturbation) -> np.ndarray:
    """Energy per pixel, the sum of squares over channels, float64 (n, H, W), of perturbations (n, H, W, C)."""
    return np.square(np.asarray(perturbation, np.float64)).sum(axis=-1)


def energy_share(energies, region) -> np.ndarray:
    """Share of each image's energy (n, H, W) that lies in a region, float (n,); NaN where there is no energy.

    Energy spread evenly gives the region's share of the area; the two together say whether a perturbation seeks a
    region. (An L-inf perturbation is nearly even by construction: most pixels move by the whole budget.)
    """
    total = energies.sum(axis=(1, 2))
    inside = (energies * region).sum(axis=(1, 2))
    return np.divide(inside, total, out=np.full(len(total), np.nan), where=total > 0)


def enlarged(maps, size: tuple[int, int]) -> np.ndarray:
    """Maps (n, h, w), h and w at least 2, interpolated to images of `size`, float32 (n, H, W): bilinear, half-pixel
    centres."""
    maps = np.asarray(maps, np.float32)
    return np.stack([cv2.resize(m, size[::-1], interpolation=cv2.INTER_LINEAR) for m in maps])


def pointing(maps, masks) -> np.ndarray:
    """The pointing game (Zhang et al. 2018), without their tolerance: does the highest pixel lie in the mask?

    Float (n,): the share of the highest pixels that do, should several tie. By chance: the mask's share of the area.
    """
    highest = np.asarray(maps) == np.max(maps, axis=(1, 2), keepdims=True)
    return (highest & masks).sum(axis=(1, 2)) / highest.sum(axis=(1, 2))


def iou(maps, masks) -> np.ndarray:
    """Intersection over union of each mask with the map's highest values over as large an area, float (n,).

    Taking the mask's own area leaves no threshold to choose. By chance, for a mask that covers a share a of
    the image, about a / (2 - a). NaN for an empty mask.
    """
    region = top_area(maps, np.mean(masks, axis=(1, 2)))
    union = np.maximum(region, masks).sum(axis=(1, 2))
    overlap = np.minimum(region, masks).sum(axis=(1, 2))
    return np.divide(overlap, union, out=np.full(len(union), np.nan), where=union > 0)

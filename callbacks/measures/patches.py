"""Measures of models that make whole images from patches."""

from __future__ import annotations

from zoo.callbacks.base import Assembles, HasPatches, Result
from zoo.callbacks.measures.evaluation import Evaluation
from zoo.callbacks.measures.registry import measure
from zoo.callbacks.metrics.patches import MaskIoU, NearestPatch

__all__ = ["mask_iou", "patch_error"]


@measure(needs=Assembles, data_needs=HasPatches, better="higher")
def mask_iou(at: Evaluation, *, shuffled: bool = False) -> Result:
    """Intersection over union, from 0 to 1, of the masks that a model predicts from patches and the true ones.

    Args:
        shuffled: compare each mask with that of another image, as `mask_iou_shuffled`: the value of masks that do not
            depend on the patches.
    """
    return _assembled(at, MaskIoU(), shuffled)


@measure(needs=Assembles, data_needs=HasPatches, better="lower")
def patch_error(at: Evaluation, *, shuffled: bool = False) -> Result:
    """Distance of each patch from the most similar place of the image that was made from it: see `NearestPatch`.

    Args:
        shuffled: look for the patches of another image, as `patch_error_shuffled`: the error of images that do not use
            their patches.
    """
    return _assembled(at, NearestPatch(), shuffled)


def _assembled(at: Evaluation, metric: MaskIoU | NearestPatch, shuffled: bool) -> Result:
    if shuffled and at.count() < 2:
        raise ValueError(f"{at.name}: shuffled needs two images at least, not {at.count()}")
    at.placed(metric)
    # Images are shuffled within their chunk, so no chunk may hold a single one.
    for first, batch in at.batches(chunk=at.chunk - (at.count() % at.chunk == 1)):
        image, mask = at.model.assemble(batch["patches"], seed=at.seed, first=first)
        true = {key: batch[key].roll(1, 0) if shuffled else batch[key] for key in ("image", "mask", "boxes")}
        if isinstance(metric, MaskIoU):
            metric.update(mask, true["mask"])
        else:
            metric.update(image, true["image"], true["boxes"])
    # A name of its own: in one column with values of the true patches it would be read as a value of the model.
    return at.result(metric.compute(), f"{at.name}_shuffled" if shuffled else None, test=at.images())

"""Why a classifier decides as it does: Grad-CAM and attention maps, and what 05_why measures on them."""

from lib.explain.gradcam import attention_map, choose_images, constant, grad_cam, map_shift, overlap, top_area

__all__ = ["attention_map", "choose_images", "constant", "grad_cam", "map_shift", "overlap", "top_area"]

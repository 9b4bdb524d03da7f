"""The files of the embedded model: which there are, where they lie, and how they come."""

from .catalogue import ModelInfo, Part
from .fetch import ProgressHook, pull
from .places import installed, is_present, known, remove, resolve

__all__ = [
    "ModelInfo",
    "Part",
    "ProgressHook",
    "installed",
    "is_present",
    "known",
    "pull",
    "remove",
    "resolve",
]

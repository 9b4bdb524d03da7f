"""The executor `container`: docker or podman, by their command line."""

from .executor import ContainerExecutor
from .target import DEFAULT_IMAGE, Target, target_of

__all__ = ["DEFAULT_IMAGE", "ContainerExecutor", "Target", "target_of"]

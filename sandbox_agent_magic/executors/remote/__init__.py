"""The executor `remote`: kernels of Jupyter servers and gateways."""

from .executor import RemoteExecutor
from .target import Target, target_of

__all__ = ["RemoteExecutor", "Target", "target_of"]

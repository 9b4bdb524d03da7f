"""The executor `remote`: kernels of Jupyter servers and gateways."""

from .executor import RemoteExecutor
from .server import Target
from .target import target_of

__all__ = ["RemoteExecutor", "Target", "target_of"]

# Replaces the stubs that pyright brings along, which lag behind TensorFlow.
from typing import Any

def __getattr__(name: str) -> Any: ...

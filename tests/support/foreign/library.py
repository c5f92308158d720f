"""`transformers`, imported where torchvision is broken too."""

import importlib
import sys

# torchvision comes with a development tool. Beside a CPU build of torch it is found but cannot be imported, and
# transformers, which needs it for reading images alone, then fails altogether. It does without one that is not found.
try:
    importlib.import_module("torchvision")
except (ImportError, RuntimeError):
    sys.modules["torchvision"] = None  # type: ignore[assignment]

import transformers as transformers

# Its loggers would tell of layers with new weights: all of these have.
transformers.logging.set_verbosity_error()

"""llama.cpp behind checked calls. Used by the text worker and the runner alone, each a child.

A wrong number given to llama.cpp ends the process: at least ten ordinary mistakes do (an id out of
range, a row without logits, a batch too long). So every call here checks its arguments first, and
nothing else in localrun touches the library.
"""

from localrun.llama.batch import Batch
from localrun.llama.context import Context, ContextSettings, Decoded
from localrun.llama.library import describe, version
from localrun.llama.model import Model
from localrun.llama.sampler import Sampler
from localrun.llama.vocabulary import Vocabulary

__all__ = [
    "Batch",
    "Context",
    "ContextSettings",
    "Decoded",
    "Model",
    "Sampler",
    "Vocabulary",
    "describe",
    "version",
]

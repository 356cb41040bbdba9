"""llama.cpp behind checked calls. Used by the text worker and the runner alone, each a child.

A wrong number given to llama.cpp ends the process: at least ten ordinary mistakes do (an id out of
range, a row without logits, a batch too long). So every call here checks its arguments first, and
nothing else in localrun touches the library.
"""

from localrun.llama.batch import Batch
from localrun.llama.context import Context, ContextSettings, Decoded
from localrun.llama.embedding import EmbeddingContext
from localrun.llama.grammar import Matcher, TokenTable, check_grammar
from localrun.llama.library import describe, version
from localrun.llama.model import Model
from localrun.llama.sampler import MAX_BIAS, Sampler
from localrun.llama.scores import Scores
from localrun.llama.vocabulary import Vocabulary

__all__ = [
    "MAX_BIAS",
    "Batch",
    "Context",
    "ContextSettings",
    "Decoded",
    "EmbeddingContext",
    "Matcher",
    "Model",
    "Sampler",
    "Scores",
    "TokenTable",
    "Vocabulary",
    "check_grammar",
    "describe",
    "version",
]

"""Load llguidance through its C interface, once a process, and check its structs.

Its Python classes keep the interpreter's lock while they sort a vocabulary, 0.4 to 0.9 s in which
no stream of a runner gets a token. The same library carries a C interface whose calls, made through
ctypes, give the lock away.

As with llama.cpp two handles lead to one library: `low` gives the lock away, `short` keeps it.
"""

import ctypes
import functools
import importlib.util
from ctypes import POINTER, c_bool, c_char_p, c_int32, c_size_t, c_uint32, c_uint64, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localrun.errors import EngineMissing

_INSTALL = "pip install 'llguidance>=1.9,<2'"
_SPARE_BYTES = 256


class TokenizerInit(ctypes.Structure):
    """`LlgTokenizerInitV2`; it carries its own size, so a longer one of tomorrow is no danger."""

    _fields_ = [
        ("struct_size", c_size_t),
        ("vocab_size", c_uint32),
        ("tok_eos", c_uint32),
        ("token_lens", c_void_p),
        ("token_bytes", c_char_p),
        ("tokenizer_json", c_char_p),
        ("tokenize_assumes_string", c_bool),
        ("tokenize_fn", c_void_p),
        ("use_approximate_greedy_tokenize_fn", c_bool),
        ("tokenize_user_data", c_void_p),
        ("slices", POINTER(c_char_p)),
        ("tok_eos_extra", c_void_p),
        ("tok_eos_extra_count", c_uint32),
    ]


class _Limits(ctypes.Structure):
    _fields_ = [
        ("max_items_in_row", c_size_t),
        ("initial_lexer_fuel", c_uint64),
        ("step_lexer_fuel", c_uint64),
        ("step_max_items", c_size_t),
        ("max_lexer_states", c_size_t),
        ("max_grammar_size", c_size_t),
        ("precompute_large_lexemes", c_bool),
        ("verbose_errors", c_bool),
    ]


class ConstraintInit(ctypes.Structure):
    """`LlgConstraintInit`, with room for what a later version appends."""

    _fields_ = [
        ("tokenizer", c_void_p),
        ("log_buffer_level", c_uint32),
        ("log_stderr_level", c_uint32),
        ("ff_tokens_ok", c_bool),
        ("backtrack_ok", c_bool),
        ("limits", _Limits),
        ("spare", ctypes.c_uint8 * _SPARE_BYTES),
    ]


_LIMIT_DEFAULTS = {
    "max_items_in_row": 2000,
    "initial_lexer_fuel": 1_000_000,
    "step_lexer_fuel": 200_000,
    "step_max_items": 50_000,
    "max_lexer_states": 250_000,
    "max_grammar_size": 500_000,
    "precompute_large_lexemes": True,
    "verbose_errors": True,
}
"""What the library fills in: other values mean that its struct is not ours."""

_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "llg_new_tokenizer_v2": (c_void_p, [POINTER(TokenizerInit), c_char_p, c_size_t]),
    "llg_free_tokenizer": (None, [c_void_p]),
    "llg_constraint_init_set_defaults": (None, [POINTER(ConstraintInit), c_void_p]),
    "llg_new_matcher": (c_void_p, [POINTER(ConstraintInit), c_char_p, c_char_p]),
    "llg_free_matcher": (None, [c_void_p]),
    "llg_matcher_get_mask_byte_size": (c_size_t, [c_void_p]),
    "llg_matcher_compute_mask_into": (c_int32, [c_void_p, c_void_p, c_size_t]),
    "llg_matcher_consume_token": (c_int32, [c_void_p, c_uint32]),
    "llg_matcher_validate_tokens": (c_int32, [c_void_p, c_void_p, c_size_t]),
    "llg_matcher_is_stopped": (c_bool, [c_void_p]),
    "llg_matcher_get_error": (c_char_p, [c_void_p]),
}


@dataclass(frozen=True, slots=True)
class Guidance:
    """The loaded library: `low` gives the interpreter's lock away, `short` keeps it."""

    low: Any
    short: Any

    def constraint(self, tokenizer: int) -> ConstraintInit:
        """How a matcher over this tokenizer is made: it logs nothing, and its errors are short."""
        init = ConstraintInit()
        self.low.llg_constraint_init_set_defaults(ctypes.byref(init), tokenizer)
        init.log_stderr_level = init.log_buffer_level = 0
        init.limits.verbose_errors = False
        return init


@functools.cache
def guidance() -> Guidance:
    """Load the library on first use.

    Raises:
        EngineMissing: If llguidance is not installed or is not the one that we know.
    """
    path = _path()
    try:
        found = Guidance(_bound(ctypes.CDLL(str(path))), _bound(ctypes.PyDLL(str(path))))
    except (OSError, AttributeError) as error:
        raise EngineMissing(f"llguidance cannot be loaded: {error}", hint=_INSTALL) from error
    check_abi(found)
    return found


def _path() -> Path:
    spec = importlib.util.find_spec("llguidance")
    folders = [] if spec is None else list(spec.submodule_search_locations or ())
    for folder in folders:
        for path in sorted(Path(folder).glob("_lib.*")):
            if path.suffix in (".so", ".pyd", ".dylib"):
                return path
    raise EngineMissing("llguidance is not installed", hint=_INSTALL)


def _bound(library: Any) -> Any:
    for name, (restype, argtypes) in _FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = restype, argtypes
    return library


def check_abi(found: Guidance) -> None:
    """Raise EngineMissing unless the library fills in what its header says."""
    init = ConstraintInit()
    found.low.llg_constraint_init_set_defaults(ctypes.byref(init), None)
    for name, expected in _LIMIT_DEFAULTS.items():
        if (value := getattr(init.limits, name)) != expected:
            raise EngineMissing(
                f"this llguidance is not the known one: default {name} is {value}, not {expected}",
                hint=_INSTALL,
            )

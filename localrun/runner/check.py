"""What of a request may go near native code; anything else is refused here."""

import math
from typing import TYPE_CHECKING

from localrun.errors import BadRequest, InvalidOption, PromptTooLong
from localrun.llama import MAX_BIAS
from localrun.messages import Submit, unpack_tokens

if TYPE_CHECKING:
    from array import array

    from localrun.llama import Model

MAX_LOGPROBS = 64


def check_submit(request: Submit, prompt: "array[int]", model: "Model", n_ctx: int) -> None:
    """Raise unless the engine can run this request.

    Args:
        request: As it came.
        prompt: Its tokens.
        model: Whose vocabulary they are of.
        n_ctx: Tokens one sequence may hold.

    Raises:
        BadRequest: If tokens are missing, too many or foreign.
        InvalidOption: If an option is out of its range.
        PromptTooLong: If the prompt and one more token do not fit.
    """
    check_prompt(prompt, request.n_prompt, model.vocabulary.n_tokens)
    if not 0 <= request.n_ctx <= n_ctx:
        raise InvalidOption(f"num_ctx {request.n_ctx} is above the loaded {n_ctx}")
    window = request.n_ctx or n_ctx
    if len(prompt) >= window:
        raise PromptTooLong(len(prompt) + 1, window, model.n_ctx_train)
    _check_drawing(request, model.vocabulary.n_tokens)


def check_prompt(prompt: "array[int]", n_prompt: int, n_vocab: int) -> None:
    """Raise BadRequest unless these are the announced tokens, all of this vocabulary."""
    if len(prompt) != n_prompt:
        raise BadRequest(f"{len(prompt)} prompt tokens came, {n_prompt} were announced")
    if not prompt:
        raise BadRequest("the prompt is empty")
    if min(prompt) < 0 or max(prompt) >= n_vocab:
        raise BadRequest(f"a prompt token is not of this vocabulary (0 to {n_vocab - 1})")


def _check_drawing(request: Submit, n_vocab: int) -> None:
    if request.n_logprobs > MAX_LOGPROBS:
        raise InvalidOption(f"top_logprobs {request.n_logprobs} is more than {MAX_LOGPROBS}")
    for token, bias in request.logit_bias.items():
        if not 0 <= token < n_vocab:
            raise InvalidOption(f"logit_bias: token {token} is not of this vocabulary")
        if not math.isfinite(bias) or abs(bias) > MAX_BIAS:
            raise InvalidOption(f"logit_bias: {bias} is not in -{MAX_BIAS:g}..{MAX_BIAS:g}")
    reasoning = request.reasoning
    if reasoning is not None and len(reasoning.closing) % 4:
        raise BadRequest("the closing tokens of the reasoning are not whole")
    closing = unpack_tokens(reasoning.closing) if reasoning is not None else ()
    if any(not 0 <= token < n_vocab for token in (*request.preserved, *closing)):
        raise BadRequest(f"a special token is not of this vocabulary (0 to {n_vocab - 1})")

"""What a licence's short name stands for, in one line. Pure."""

_KNOWN = {
    "apache-2.0": "Apache License 2.0, https://www.apache.org/licenses/LICENSE-2.0",
    "mit": "MIT License, https://opensource.org/license/mit",
    "llama2": "Llama 2 Community License, https://ai.meta.com/llama/license/",
    "llama3": "Llama 3 Community License, https://www.llama.com/llama3/license/",
    "llama3.1": "Llama 3.1 Community License, https://www.llama.com/llama3_1/license/",
    "llama3.2": "Llama 3.2 Community License, https://www.llama.com/llama3_2/license/",
    "llama3.3": "Llama 3.3 Community License, https://www.llama.com/llama3_3/license/",
    "gemma": "Gemma Terms of Use, https://ai.google.dev/gemma/terms",
    "qwen": "Qwen License Agreement, https://huggingface.co/Qwen/Qwen2.5-72B-Instruct",
    "qwen-research": "Qwen Research License (not for commerce),"
    " https://huggingface.co/Qwen/Qwen2.5-3B-Instruct",
    "cc-by-nc-4.0": "Creative Commons BY-NC 4.0 (not for commerce),"
    " https://creativecommons.org/licenses/by-nc/4.0/",
    "bigcode-openrail-m": "BigCode OpenRAIL-M, https://huggingface.co/spaces/bigcode/license",
}


def describe_license(name: str, where: str) -> str:
    """The text that is stored with a model: what its licence is, and where the model came from.

    Args:
        name: Short name, as the source or the catalog says it; empty if nobody does.
        where: The source.
    """
    stated = _KNOWN.get(name.lower(), name) if name else "not stated by the source"
    return f"License: {stated}\nSource: {where}\n"

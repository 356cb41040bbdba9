"""Put a model file into a store under a name, without a pull."""

import hashlib
import json
import shutil
from pathlib import Path

from localrun.gguf import open_header
from localrun.names import parse_name
from localrun.store.library import Library, StoredModel
from localrun.store.manifest import (
    CONFIG_TYPE,
    LICENSE,
    MESSAGES,
    MODEL,
    PARAMS,
    SYSTEM,
    TEMPLATE,
    Layer,
    Manifest,
    ModelConfig,
    dump_config,
)


def store_model(root: Path, name: str, file: Path, **parts) -> StoredModel:
    """Add `file` as `name`. Parts: params, system, license, messages, template, capabilities."""
    library = Library(root)

    def put(media_type: str, content: bytes) -> Layer:
        return Layer(media_type, library.blobs.put(content), len(content))

    info = open_header(file).info
    digest = f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"
    blob = library.blobs.path(digest)
    blob.parent.mkdir(parents=True, exist_ok=True)
    if not blob.exists():
        shutil.copy(file, blob)
    config = ModelConfig(
        model_family=info.architecture,
        model_families=(info.architecture,),
        model_type="0.1M",
        file_type=info.file_type,
        context_length=info.n_ctx_train,
        embedding_length=info.n_embd,
        capabilities=tuple(parts.get("capabilities", ())),
    )
    layers = [Layer(MODEL, digest, file.stat().st_size)]
    if "params" in parts:
        layers.append(put(PARAMS, json.dumps(parts["params"]).encode()))
    if "messages" in parts:
        layers.append(put(MESSAGES, json.dumps(parts["messages"]).encode()))
    texts = (("system", SYSTEM), ("license", LICENSE), ("template", TEMPLATE))
    layers += [put(kind, parts[key].encode()) for key, kind in texts if key in parts]
    manifest = Manifest(put(CONFIG_TYPE, dump_config(config)), tuple(layers))
    return library.add(parse_name(name), manifest)

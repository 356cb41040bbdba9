"""Other programs' folders of models: Ollama's store, the Hub's cache, LM Studio's folder."""

import hashlib
import json
import shutil
from pathlib import Path

MODEL_LAYER = "application/vnd.ollama.image.model"


def ollama_model(root: Path, name: str, file: Path, digest: str = "", **texts: str) -> Path:
    """Put a model into Ollama's store as Ollama does; returns its weights' blob.

    Args:
        root: The store.
        name: `host/namespace/model/tag`, as the manifest's path.
        file: The GGUF, moved there.
        digest: 64 hex digits; empty hashes the file.
        texts: Further layers, such as `system`.
    """
    blobs = root / "blobs"
    blobs.mkdir(parents=True, exist_ok=True)

    def put(content: bytes, media_type: str) -> dict[str, object]:
        sha256 = hashlib.sha256(content).hexdigest()
        (blobs / f"sha256-{sha256}").write_bytes(content)
        return {"mediaType": media_type, "digest": f"sha256:{sha256}", "size": len(content)}

    sha256 = digest or hashlib.sha256(file.read_bytes()).hexdigest()
    size, blob = file.stat().st_size, blobs / f"sha256-{sha256}"
    shutil.move(file, blob)
    config = json.dumps({"model_format": "gguf", "model_family": "llama", "file_type": "F32"})
    layers = [{"mediaType": MODEL_LAYER, "digest": f"sha256:{sha256}", "size": size}]
    for kind, text in texts.items():
        layers.append(put(text.encode(), f"application/vnd.ollama.image.{kind}"))
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": put(config.encode(), "application/vnd.docker.container.image.v1+json"),
        "layers": layers,
    }
    path = root / "manifests" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(manifest, separators=(",", ":")) + "\n")
    return blob


def hub_file(
    cache: Path, repo: str, file: Path, *, revision: str = "a" * 40, sha256: str = ""
) -> Path:
    """Put a file into the Hub's cache as huggingface_hub does; returns the snapshot's link."""
    folder = cache / f"models--{repo.replace('/', '--')}"
    for name in ("blobs", "refs", f"snapshots/{revision}"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "main").write_text(revision)
    sha256 = sha256 or hashlib.sha256(file.read_bytes()).hexdigest()
    shutil.move(file, folder / "blobs" / sha256)
    link = folder / "snapshots" / revision / file.name
    link.symlink_to(Path("../../blobs") / sha256)
    return link

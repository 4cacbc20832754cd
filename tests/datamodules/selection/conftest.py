"""Patches to score, and a Hugging Face hub on this machine."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules.bicubic import downscale
from datamodules.pair import PairBatch

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CLOSED = "http://127.0.0.1:9"
SIDE = 48


@pytest.fixture(scope="session")
def patches() -> np.ndarray:
    """Of three photographs: smooth, textured and busy; noise, a flat patch, a hard edge; uint8 (12, 48, 48, 3)."""
    from skimage import data

    photographs = [data.astronaut(), data.coffee(), data.chelsea()]
    crops = [photo[top : top + SIDE, top : top + SIDE] for photo in photographs for top in (20, 110, 200)]
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    edge = np.zeros_like(noise)
    edge[:, SIDE // 2 :] = 255
    return np.stack([*crops, noise, np.full_like(noise, 93), edge])


@pytest.fixture(scope="session")
def batch() -> Callable[..., PairBatch]:
    """Makes a batch of uint8 (B, H, W, 3)."""

    def make(patches: np.ndarray, scale: int = 4) -> PairBatch:
        hr = torch.from_numpy(patches).permute(0, 3, 1, 2).contiguous()
        return PairBatch(downscale(hr, scale), hr, torch.arange(len(hr)))

    return make


@pytest.fixture
def no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """An empty cache, and a hub that refuses connections; call it with an address to set another hub."""
    from huggingface_hub import constants

    def set_hub(address: str) -> None:
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
        )

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    set_hub(CLOSED)
    return set_hub


@pytest.fixture
def hub(tmp_path: Path, no_hub: Callable[[str], None]) -> Iterator[Path]:
    """A folder whose files `owner/name/file` a hub serves; nothing else is to be had."""
    root = tmp_path / "served"

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = self.path.split("?")[0].strip("/").split("/")
            if parts[:2] == ["api", "models"] and (root / "/".join(parts[2:4])).is_dir():
                repo = root / "/".join(parts[2:4])
                names = sorted(path.relative_to(repo).as_posix() for path in repo.rglob("*") if path.is_file())
                tree = [
                    {"type": "file", "path": name, "size": (repo / name).stat().st_size, "oid": name} for name in names
                ]
                info = {"id": "/".join(parts[2:4]), "sha": COMMIT, "siblings": [{"rfilename": name} for name in names]}
                self._answer(json.dumps(tree if "tree" in parts[4:5] else info).encode())
            elif len(parts) >= 5 and (root / parts[0] / parts[1]).joinpath(*parts[4:]).is_file():
                self._answer((root / parts[0] / parts[1]).joinpath(*parts[4:]).read_bytes())
            else:
                self.send_error(404)

        do_HEAD = do_GET  # noqa: N815

        def _answer(self, content: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Not into the test's output."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    no_hub(f"http://127.0.0.1:{server.server_address[1]}")
    yield root
    server.shutdown()

"""Serves the page and runs the models' functions, for this machine alone."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any, cast

import torch
from torch import Tensor

from zoo.base import GenerativeModel
from zoo.demo.models import described, page_functions

__all__ = ["PAGE", "Demo", "serve"]

PAGE = {
    "index.html": "text/html; charset=utf-8",
    "demo.css": "text/css; charset=utf-8",
    "demo.js": "text/javascript; charset=utf-8",
    "backends.js": "text/javascript; charset=utf-8",
    "latents.js": "text/javascript; charset=utf-8",
}
"""Files of the page, with their types."""

MOST_BYTES, MOST_IMAGES = 16 * 2**20, 64
"""What one request may ask for."""


class Demo:
    """Models whose functions the page calls, one call at a time.

    Args:
        models: by name.
        data: names of the classes of their data sets, as far as they are known.

    Attributes:
        entries: what models.json says of each.
    """

    def __init__(self, models: Mapping[str, GenerativeModel], data: Mapping[str, str | None] | None = None) -> None:
        self.models = models
        self.functions = {slug: page_functions(model) for slug, model in models.items()}
        own = data or {}
        self.entries = [described(model, slug, own.get(slug)) for slug, model in models.items()]
        self._lock = threading.Lock()

    def run(self, request: Any) -> Tensor:
        """The first output of a function.

        Args:
            request: `model`, `function`, and `inputs`, each with its `dims` and `data`.

        Shape:
            Output: the function's, float32.

        Raises:
            ValueError: there is no such function, or the inputs are not its own.
        """
        if not isinstance(request, dict) or request.get("model") not in self.models:
            raise ValueError(f"no such model: there are {', '.join(self.models)}")
        slug, name = request["model"], request.get("function")
        known = self.functions[slug]
        if name not in known:
            raise ValueError(f"{slug} has no function {name!r}: it has {', '.join(known)}")
        given, function, model = request.get("inputs"), known[name], self.models[slug]
        if not isinstance(given, dict) or given.keys() != function.inputs.keys():
            raise ValueError(f"{name} takes the inputs {', '.join(function.inputs)}")
        like = function.draw(1, 0)
        inputs = {key: _tensor(key, value, like[key]) for key, value in given.items()}
        with self._lock, torch.inference_mode():
            found = function.call(model, **inputs)
        first: Tensor = found[0] if isinstance(found, tuple) else found
        return first.float().cpu()


def _tensor(name: str, value: Any, like: Tensor) -> Tensor:
    """An input, of the type and shape that the function's own inputs have."""
    if not isinstance(value, dict) or not isinstance(dims := value.get("dims"), list):
        raise ValueError(f"{name} needs dims and data")
    data = value.get("data")
    wanted = [*like.shape[1:]]
    if not dims or dims[1:] != wanted or not isinstance(dims[0], int) or not 1 <= dims[0] <= MOST_IMAGES:
        raise ValueError(f"{name} must have dims [1 to {MOST_IMAGES}, {', '.join(map(str, wanted))}], not {dims}")
    if not isinstance(data, list) or len(data) != math.prod(dims):
        raise ValueError(f"{name} needs {math.prod(dims)} numbers")
    try:
        return torch.tensor(data, dtype=torch.float64).to(like.device, like.dtype).view(dims)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} must be a list of numbers") from error


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, *args: Any, demo: Demo) -> None:
        self.demo = demo
        super().__init__(*args)

    def do_GET(self) -> None:
        if not self._is_local():
            return
        name = self.path.partition("?")[0].lstrip("/") or "index.html"
        if name == "models.json":
            self._answer(json.dumps({"backend": "server", "models": self.demo.entries}).encode(), "application/json")
        elif name in PAGE:
            self._answer((files("zoo.demo") / "page" / name).read_bytes(), PAGE[name])
        else:
            self._answer(b"there is no such file", "text/plain", HTTPStatus.NOT_FOUND)

    def do_POST(self) -> None:
        if not self._is_local():
            return
        length = self.headers.get("Content-Length", "")
        if self.path != "/run" or not length.isdigit() or int(length) > MOST_BYTES:
            self._answer(b"this takes calls of /run alone", "text/plain", HTTPStatus.BAD_REQUEST)
            return
        try:
            found = self.demo.run(json.loads(self.rfile.read(int(length))))
        except (ValueError, RuntimeError, IndexError) as error:
            self._answer(str(error).partition("\n")[0].encode(), "text/plain", HTTPStatus.BAD_REQUEST)
            return
        content = found.contiguous().numpy().astype("<f4").tobytes()
        self._answer(content, "application/octet-stream", shape=",".join(map(str, found.shape)))

    def _is_local(self) -> bool:
        """Refuse calls under another name, as pages of other sites make them once their name leads here."""
        port = cast(ThreadingHTTPServer, self.server).server_port
        if self.headers.get("Host") in (f"127.0.0.1:{port}", f"localhost:{port}"):
            return True
        self._answer(b"this server is for 127.0.0.1 alone", "text/plain", HTTPStatus.FORBIDDEN)
        return False

    def _answer(self, content: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK, shape: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        if shape:
            self.send_header("X-Shape", shape)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of calls that went well."""


def serve(demo: Demo, port: int = 0) -> ThreadingHTTPServer:
    """A server on 127.0.0.1 that is bound and has not started: call `serve_forever`.

    Args:
        demo: what it serves.
        port: its port; 0 takes a free one.

    Raises:
        OSError: the port is taken.
    """
    return ThreadingHTTPServer(("127.0.0.1", port), partial(_Handler, demo=demo))

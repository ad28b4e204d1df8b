"""`zoo demo`: a page on which checkpoints sample, walk, reconstruct and translate. Torch is imported late."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Any

import zoo
from zoo.cli.checkpoints import TRUST
from zoo.cli.usage import Parser, UsageError

__all__ = ["demo"]

USUAL = ("dcgan-emoji32", "vae-mnist28", "classifier-mnist28", "stargan-emoji64")
"""Checkpoints of the page where none is named."""


def demo(parser: Parser, arguments: list[str]) -> None:
    """Serve the page on 127.0.0.1 until the command is interrupted."""
    parser.add_argument("models", nargs="*", help="checkpoints (name, file or address) and folders of runs (a few)")
    parser.add_argument("--port", type=int, default=0, help="port of 127.0.0.1 (a free one)")
    parser.add_argument("--device", default="cpu", help="where the models run (cpu)")
    parser.add_argument("--no_open", action="store_true", help="open no browser")
    parser.add_argument("--trust", **TRUST)
    options = parser.parse_args(arguments)
    if not 0 <= options.port < 65536:
        raise UsageError(f"--port must be from 0 to 65535, not {options.port}")
    from zoo.demo.models import has_panels
    from zoo.demo.server import Demo, serve

    names = options.models or [name for name in USUAL if _is_here(name)]
    models = {name: zoo.load(_file(name), device=options.device, trust=options.trust) for name in names}
    shown = Demo(models, {name: _data(name) for name in names})
    for entry in shown.entries:
        if not has_panels(entry):
            raise UsageError(f"{entry['slug']} ({entry['class']}) has nothing that the page can show")
    try:
        server = serve(shown, options.port)
    except OSError as error:
        raise UsageError(
            f"--port {options.port} cannot be had ({error.strerror}): leave it out for a free one"
        ) from error
    address = f"http://127.0.0.1:{server.server_port}/"
    print(f"{', '.join(names)}: {address} (Ctrl+C ends it)", flush=True)
    if not options.no_open:
        webbrowser.open(address)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print()
    finally:
        server.server_close()


def _file(name: str) -> str:
    """A checkpoint as `zoo.load` takes it; of the folder of a run the last one."""
    last = Path(name).expanduser() / "checkpoints" / "last.ckpt"
    return str(last) if last.is_file() else name


def _is_here(name: str) -> bool:
    """Whether a checkpoint of the package is installed."""
    from zoo import pretrained

    try:
        pretrained.pull(name)
    except (LookupError, OSError):
        return False
    return True


def _data(name: str) -> str | None:
    """Name of the class of a checkpoint's data set."""
    from zoo import pretrained

    try:
        entry: dict[str, Any] = pretrained.entry_of(name)
    except (LookupError, OSError, ValueError):
        return None
    kind = (entry.get("data") or {}).get("class")
    return None if kind is None else str(kind).rpartition(".")[2]

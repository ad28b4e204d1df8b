"""Pretrained weights: safetensors files that say what they are, and their index.

A file holds the networks that the public inference API needs (`inference_networks`), and a header with the class, its
hyperparameters, the data, the measured values and a sum over the weights. Nothing is unpickled; only classes under
`zoo.` are built. The index `weights/index.json` is the one source of names, sums and values; cards are generated from
it. `index` and `card` import no torch.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib
import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zoo
from zoo.migrations import current_names

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from zoo.base import GenerativeModel

__all__ = ["card", "index", "list_pretrained", "load", "picture", "pull", "read", "save", "write"]

FORMAT = 1
"""Version of the layout of files; it grows when a published state-dict key is renamed."""
# Renamed state-dict keys by the format version that they were renamed in: (old prefix, new prefix).
MIGRATIONS: dict[int, list[tuple[str, str]]] = {}


def weights_folder() -> Path:
    """Where the files that come with the package lie."""
    return Path(str(files("zoo") / "weights"))


def index(folder: Path | None = None) -> dict[str, dict[str, Any]]:
    """All published checkpoints by name."""
    path = (folder or weights_folder()) / "index.json"
    result: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.exists() else {}
    return result


def list_pretrained() -> list[str]:
    """Names of all published checkpoints."""
    return sorted(index())


def entry_of(slug: str) -> dict[str, Any]:
    """Index entry of a checkpoint.

    Raises:
        LookupError: there is no such checkpoint; names the nearest.
    """
    known = index()
    if slug not in known:
        close = difflib.get_close_matches(slug, known, 1)
        hint = f"did you mean {close[0]!r}?" if close else "`zoo list` names them all"
        raise LookupError(f"there is no checkpoint or file {slug!r}: {hint}")
    return known[slug]


def card(slug: str) -> str:
    """The card of a checkpoint, as Markdown.

    Raises:
        LookupError: there is no such checkpoint; names the nearest.
    """
    entry_of(slug)
    return (weights_folder() / f"{slug}.md").read_text()


# Fetching ------------------------------------------------------------------------------------------------------------


def sha256(path: Path) -> str:
    """Sum of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_dir() -> Path:
    """Where fetched weights are kept: `$ZOO_HOME/weights`, else `~/.cache/generative-zoo/weights`."""
    home = os.environ.get("ZOO_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "generative-zoo")
    return Path(home).expanduser() / "weights"


def pull(slug: str) -> Path:
    """The file of a checkpoint, fetched if need be, its sum verified.

    Files that come with the package are used in place. Others are fetched once (`url`, `hf` or `wandb` in the index)
    into the cache; an interrupted transfer goes on where it stopped. `ZOO_OFFLINE=1` forbids fetching.

    Raises:
        LookupError: there is no such checkpoint.
        ValueError: the file is not the published one.
        OSError: it could not be fetched.
    """
    entry = entry_of(slug)
    path = weights_folder() / str(entry["file"])
    if not path.exists():
        path = cache_dir() / f"{entry['sha256'][:16]}-{entry['file']}"
        if not path.exists():
            _fetch(slug, entry, path)
    if (found := sha256(path)) != entry["sha256"]:
        raise ValueError(
            f"{path} is damaged: its sha256 is {found[:12]}..., published is {entry['sha256'][:12]}...; "
            "delete it and pull again, or install the package again"
        )
    return path


def _fetch(slug: str, entry: dict[str, Any], path: Path) -> None:
    from filelock import FileLock

    if os.environ.get("ZOO_OFFLINE", "0") not in ("", "0"):
        raise FileNotFoundError(
            f"{slug} is not in the cache ({path.parent}) and ZOO_OFFLINE is set: pull it once online"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_suffix(".lock")).acquire()
    except OSError as error:
        raise OSError(f"cannot write to {path.parent}: {error.strerror or error}; set ZOO_HOME elsewhere") from error
    with lock:
        if path.exists():  # another process has fetched it while this one waited
            return
        partial = path.with_suffix(".part")
        if "url" in entry:
            _download(entry["url"], partial)
        elif "hf" in entry or "wandb" in entry:
            _download_from_hub(slug, entry, partial)
        else:
            raise FileNotFoundError(f"{slug} is missing from the installation and has no address: install it again")
        if (found := sha256(partial)) != entry["sha256"]:
            partial.unlink()
            raise ValueError(f"what was fetched for {slug} is not the published file (sha256 {found[:12]}...)")
        os.replace(partial, path)


def _download_from_hub(slug: str, entry: dict[str, Any], partial: Path) -> None:
    """Fetch a file with the client of the Hugging Face Hub or of wandb, which resume and retry by themselves."""
    try:
        if "hf" in entry:
            fetched = Path(importlib.import_module("huggingface_hub").hf_hub_download(**entry["hf"]))
        else:
            artifact = importlib.import_module("wandb").Api().artifact(entry["wandb"])
            fetched = Path(artifact.download(str(partial.with_suffix(".artifact")))) / entry["file"]
        shutil.copyfile(fetched, partial)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{slug} needs {error.name}: pip install 'generative-zoo[hub]'") from error
    except Exception as error:  # the clients have exceptions of their own, and many
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise OSError(f"cannot fetch {slug} from {entry.get('hf') or entry['wandb']}: {reason[0]}") from error
    finally:
        shutil.rmtree(partial.with_suffix(".artifact"), ignore_errors=True)


def _download(url: str, partial: Path) -> None:
    """Fetch a file, from where an earlier attempt stopped."""
    # Here, because `zoo list` needs none of it and shall answer at once.
    import http.client
    import urllib.error

    reason: object = ""
    for attempt in range(5):
        time.sleep(0.2 * attempt)
        try:
            if not (reason := _continue(url, partial)):
                return
        except urllib.error.HTTPError as error:
            if error.code == 416:  # nothing is left to fetch
                return
            raise OSError(f"cannot fetch {url}: {error}") from error
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            reason = getattr(error, "reason", error)
        except OSError as error:  # of the disk, mostly
            reason = error.strerror or error
            raise OSError(f"cannot fetch {url} into {partial.parent}: {reason}; what has come is kept") from error
    raise OSError(f"cannot fetch {url}: {reason}; what has come is kept, try again")


def _continue(url: str, partial: Path) -> str:
    """One attempt; returns why it is not complete."""
    import urllib.request

    from tqdm import tqdm

    have = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=60) as response:
        resumed = url.startswith("http") and response.status == 206
        total = int(response.headers.get("Content-Length") or 0) + (have if resumed else 0)
        with (
            open(partial, "ab" if resumed else "wb") as file,
            tqdm(total=total or None, initial=file.tell(), unit="B", unit_scale=True, desc=partial.stem) as bar,
        ):
            while block := response.read(2**16):
                file.write(block)
                bar.update(len(block))
            file.flush()
            os.fsync(file.fileno())
    size = partial.stat().st_size
    return f"stopped at {size} of {total} bytes" if total and size != total else ""


# Reading -------------------------------------------------------------------------------------------------------------


def load(slug_or_path: str | os.PathLike[str], *, device: str | torch.device = "cpu") -> GenerativeModel:
    """A pretrained model, in evaluation mode.

    Args:
        slug_or_path: name of a published checkpoint, a `.safetensors` file, or a `.ckpt` of an own run.
        device: where the model goes.

    Returns:
        The model. Networks that the file does not hold (such as the discriminator) are untrained; what would need an
        `optional_networks` of the model that is not there raises a ValueError.

    Raises:
        LookupError: there is no such checkpoint or file.
        ValueError: the file is damaged, is a pickle, or does not fit its class.
    """
    path = Path(slug_or_path)
    if path.suffix not in (".safetensors", ".ckpt", ".pth", ".pt", ".bin") and not path.is_file():
        if (path / "checkpoints").is_dir():
            raise IsADirectoryError(f"{path} is a run folder: take its {path / 'checkpoints' / 'last.ckpt'}")
        path = pull(str(slug_or_path))
    elif not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    model = _from_checkpoint(path) if path.suffix == ".ckpt" else _from_safetensors(path)
    return model.to(device).eval()


def _from_safetensors(path: Path) -> GenerativeModel:
    header, tensors = read(path)
    model = _build(header["class"], header["hparams"], path)
    prefixes = tuple(f"{name}." for name in header["networks"])
    own = model.state_dict()
    expected = {key for key in own if key.startswith(prefixes)}
    complaint = f"{path} is not a checkpoint of this {header['class']}"
    if absent := sorted({*model.inference_networks} - {*model.optional_networks, *header["networks"]}):
        raise ValueError(f"{complaint}: it does not hold the network {absent[0]!r}")
    model.available_networks = tuple(header["networks"])
    if wrong := sorted(expected ^ tensors.keys()):
        what = "lacks" if wrong[0] in expected else "holds an unknown"
        raise ValueError(f"{complaint}: it {what} {wrong[0]}")
    for key, value in tensors.items():
        if value.shape != own[key].shape:
            raise ValueError(f"{complaint}: {key} has shape {tuple(value.shape)}, expected is {tuple(own[key].shape)}")
        own[key].copy_(value)
    return model


def _from_checkpoint(path: Path) -> GenerativeModel:
    from zoo.loop import AtomicCheckpointIO

    saved = AtomicCheckpointIO().load_checkpoint(path)
    saved = saved if isinstance(saved, dict) else {}
    name = saved.get("zoo", {}).get("class", "")
    if not name or not {"hyper_parameters", "state_dict"} <= saved.keys():
        raise ValueError(f"{path} is no checkpoint of a run of this package (it names no class)")
    model = _build(name, {k: v for k, v in saved["hyper_parameters"].items() if not k.startswith("_")}, path)
    try:
        model.load_state_dict(saved["state_dict"])
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit {name}: {str(error).splitlines()[-1].strip()}") from error
    return model


def read(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Header and tensors of a file; keys of earlier formats are renamed.

    Raises:
        ValueError: the file is damaged, is a pickle, or was written by something else.
    """
    import safetensors

    try:
        with safetensors.safe_open(path, "pt") as content:
            metadata = content.metadata() or {}
            tensors = {key: content.get_tensor(key) for key in content.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        with open(path, "rb") as file:
            start = file.read(2)
        if start == b"PK" or start[:1] == b"\x80":
            raise ValueError(
                f"{path} is a pickle, which could run any code, and was not opened: convert it with `zoo import`"
            ) from None
        raise ValueError(f"{path} is damaged or no safetensors file ({error}): fetch it again") from error
    try:
        header: dict[str, Any] = current_names(json.loads(metadata["zoo"]))
        version = int(header["format"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} has no header of this package: it was written by something else") from error
    if version > FORMAT:
        raise ValueError(f"{path} was written by a newer version (format {version}): upgrade generative-zoo")
    kinds = {"class": str, "hparams": dict, "networks": list, "sum": str}
    if wrong := [key for key, kind in kinds.items() if not isinstance(header.get(key), kind)]:
        raise ValueError(f"{path} is damaged: its header has no valid {wrong[0]!r}")
    if header["sum"] != _sum(tensors):
        raise ValueError(f"{path} is damaged: its weights do not have the sum that its header states")
    for later in range(version + 1, FORMAT + 1):
        for old, new in MIGRATIONS.get(later, []):
            tensors = {new + k.removeprefix(old) if k.startswith(old) else k: v for k, v in tensors.items()}
    return header, tensors


def _sum(tensors: Mapping[str, torch.Tensor]) -> str:
    """Sum over names, types, shapes and values of weights."""
    import torch

    result = hashlib.sha256()
    for key, value in sorted(tensors.items()):
        result.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
        result.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return result.hexdigest()


def _build(name: str, hparams: dict[str, Any], path: Path) -> GenerativeModel:
    import torch

    from zoo.base import GenerativeModel

    module, _, attribute = name.rpartition(".")
    if not (module.startswith("zoo.") and all(part.isidentifier() for part in module.split("."))):
        raise ValueError(f"{path} asks for the class {name!r}; only classes under 'zoo.' are built")
    try:
        kind = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{path} asks for the class {name!r}, which this version does not have") from error
    if not (isinstance(kind, type) and issubclass(kind, GenerativeModel)):
        raise ValueError(f"{path} asks for {name!r}, which is no model")
    if "compile" in hparams:  # a matter of the machine that trained
        hparams = hparams | {"compile": False}
    with torch.random.fork_rng(devices=[]):  # building draws initial weights: the caller's random state stays
        try:
            return kind(**hparams)
        except (TypeError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{path} has hyperparameters that {name} does not take: {reason}") from error


# Writing -------------------------------------------------------------------------------------------------------------


def save(
    model: GenerativeModel,
    path: Path,
    *,
    networks: Sequence[str] | None = None,
    half: bool = False,
    information: dict[str, Any] | None = None,
) -> None:
    """Write a model as a safetensors file that `load` reads.

    Args:
        model: the model.
        path: where it goes.
        networks: names of the submodules that are kept; by default the model's `available_networks`, or all that have
            weights.
        half: store parameters in float16; buffers, such as running statistics, stay as they are.
        information: further fields of the header.

    Raises:
        ValueError: there is no such network.
        OSError: it could not be written; an earlier file is unchanged.
    """
    import torch
    from safetensors.torch import save as serialise

    known = [name for name, child in model.named_children() if child.state_dict()]
    kept = list(networks or model.available_networks or known)
    if unknown := sorted(set(kept) - set(known)):
        raise ValueError(f"{type(model).__name__} has no network {unknown[0]!r}: take of {', '.join(known)}")
    prefixes = tuple(f"{name}." for name in kept)
    parameters = {name for name, _ in model.named_parameters()}
    tensors = {
        # Copies, so that weights which two networks share are written for both.
        key: value.detach()
        .to("cpu", torch.float16 if half and key in parameters else value.dtype)
        .clone(memory_format=torch.contiguous_format)
        for key, value in model.state_dict().items()
        if key.startswith(prefixes)
    }
    header = {
        "format": FORMAT,
        "class": f"{type(model).__module__}.{type(model).__qualname__}",
        "hparams": json.loads(json.dumps(dict(model.hparams))),
        "networks": kept,
        "sum": _sum(tensors),
        "versions": {"generative-zoo": zoo.__version__, "torch": str(torch.__version__)},
        **(information or {}),
    }
    write(path, serialise(tensors, {"zoo": json.dumps(header)}))


def write(path: Path, content: bytes) -> None:
    """Write a file that is whole or absent.

    Raises:
        OSError: it could not be written; an earlier file is unchanged.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise OSError(f"cannot write {path}: {error.strerror or error}") from error


def picture(images: torch.Tensor, columns: int, gap: int = 2) -> Image.Image:
    """Images side by side on white.

    Args:
        images: values in [-1, 1].
        columns: images per row.
        gap: white pixels between and around them.

    Shape:
        images: (N, 1 or 3, H, W).
    """
    import torch
    from PIL import Image

    levels = ((images.detach().float().cpu() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    levels = levels.expand(-1, 3, -1, -1)
    n, _, height, width = levels.shape
    rows = -(-n // columns)
    sheet = torch.full((3, rows * (height + gap) + gap, columns * (width + gap) + gap), 255, dtype=torch.uint8)
    for i, image in enumerate(levels):
        top, left = (i // columns) * (height + gap) + gap, (i % columns) * (width + gap) + gap
        sheet[:, top : top + height, left : left + width] = image
    return Image.fromarray(sheet.permute(1, 2, 0).numpy())

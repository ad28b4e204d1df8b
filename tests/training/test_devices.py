"""What devices differ in, as far as a CPU can show it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.backends import cudnn
from torchmetrics import Metric

from tests.contract import Data, trainer
from tests.fake_cuda import on_fake_cuda
from tests.models import test_dcgan
from zoo.callbacks.measures import evaluation
from zoo.callbacks.metrics.likelihood import LikelihoodBound
from zoo.callbacks.metrics.paired import PairedSimilarity
from zoo.engine import devices, loop

matmul: Any = torch.backends.cuda.matmul


def settings() -> tuple[Any, ...]:
    """How products are computed."""
    precisions = cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision, matmul.fp32_precision  # type: ignore[attr-defined]
    return cudnn.benchmark, cudnn.deterministic, *precisions, torch.get_float32_matmul_precision()


@pytest.mark.parametrize("products", ["highest", "high"])
def test_exact_kernels_are_exact_readable_and_leave_all_as_it_was(products: str) -> None:
    torch.set_float32_matmul_precision(products)
    chosen = settings()
    try:
        with devices.exact_kernels():
            assert settings() == (False, True, "ieee", "ieee", "ieee", "highest")
            # torch's older names of the settings, which an extractor may read.
            assert not matmul.allow_tf32
            with cudnn.flags(enabled=True, allow_tf32=False):
                pass
        assert settings() == chosen
        with pytest.raises(ZeroDivisionError), devices.exact_kernels():
            _ = 1 / 0
        assert settings() == chosen
        assert cudnn.allow_tf32
    finally:
        torch.set_float32_matmul_precision("highest")


def test_exact_kernels_leave_a_choice_by_the_newer_names() -> None:
    conv: Any = cudnn.conv  # type: ignore[attr-defined]
    conv.fp32_precision = "ieee"
    try:
        before = settings()
        with devices.exact_kernels():
            assert not cudnn.allow_tf32
        assert settings() == before
    finally:
        conv.fp32_precision = "tf32"


def test_a_fit_on_cuda_multiplies_as_it_convolves(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device is a CPU that says that it is another."""
    seen: list[str] = []
    monkeypatch.setattr(loop, "tf32_products", lambda device: devices.tf32_products(torch.device("cuda")))

    case = test_dcgan.TestDCGAN()
    model = case.tiny()
    model.on_train_batch_start = lambda *_: seen.append(torch.get_float32_matmul_precision())  # type: ignore[method-assign]
    trainer().fit(model, datamodule=Data([case.batch(4)]))
    model.on_train_batch_start = lambda *_: 1 / 0  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        trainer().fit(model, datamodule=Data([case.batch(4)]))
    assert seen == ["high"]
    assert torch.get_float32_matmul_precision() == "highest"
    cudnn.allow_tf32 = False
    try:
        with devices.tf32_products(torch.device("cuda")):
            assert torch.get_float32_matmul_precision() == "highest"
    finally:
        cudnn.allow_tf32 = True


def test_a_cpu_is_left_alone() -> None:
    with devices.tf32_products(torch.device("cpu")):
        assert torch.get_float32_matmul_precision() == "highest"


def test_what_has_float64() -> None:
    assert [devices.has_float64(place) for place in (None, "cpu", "cuda", "mps")] == [True, True, True, False]
    assert devices.double(torch.ones(2)).dtype == torch.float64


@pytest.mark.parametrize("made", [LikelihoodBound("elbo"), PairedSimilarity("l1")])
def test_measures_on_a_gpu_without_float64_sum_on_the_cpu(made: Metric, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation.devices, "has_float64", lambda place: torch.device(place).type == "cpu")
    at = evaluation.Evaluation("any", torch.nn.Linear(1, 1), None)
    at.device = torch.device("cuda")
    with on_fake_cuda(has_float64=False):
        metric = at.placed(made)
        images = torch.zeros(2, 3, 16, 16, device="cuda")
        metric.update(*([images] * 2 if isinstance(made, PairedSimilarity) else [images[:, 0, 0]]))
        assert metric.device.type == "cpu"
        metric.compute()


@pytest.mark.parametrize(("machine", "multiplies"), [("x86_64", True), ("AMD64", False), ("aarch64", True)])
def test_only_cpus_without_products_compute_bf16_in_software(
    machine: str, multiplies: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_x86 = machine != "aarch64"
    monkeypatch.setattr(devices.platform, "machine", lambda: machine)
    # On x86 without AVX512-BF16, oneDNN says yes all the same.
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: multiplies or is_x86)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: multiplies and is_x86)
    assert devices.slow_in_bf16(torch.device("cpu")) is not multiplies
    assert not devices.slow_in_bf16(torch.device("cuda"))


def test_a_device_is_called_by_its_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("cuda", "xpu"):
        monkeypatch.setattr(getattr(torch, kind), "get_device_name", lambda device, kind=kind: f"{kind} of {device}")
        assert devices.name_of(f"{kind}:1") == f"{kind} of {kind}:1"
    cpu = devices.name_of("cpu")
    assert cpu.startswith(devices.processor())
    assert devices.name_of("mps") not in (cpu, devices.processor())

"""Distributed training of models with several networks: one gradient reduction per optimizer step.

DistributedDataParallel ties its reductions to the backward pass of one wrapped module. An adversarial step breaks the
assumptions behind that: several backward passes over different parts, gradients of gradients, networks that rest in
some steps or grow. `MultiNetStrategy` (`strategy="ddp_nets"`) wraps nothing. It averages the gradients of one
optimizer, in flat buckets, just before that optimizer steps; so every way of computing gradients is right, gradient
accumulation needs no special case, and each gradient crosses the network once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.distributed as dist
from lightning.fabric.utilities.distributed import _distributed_is_initialized
from lightning.fabric.utilities.imports import _IS_INTERACTIVE
from lightning.pytorch import LightningModule
from lightning.pytorch.strategies import DDPStrategy, StrategyRegistry
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from zoo.engine.cross_rank import CrossRankSync
from zoo.engine.devices import upload
from zoo.engine.restarts import join_after_restart
from zoo.engine.stopping import rank_timeout

__all__ = ["MultiNetStrategy"]


class MultiNetStrategy(DDPStrategy):
    """Data-parallel training with one gradient reduction per optimizer step (`strategy="ddp_nets"`).

    Models with automatic optimization get ordinary DistributedDataParallel, unchanged. For the others (manual
    optimization) no module is wrapped: gradients are averaged over the ranks between the last backward pass and the
    optimizer's step, before gradients are unscaled and clipped. A parameter that has no gradient on some ranks counts
    as zero there; one that has none on any rank stays without.

    Args:
        bucket_mb: size of the flat buffers in which gradients are averaged, in MiB.
        kwargs: passed to Lightning's DDPStrategy; `timeout`, how long ranks wait for each other, is
            `ZOO_RANK_TIMEOUT` in seconds or half an hour.
    """

    strategy_name = "ddp_nets"

    def __init__(self, *args: Any, bucket_mb: float = 4, **kwargs: Any) -> None:
        super().__init__(*args, **{"timeout": rank_timeout(), **kwargs})
        self._bucket_bytes = int(bucket_mb * 2**20)
        self._to_reduce: set[int] = set()  # ids of the optimizers whose gradients changed since their last reduction

    def _configure_launcher(self) -> None:
        """In a notebook, which no other process can run as a script, start the processes by fork."""
        if self._start_method == "popen" and _IS_INTERACTIVE:
            self._start_method = "fork"
        super()._configure_launcher()

    @property
    def _wraps_nothing(self) -> bool:
        module = self.lightning_module
        return module is not None and not module.automatic_optimization

    def setup_distributed(self) -> None:
        """Join the other processes, those of this attempt if torchrun has started them again."""
        self.set_world_ranks()
        options = {} if self.root_device.type == "cpu" else {"device_id": self.root_device}
        backend = self._get_process_group_backend()
        join_after_restart(backend, self.global_rank, self.world_size, self._timeout or rank_timeout(), **options)
        super().setup_distributed()

    def setup(self, trainer: Any) -> None:
        """Replace torch's SyncBatchNorm, which refuses the CPU, by ours; then set up as usual."""
        if self._layer_sync is not None:
            self._layer_sync = CrossRankSync()
        super().setup(trainer)

    def configure_ddp(self) -> None:
        """Start all ranks from rank zero's weights; wrap only models with automatic optimization."""
        if not self._wraps_nothing:
            super().configure_ddp()
            return
        self._broadcast_states(cast(nn.Module, self.model))

    @staticmethod
    @torch.no_grad()
    def _broadcast_states(module: nn.Module) -> None:
        for tensor in module.state_dict(keep_vars=True).values():
            if isinstance(tensor, Tensor):
                # A contiguous copy: collectives refuse channels_last memory.
                flat = tensor.detach().contiguous()
                dist.broadcast(flat, 0)
                tensor.detach().copy_(flat)

    def post_backward(self, closure_loss: Tensor) -> None:
        """Remember that gradients changed."""
        super().post_backward(closure_loss)
        if self._wraps_nothing:
            self._to_reduce = {id(optimizer) for optimizer in self.optimizers}

    def optimizer_step(
        self,
        optimizer: Optimizer,
        closure: Callable[[], Any],
        model: LightningModule | nn.Module | None = None,
        **kwargs: Any,
    ) -> Any:
        """Average the optimizer's gradients over the ranks, then step."""
        if not self._wraps_nothing:
            return super().optimizer_step(optimizer, closure, model, **kwargs)

        def closure_and_reduce() -> Any:
            # Precision plugins call the closure before they unscale gradients and before `on_before_optimizer_step`,
            # where gradients are clipped: both then see the average.
            result = closure()
            self.reduce_gradients(optimizer)
            return result

        return super().optimizer_step(optimizer, closure_and_reduce, model, **kwargs)

    @torch.no_grad()
    def reduce_gradients(self, optimizer: Optimizer) -> None:
        """Average the gradients of one optimizer's parameters over the ranks, at most once per change.

        Args:
            optimizer: the optimizer about to step.
        """
        if id(optimizer) not in self._to_reduce:
            return
        self._to_reduce.discard(id(optimizer))
        reductions = [
            (dist.all_reduce(buffer, async_op=True), bucket, present, buffer)
            for bucket, present, buffer in self._buckets(optimizer)
        ]
        world = dist.get_world_size()
        for handle, bucket, present, buffer in reductions:
            handle.wait()
            buffer.div_(world)
            *means, flags = torch.split(buffer, [*(p.numel() for p in bucket), len(bucket)])
            pairs = [(p.grad, mean.view_as(p)) for p, mean in zip(bucket, means, strict=True) if p.grad is not None]
            if pairs:
                torch._foreach_copy_([grad for grad, _ in pairs], [mean for _, mean in pairs])
            if not all(present):  # the only read by the host, and only where gradients are missing
                for p, mean, here, share in zip(bucket, means, present, flags.tolist(), strict=True):
                    if not here and share:
                        p.grad = mean.view_as(p).clone()

    def _buckets(self, optimizer: Optimizer) -> list[tuple[list[nn.Parameter], list[bool], Tensor]]:
        """Flat buffers of gradients: (parameters, whether each has a gradient here, buffer).

        The layout depends on the parameters alone, so it is the same on every rank; which gradients exist travels at
        the end of each buffer.
        """
        groups: dict[tuple[torch.device, torch.dtype], list[nn.Parameter]] = {}
        for group in optimizer.param_groups:
            for p in group["params"]:
                if p.requires_grad:
                    groups.setdefault((p.device, p.dtype), []).append(p)
        buckets: list[list[nn.Parameter]] = []
        for parameters in groups.values():
            size = self._bucket_bytes + 1
            for p in parameters:
                size += p.numel() * p.element_size()
                if size > self._bucket_bytes:
                    buckets.append([])
                    size = p.numel() * p.element_size()
                buckets[-1].append(p)
        result = []
        for bucket in buckets:
            present = [p.grad is not None for p in bucket]
            parts = [(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in bucket]
            flags = upload(torch.tensor(present, dtype=bucket[0].dtype), bucket[0].device)
            result.append((bucket, present, torch.cat([*parts, flags])))
        return result

    @torch.no_grad()
    def average_buffers(self) -> None:
        """Average BatchNorm's running statistics over the ranks.

        Called once at the end of every training batch and nowhere else: at three ranks the average of three equal
        float32 numbers need not be that number, so a second call would change the run.
        """
        if self.lightning_module is None or not self._wraps_nothing or not _distributed_is_initialized():
            return
        buffers = [
            buffer
            for module in self.lightning_module.modules()
            if isinstance(module, _BatchNorm) and not isinstance(module, nn.SyncBatchNorm) and module.training
            for buffer in (module.running_mean, module.running_var)
            if buffer is not None
        ]
        if not buffers:
            return
        flat = torch.cat([buffer.reshape(-1) for buffer in buffers])
        dist.all_reduce(flat)
        flat.div_(dist.get_world_size())
        means = torch.split(flat, [buffer.numel() for buffer in buffers])
        torch._foreach_copy_(buffers, [mean.view_as(buffer) for buffer, mean in zip(buffers, means, strict=True)])

    @classmethod
    def register_strategies(cls, strategy_registry: Any) -> None:
        """Register `ddp_nets` and the variants that start processes by spawn and fork."""
        for name, start_method in (("ddp_nets", "popen"), ("ddp_nets_spawn", "spawn"), ("ddp_nets_fork", "fork")):
            strategy_registry.register(
                name,
                cls,
                description=f"one gradient reduction per optimizer step, processes started by {start_method}",
                start_method=start_method,
            )


if "ddp_nets" not in StrategyRegistry:
    MultiNetStrategy.register_strategies(StrategyRegistry)

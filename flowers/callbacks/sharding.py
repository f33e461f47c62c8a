"""Training a network whose gradients and optimizer do not fit on a GPU beside its weights."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torch.distributed.constants import default_pg_timeout
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from flowers.callbacks.freeze import FreezeBackbone
from flowers.callbacks.tensorboard import LogToTensorBoard
from flowers.models import split_stages
from flowers.tasks import ClassificationTask


class ShardedStrategy(DDPStrategy):
    """DDP whose processes each keep a part of the weights, gradients and optimizer's state, by torch's FSDP2.

    Checkpoints are those of any other run: whole, and with the optimizer's state in torch's own order. A training can
    begin with this strategy and go on without it, and the other way round. To validate, and for the other verbs, every
    process has all weights, but no gradients and nothing of the optimizer. Lightning's ``FSDPStrategy`` flattens
    parameters, so that norms cannot be told from weights nor blocks by their size; its ``ModelParallelStrategy``
    takes the numbers in an optimizer's state for the network's order, which is not that of parameter groups.

    Args:
        min_parameters: Parameters of a block, from which on it is gathered by itself; what is smaller is gathered with
            what stands outside of all blocks, since to wait for it would cost more than it takes.
        timeout: How long a process waits for the others.
    """

    def __init__(self, min_parameters: int = 1_000_000, timeout: timedelta = default_pg_timeout) -> None:
        super().__init__(timeout=timeout)  # DDP's other options mean nothing here
        self.min_parameters = min_parameters

    def check(self, task: ClassificationTask, freeze: FreezeBackbone, log: LogToTensorBoard) -> None:
        """Say what does not go together, before any work.

        Raises:
            ValueError: Something does not.
        """
        beside = f"beside --trainer.strategy {type(self).__name__}"
        if task.ema_decay is not None:
            raise ValueError(f"--model.ema_decay: expected null {beside}, the average would not be sharded")
        if freeze.unfreeze_epoch is None:
            raise ValueError(f"--freeze.unfreeze_epoch: expected a number {beside}, a head alone needs no sharding")
        if log.graph:
            raise ValueError(f"--tensorboard.graph: expected false {beside}, no process has the whole network")

    def configure_ddp(self) -> None:
        """Shard the blocks of the backbone one by one, and the rest of the network together."""
        task = self.lightning_module
        assert isinstance(task, ClassificationTask)
        net = task.net.to(memory_format=torch.contiguous_format)  # FSDP2 takes no other
        mesh = init_device_mesh(self.root_device.type, (self.world_size,))
        for block in [block for stage in split_stages(net.backbone, 1) for block in stage.blocks] + [net]:
            if block is net or _num_parameters(block) >= self.min_parameters:
                fully_shard(block, mesh=mesh, reshard_after_forward=True)

    def on_validation_start(self) -> None:
        """Gather the weights once for all batches: processes with one batch fewer would be missed at the last.

        The statistics of batch norm become the first process's, which are what a checkpoint has; DDP does that too.
        """
        assert self.lightning_module is not None
        for buffer in self.lightning_module.buffers():
            torch.distributed.broadcast(buffer, 0)
        for block in self._blocks():
            block.set_reshard_after_forward(False, recurse=False)
            block.unshard()

    def on_validation_end(self) -> None:
        """Keep the own part only, or the flags that freeze would be those of the gathered parameters."""
        for block in self._blocks():
            block.set_reshard_after_forward(True, recurse=False)
            block.reshard()

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Return the whole state dict in the first process, the own part of it in the others."""
        return {name: self._whole(value) for name, value in super().lightning_module_state_dict().items()}

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return the whole state of an optimizer in the first process, the own part of it in the others."""
        found: Mapping[str, Any] = super().optimizer_state(optimizer)
        state = {
            number: {name: self._whole(value) for name, value in values.items()}
            for number, values in found["state"].items()
        }
        return {**found, "state": state}

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Restore the optimizers, each process its own part."""
        states = []
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            # torch numbers the parameters in the order of the groups.
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            sharded = {number: _as(parameters[number], values) for number, values in state["state"].items()}
            states.append(state | {"state": sharded})
        super().load_optimizer_state_dict({"optimizer_states": states})

    def _blocks(self) -> list[FSDPModule]:
        assert self.lightning_module is not None
        return [module for module in self.lightning_module.modules() if isinstance(module, FSDPModule)]

    def _whole(self, value: Any) -> Any:  # noqa: ANN401
        if not isinstance(value, DTensor):
            return value
        whole = value.full_tensor()  # all processes take part
        return whole.cpu() if self.is_global_zero else value


def _as(parameter: DTensor, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what an optimizer notes of a parameter, sharded like it; but for the number of steps."""
    mesh, placements = parameter.device_mesh, parameter.placements
    return {
        name: distribute_tensor(value, mesh, placements) if value.shape == parameter.shape else value
        for name, value in values.items()
    }


def _num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())

"""Between the student's and the teacher's processes: requests through a store, tensors through a group of all ranks.

Every teacher rank sees every request, in one order. Tensors go straight from rank to rank, NCCL between GPUs and gloo
otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from .process_groups import Launch

FOREVER = timedelta(days=365)
"""The watchdog ends a run whose other side is gone, so waiting for work needs no time limit."""
TENSORS_PER_REQUEST = 8


def _group(launch: Launch, device: torch.device) -> Any:
    """A process group of all ranks of the launch, beside the default group that each side has."""
    store = dist.PrefixStore("link", launch.store)
    if device.type == "cuda":
        return dist.ProcessGroupNCCL(store, launch.rank, launch.size, dist.ProcessGroupNCCL.Options())
    return dist.ProcessGroupGloo(store, launch.rank, launch.size, FOREVER)


class PendingTransfer:
    """A tensor on its way; `wait` gives it once it has left, or arrived."""

    def __init__(self, tensor: Tensor, work: Any) -> None:
        self.tensor, self.work = tensor, work

    def wait(self) -> Tensor:
        self.work.wait()
        return self.tensor


class TeacherLink:
    """One end of the link. Ranks are those of the whole launch."""

    def __init__(self, launch: Launch, device: torch.device) -> None:
        self.launch, self.device = launch, device
        self.store = launch.store
        self.group = _group(launch, device)

    def ask(self, kind: str, **details: Any) -> int:
        """Puts a request to all teacher ranks and returns its number, under which tensors and replies go."""
        number = self.store.add("requests", 1)
        request = {"kind": kind, "number": number, "source": self.launch.rank, **details}
        self.store.set(f"request/{number}", json.dumps(request))
        return number

    def shutdown(self) -> None:
        """Lets the teacher's processes end; to be called by the student's main process after the last request."""
        self.ask("stop")

    def requests(self) -> Iterator[dict[str, Any]]:
        """Teacher's end: the requests in their order, waiting for the next one for as long as it takes."""
        number = 0
        while True:
            number += 1
            key = f"request/{number}"
            self.store.wait([key], FOREVER)
            request = json.loads(self.store.get(key))
            if self.store.add(f"{key}/read", 1) == self.launch.num_teachers:
                self.store.delete_key(key)
                self.store.delete_key(f"{key}/read")
            yield request

    def reply(self, number: int, value: Any) -> None:
        """Teacher's end: this rank's answer to a request, of any JSON type."""
        self.store.set(f"reply/{number}/{self.launch.rank}", json.dumps(value))

    def replies(self, number: int, ranks: Sequence[int]) -> list[Any]:
        """The answers of these teacher ranks to a request, once they are all there."""
        keys = [f"reply/{number}/{rank}" for rank in ranks]
        self.store.wait(keys, FOREVER)
        return [json.loads(self.store.get(key)) for key in keys]

    def send(self, tensor: Tensor, rank: int, number: int, index: int = 0) -> PendingTransfer:
        """Starts sending the `index`-th tensor of request `number`; at most TENSORS_PER_REQUEST each way."""
        tensor = tensor.to(self.device).contiguous()
        return PendingTransfer(tensor, self.group.send([tensor], rank, number * TENSORS_PER_REQUEST + index))

    def receive(
        self, shape: Sequence[int], dtype: torch.dtype, rank: int, number: int, index: int = 0
    ) -> PendingTransfer:
        """Starts receiving what the other end sends under the same number and index."""
        tensor = torch.empty(tuple(shape), dtype=dtype, device=self.device)
        return PendingTransfer(tensor, self.group.recv([tensor], rank, number * TENSORS_PER_REQUEST + index))

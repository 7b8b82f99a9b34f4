"""The models whose ordinary steps are measured, in PyTorch. Batches are random; their values cost nothing."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

Step = Callable[[], None]


class Recurrent(nn.Module):
    """A GRU over 32 positions of 64 features. The class is computed from the last output."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(64, 256, batch_first=True)
        self.out = nn.Linear(256, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, (batch, classes)."""
        outputs, _ = self.gru(x)
        return self.out(outputs[:, -1])


class Transformer(nn.Module):
    """Two transformer blocks of width 128 over 64 positions, and the mean of their outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(128, 4, 512, dropout=0.0, batch_first=True, norm_first=True) for _ in range(2)
        )
        self.out = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, (batch, classes)."""
        for block in self.blocks:
            x = block(x)
        return self.out(x.mean(1))


def make_model(name: str) -> tuple[nn.Module, Tensor]:
    """A model and a batch of inputs, equal in every call."""
    torch.manual_seed(0)
    if name == "mlp":
        widths = [784, 1024, 1024, 10]
        layers = [module for i in range(3) for module in (nn.Linear(*widths[i : i + 2]), nn.ReLU())]
        return nn.Sequential(*layers[:-1]), torch.randn(128, 784)
    if name == "convnet":
        widths = [3, 32, 64, 128]
        layers = [
            module for i in range(3) for module in (nn.Conv2d(*widths[i : i + 2], 3, 2 if i else 1, 1), nn.ReLU())
        ]
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 8 * 8, 10)), torch.randn(64, 3, 32, 32)
    if name == "gru":
        return Recurrent(), torch.randn(32, 32, 64)
    return Transformer(), torch.randn(16, 64, 128)


def make_optimizer(name: str, model: nn.Module) -> torch.optim.Optimizer:
    """SGD with momentum, Adam with its defaults, or Adam in one kernel (``fused=True``)."""
    if name == "momentum":
        return torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    return torch.optim.Adam(model.parameters(), lr=1e-4, fused=name == "fused Adam")


def make_step(model: nn.Module, inputs: Tensor, optimizer: torch.optim.Optimizer) -> Step:
    """One step of a usual training loop."""
    labels = torch.randint(10, (len(inputs),)).to(inputs.device)

    def step() -> None:
        optimizer.zero_grad()
        functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()

    return step

"""Wide ResNet-22-2 for CIFAR-10 (Zagoruyko & Komodakis 2016), with the details of the RigL paper's own code."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

DROPOUT = 0.3
"""Of the activations in a block, as in the authors' code (google-research/rigl, cifar_resnet/resnet_model.py)."""


class Block(nn.Module):
    """Two 3x3 convolutions, each after a norm and a ReLU, beside a skip connection.

    Args:
        n_in: channels of the input.
        n_out: channels of the output. If they are others, a 1x1 convolution is the skip connection.
        stride: of the first convolution.
    """

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(n_in), nn.BatchNorm2d(n_out)
        self.skip = nn.Conv2d(n_in, n_out, 1, stride, bias=False) if n_in != n_out else None
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(images, n_in, height, width) to (images, n_out, height / stride, width / stride)."""
        ready = self.norm1(x).relu()
        skipped = x if self.skip is None else self.skip(ready)
        hidden = self.norm2(self.conv1(ready)).relu()
        out: Tensor = self.conv2(functional.dropout(hidden, DROPOUT, self.training)) + skipped
        return out


class WideResNet(nn.Module):
    """Three groups of blocks of 16, 32 and 64 channels, times the width.

    Args:
        classes: outputs.
        depth: 6n + 4 for groups of n blocks.
        width: factor of the channels in the groups.
    """

    def __init__(self, classes: int = 10, depth: int = 22, width: int = 2) -> None:
        super().__init__()
        blocks, n_in = (depth - 4) // 6, 16
        self.conv1 = nn.Conv2d(3, n_in, 3, padding=1, bias=False)
        for number, (channels, stride) in enumerate([(16, 1), (32, 2), (64, 2)], start=1):
            n_out = channels * width
            first = Block(n_in, n_out, stride)
            self.add_module(f"group{number}", nn.Sequential(first, *(Block(n_out, n_out, 1) for _ in range(1, blocks))))
            n_in = n_out
        self.norm = nn.BatchNorm2d(n_in)
        self.fc = nn.Linear(n_in, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Images (images, 3, height, width) to logits (images, classes)."""
        x = self.conv1(x)
        for number in (1, 2, 3):
            x = self.get_submodule(f"group{number}")(x)
        logits: Tensor = self.fc(self.norm(x).relu().mean((2, 3)))
        return logits

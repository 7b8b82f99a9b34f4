"""Layer lists of the networks that the papers report, for plans and costs; not models."""

from __future__ import annotations

from rigl_core.layers import Layer


def conv(name: str, n_in: int, n_out: int, kernel: int) -> Layer:
    """A square convolution kernel, stored (out, in, height, width)."""
    return Layer(name, (n_out, n_in, kernel, kernel), in_axes=(1,), out_axes=(0,))


def linear(name: str, n_in: int, n_out: int) -> Layer:
    """A fully connected layer's weight, stored (out, in)."""
    return Layer(name, (n_out, n_in), in_axes=(1,), out_axes=(0,))


def resnet50() -> tuple[Layer, ...]:
    """The 54 kernels of ResNet-50 for ImageNet (He et al. 2016): 25,502,912 weights."""
    layers = [conv("conv1", 3, 64, 7)]
    n_in = 64
    for stage, (blocks, width) in enumerate([(3, 64), (4, 128), (6, 256), (3, 512)], start=1):
        for block in range(blocks):
            prefix = f"layer{stage}.{block}"
            layers.append(conv(f"{prefix}.conv1", n_in, width, 1))
            layers.append(conv(f"{prefix}.conv2", width, width, 3))
            layers.append(conv(f"{prefix}.conv3", width, 4 * width, 1))
            if block == 0:
                layers.append(conv(f"{prefix}.downsample", n_in, 4 * width, 1))
            n_in = 4 * width
    layers.append(linear("fc", n_in, 1000))
    return tuple(layers)


def mlp(*widths: int) -> tuple[Layer, ...]:
    """A chain of fully connected layers: ``mlp(784, 300, 100, 10)`` is LeNet-300-100."""
    return tuple(linear(f"fc{i}.weight", widths[i - 1], widths[i]) for i in range(1, len(widths)))

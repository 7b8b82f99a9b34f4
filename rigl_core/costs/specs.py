"""The networks of the papers as lists of layers, for plans and costs. They are not models that compute.

Kernels are stored (out, in, height, width). Positions are those of one example.
"""

from __future__ import annotations

from rigl_core.costs.network import Network
from rigl_core.model.layers import Layer


def conv(name: str, n_in: int, n_out: int, kernel: int) -> Layer:
    """A square convolution kernel, stored (out, in, height, width)."""
    return Layer(name, (n_out, n_in, kernel, kernel), in_axes=(1,), out_axes=(0,))


def depthwise(name: str, channels: int, kernel: int) -> Layer:
    """A square depthwise kernel, stored (channels, 1, height, width)."""
    return Layer(name, (channels, 1, kernel, kernel), (1,), (0,), groups=channels, depthwise=True)


def linear(name: str, n_in: int, n_out: int) -> Layer:
    """A fully connected layer's weight, stored (out, in)."""
    return Layer(name, (n_out, n_in), in_axes=(1,), out_axes=(0,))


def mlp(*widths: int) -> Network:
    """A chain of fully connected layers."""
    return Network(tuple(linear(f"fc{i}.weight", widths[i - 1], widths[i]) for i in range(1, len(widths))))


def lenet_300_100() -> Network:
    """LeNet-300-100 for MNIST (LeCun et al. 1998): 266,200 weights (RigL paper, appendix on MNIST)."""
    return Network(tuple(mlp(784, 300, 100, 10)), name="LeNet-300-100")


def resnet50(width: float = 1.0) -> Network:
    """ResNet-50 for ImageNet (He et al. 2016), the stride in the 3x3 kernels: 54 kernels, 25,502,912 weights.

    Args:
        width: factor for all channels, rounded down, except the channels of the image and the classes. The paper's
            small-dense networks have 0.465 and 0.34.
    """
    n_in = int(64 * width)
    convolutions = [(conv("conv1", 3, n_in, 7), 112)]
    side = 56
    for stage, (blocks, channels) in enumerate([(3, 64), (4, 128), (6, 256), (3, 512)], start=1):
        inner, n_out = int(channels * width), int(4 * channels * width)
        for block in range(blocks):
            prefix, before = f"layer{stage}.{block}", side
            if block == 0 and stage > 1:
                side //= 2
            convolutions.append((conv(f"{prefix}.conv1", n_in, inner, 1), before))
            convolutions.append((conv(f"{prefix}.conv2", inner, inner, 3), side))
            convolutions.append((conv(f"{prefix}.conv3", inner, n_out, 1), side))
            if block == 0:
                convolutions.append((conv(f"{prefix}.downsample", n_in, n_out, 1), side))
            n_in = n_out
    return _image_network("ResNet-50", convolutions, linear("fc", n_in, 1000))


def mobilenet_v1() -> Network:
    """MobileNet-v1 for ImageNet (Howard et al. 2017): 4,209,088 weights, 44,640 of them depthwise and always dense."""
    n_in, side = 32, 112
    convolutions = [(conv("conv1", 3, n_in, 3), side)]
    blocks = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
    for block, (n_out, stride) in enumerate(blocks, start=1):
        side //= stride
        convolutions.append((depthwise(f"block{block}.depthwise", n_in, 3), side))
        convolutions.append((conv(f"block{block}.pointwise", n_in, n_out, 1), side))
        n_in = n_out
    return _image_network("MobileNet-v1", convolutions, linear("fc", n_in, 1000))


def mobilenet_v2() -> Network:
    """MobileNet-v2 for ImageNet (Sandler et al. 2018): 3,469,760 weights, 64,224 depthwise and always dense."""
    n_in, side = 32, 112
    convolutions = [(conv("conv1", 3, n_in, 3), side)]
    stages = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    for stage, (expansion, n_out, blocks, first_stride) in enumerate(stages, start=1):
        for block in range(blocks):
            prefix, inner = f"stage{stage}.{block}", expansion * n_in
            if expansion > 1:
                convolutions.append((conv(f"{prefix}.expand", n_in, inner, 1), side))
            side //= first_stride if block == 0 else 1
            convolutions.append((depthwise(f"{prefix}.depthwise", inner, 3), side))
            convolutions.append((conv(f"{prefix}.project", inner, n_out, 1), side))
            n_in = n_out
    convolutions.append((conv("last", n_in, 1280, 1), side))
    return _image_network("MobileNet-v2", convolutions, linear("fc", 1280, 1000))


def wrn_22_2() -> Network:
    """Wide ResNet-22-2 for CIFAR-10 (Zagoruyko & Komodakis 2016): 23 kernels, 1,076,912 weights."""
    n_in, side = 16, 32
    convolutions = [(conv("conv1", 3, n_in, 3), side)]
    for stage, n_out in enumerate([32, 64, 128], start=1):
        side //= 1 if stage == 1 else 2
        for block in range(3):
            prefix = f"stage{stage}.{block}"
            if block == 0:
                convolutions.append((conv(f"{prefix}.skip", n_in, n_out, 1), side))
            convolutions.append((conv(f"{prefix}.conv1", n_in, n_out, 3), side))
            convolutions.append((conv(f"{prefix}.conv2", n_out, n_out, 3), side))
            n_in = n_out
    return _image_network("WRN-22-2", convolutions, linear("fc", n_in, 10))


def gru_language_model(characters: int = 1) -> Network:
    """The RigL paper's character-level language model: 1,179,648 weights and the embedding, which stays dense.

    The paper trains it with Adam at 7e-4, at a sparsity of 0.75.

    Args:
        characters: the number of characters in one example; 1 gives the costs of a character.
    """
    weights = (
        linear("gru.weight_ih", 128, 3 * 512),
        linear("gru.weight_hh", 512, 3 * 512),
        linear("readout1", 512, 256),
        linear("readout2", 256, 128),
        linear("vocabulary", 128, 256),
    )
    embedding = Layer("embedding", (256, 128), in_axes=(0,), out_axes=(1,))
    positions = {weight.name: characters for weight in weights} | {embedding.name: 0}
    return Network(weights, positions, (embedding,), name="GRU language model")


def _image_network(name: str, convolutions: list[tuple[Layer, int]], classifier: Layer) -> Network:
    """A network of convolutions and a classifier. Each convolution comes with the side of its square output."""
    kernels = [kernel for kernel, _ in convolutions] + [classifier]
    return Network(
        tuple(kernel for kernel in kernels if not kernel.depthwise),
        positions={kernel.name: side**2 for kernel, side in convolutions} | {classifier.name: 1},
        always_dense=tuple(kernel for kernel in kernels if kernel.depthwise),
        name=name,
    )

"""`describe`: its positions are those of PyTorch's own counter, and of `rigl_core.specs` for published networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from rigl_backends.torch import describe, sparsify
from rigl_core import Network, Static, cost_table, make_plan, specs
from rigl_core.testing.checks import checks
from tests.architectures import BATCH, EXPECTED, TOKENS, shapes_and_positions, summary


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.classifier = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.attention(x, x, x, need_weights=True)[0])


class LastToken(nn.Module):
    def __init__(self, recurrent: nn.Module, features: int) -> None:
        super().__init__()
        self.recurrent = recurrent
        self.classifier = nn.Linear(features, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.recurrent(x)[0][:, -1])


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.layer = nn.Linear(8, 8)

    def forward(self, tokens: Tensor) -> Tensor:
        return functional.linear(self.layer(self.embedding(tokens)), self.embedding.weight)


def convnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, groups=4),
        nn.ConvTranspose2d(16, 6, 3, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 3),
    )


ARCHITECTURES: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "mlp": lambda: (nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 6)), torch.randn(BATCH, 12)),
    "convnet": lambda: (convnet(), torch.randn(BATCH, 3, 32, 32)),
    "recurrent": lambda: (LastToken(nn.GRU(8, 6, batch_first=True), 6), torch.randn(BATCH, TOKENS, 8)),
    "attention": lambda: (Attention(), torch.randn(BATCH, TOKENS, 8)),
    "tied": lambda: (Tied(), torch.randint(11, (BATCH, TOKENS))),
}


def counted_by_torch(model: nn.Module, *inputs: Any) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(*inputs)
    return counter.get_total_flops()


def f_d(network: Network) -> float:
    return cost_table(make_plan(Static(0.5), network), network).f_d


def by_name(network: Network) -> dict[str, float]:
    return dict(network.positions)


@pytest.mark.parametrize("name", EXPECTED)
def test_architectures(name: str) -> None:
    model, inputs = ARCHITECTURES[name]()
    assert summary(describe(model, inputs, examples=BATCH)) == EXPECTED[name]


@pytest.mark.parametrize("name", ["mlp", "convnet", "tied"])
def test_dense_costs_are_what_torch_counts(name: str) -> None:
    model, inputs = ARCHITECTURES[name]()
    assert f_d(describe(model, inputs, examples=BATCH)) * BATCH == counted_by_torch(model, inputs)


def test_attention_costs_what_torch_counts_but_for_the_scores() -> None:
    model, inputs = Attention(), torch.randn(BATCH, TOKENS, 8)
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        counted = counted_by_torch(model, inputs)
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    scores_and_mixing = 2 * (2 * BATCH * TOKENS * TOKENS * 8)
    assert f_d(describe(model, inputs, examples=BATCH)) * BATCH == counted - scores_and_mixing


CONVOLUTIONS = [
    (nn.Conv1d(4, 6, 3, stride=2, padding=1, dilation=2), (4, 17)),
    (nn.Conv2d(4, 8, (3, 5), stride=(2, 1), padding="valid", groups=2), (4, 9, 12)),
    (nn.Conv2d(4, 12, 3, groups=4, padding=1), (4, 7, 7)),
    (nn.Conv3d(2, 3, 3, padding="same", bias=False), (2, 5, 6, 4)),
    (nn.ConvTranspose1d(4, 6, 4, stride=2, padding=1), (4, 9)),
    (nn.ConvTranspose2d(4, 6, 3, stride=3, output_padding=1, groups=2), (4, 5, 6)),
    (nn.ConvTranspose3d(2, 4, 2), (2, 3, 4, 5)),
]


@pytest.mark.parametrize(("layer", "shape"), CONVOLUTIONS, ids=lambda value: str(value))
def test_convolutions_cost_what_torch_counts(layer: nn.Module, shape: tuple[int, ...]) -> None:
    model, inputs = nn.Sequential(layer, nn.Flatten(), nn.LazyLinear(2)), torch.randn(3, *shape)
    model(inputs)
    assert f_d(describe(model, inputs, examples=3)) * 3 == counted_by_torch(model, inputs)


@pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_recurrent_layers_are_used_at_every_step(cell: Any, layers: int, bidirectional: bool) -> None:
    recurrent = cell(8, 6, layers, batch_first=True, bidirectional=bidirectional)
    network = describe(recurrent, torch.randn(3, 7, 8), examples=3)
    assert set(network.positions.values()) == {7}
    assert len(network) == 2 * layers * (1 + bidirectional)


def test_packed_sequences_are_used_at_every_step_they_have() -> None:
    lengths = torch.tensor([7, 4, 1])
    packed = nn.utils.rnn.pack_padded_sequence(torch.randn(3, 7, 8), lengths, batch_first=True)
    for recurrent in (nn.LSTM(8, 6), nn.GRU(8, 6)):
        assert by_name(describe(recurrent, packed, examples=3)) == {"weight_ih_l0": 4, "weight_hh_l0": 4}


def test_recurrent_cells_and_shared_layers_are_used_as_often_as_they_are_called() -> None:
    class Unrolled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.LSTMCell(8, 6)
            self.once = nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            state = None
            for token in x.unbind(1):
                hidden, memory = self.cell(token, state)
                state = hidden, memory
            return self.once(self.once(hidden))

    network = describe(Unrolled(), torch.randn(3, 7, 8), examples=3)
    assert by_name(network) == {"cell.weight_ih": 7, "cell.weight_hh": 7, "once.weight": 2}


def test_queries_and_keys_of_different_lengths_use_one_weight_unequally() -> None:
    queries, keys = torch.randn(BATCH, 3, 8), torch.randn(BATCH, TOKENS, 8)
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    network = describe(attention, queries, keys, keys, examples=BATCH)
    assert by_name(network) == {"in_proj_weight": (3 + 2 * TOKENS) / 3, "out_proj.weight": 3}


@pytest.mark.parametrize("fast", [True, False])
def test_a_transformer_and_the_fast_path_is_left_as_it_was(fast: bool) -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    torch.backends.mha.set_fastpath_enabled(fast)
    try:
        network = describe(nn.TransformerEncoder(layer, 2), torch.randn(3, TOKENS, 8), examples=3)
        assert torch.backends.mha.get_fastpath_enabled() == fast
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    assert len(network) == 8
    assert set(network.positions.values()) == {TOKENS}


def test_custom_modules_are_counted_by_their_products() -> None:
    class Custom(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.heads = nn.Parameter(torch.randn(8, 2, 4))
            self.left = nn.Parameter(torch.randn(6, 8))
            self.register_buffer("mask", torch.ones(6, 8))
            self.queries = nn.Parameter(torch.randn(3, 8))
            self.a, self.b = nn.Parameter(torch.randn(8, 5)), nn.Parameter(torch.randn(8, 3))

        def forward(self, x: Tensor) -> Tensor:
            heads = torch.einsum("btd,dhk->bthk", x, self.heads).flatten(2)
            masked = (self.left * self.mask).to(torch.float64) @ heads.mT.double()
            asked = functional.linear(self.queries, self.left)
            return masked.sum() + asked.sum() + (x @ torch.cat([self.a, self.b], 1)).sum()

    network = describe(Custom(), torch.randn(3, TOKENS, 8), include=["heads", "left"], examples=1)
    assert by_name(network) == {"heads": 15, "left": 15 + 3, "queries": 0, "a": 15, "b": 15}


def test_reparametrized_weights_cost_but_stay_dense() -> None:
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(8, 6))
    network = describe(nn.Sequential(normed, nn.Linear(6, 4)), torch.randn(3, 8), examples=3)
    assert [layer.name for layer in network] == ["1.weight"]
    assert by_name(network)["0.parametrizations.weight.original1"] == 1


def test_low_precision_by_autocast_changes_nothing() -> None:
    model, inputs = ARCHITECTURES["convnet"]()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert summary(describe(model, inputs, examples=BATCH)) == EXPECTED["convnet"]


def test_what_is_not_used_costs_nothing() -> None:
    model = nn.ModuleDict({"used": nn.Linear(4, 3), "unused": nn.Linear(5, 2)})
    model.forward = lambda x: model["used"](x)  # type: ignore[method-assign]
    assert by_name(describe(model, torch.randn(2, 4), examples=2)) == {"used.weight": 1, "unused.weight": 0}


def test_the_model_is_left_as_it_was() -> None:
    model, inputs = ARCHITECTURES["convnet"]()
    model[3].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    describe(model, inputs, examples=BATCH)
    assert [module.training for module in model] == [index != 3 for index in range(len(model))]
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_the_layers_are_those_that_sparsify_chooses() -> None:
    model, inputs = ARCHITECTURES["convnet"]()
    network = describe(model, inputs, include=["2.weight"], exclude=["0.weight"], examples=BATCH)
    sparse = sparsify(model, torch.optim.SGD(model.parameters(), 0.1), Static(0.5), include=["2.*t"], exclude=["0.*"])
    assert sparse.plan.layers == network.layers
    assert cost_table(sparse.plan, network).f_d == f_d(network)


def test_named_inputs() -> None:
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    x = torch.randn(BATCH, TOKENS, 8)
    network = describe(attention, x, named_inputs={"key": x, "value": x}, examples=BATCH)
    assert set(network.positions.values()) == {TOKENS}


@checks("P3")
def test_mistakes_are_refused_by_name() -> None:
    with pytest.raises(TypeError, match=r"model is a list: it must be a torch\.nn\.Module\."):
        describe([], torch.ones(1))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="examples is 0: it must be at least 1"):
        describe(nn.Linear(3, 3), torch.ones(2, 3), examples=0)
    with pytest.raises(ValueError, match="layers is empty: the model has nothing to sparsify"):
        describe(nn.BatchNorm1d(3), torch.ones(2, 3))


class Bottleneck(nn.Module):
    def __init__(self, n_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, width, 1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        changes = stride > 1 or n_in != 4 * width
        self.downsample = nn.Conv2d(n_in, 4 * width, 1, stride, bias=False) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.conv3(torch.relu(self.conv2(torch.relu(self.conv1(x))))) + self.downsample(x))


def resnet50() -> nn.Module:
    blocks, n_in = nn.Sequential(), 64
    for stage, (depth, width) in enumerate([(3, 64), (4, 128), (6, 256), (3, 512)]):
        for block in range(depth):
            blocks.append(Bottleneck(n_in, width, 2 if stage and not block else 1))
            n_in = 4 * width
    return nn.Sequential(
        nn.Conv2d(3, 64, 7, 2, padding=3, bias=False),
        nn.MaxPool2d(3, 2, padding=1),
        blocks,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(n_in, 1000),
    )


def test_resnet50_is_the_published_one() -> None:
    model, image = resnet50(), torch.zeros(1, 3, 224, 224)
    network, published = describe(model, image), specs.resnet50()
    assert [layer.shape for layer in network] == [layer.shape for layer in published]
    assert list(network.positions.values()) == list(published.positions.values())
    assert f_d(network) == f_d(published) == counted_by_torch(model, image)


def test_the_language_model_is_the_published_one() -> None:
    class LanguageModel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(256, 128)
            self.gru = nn.GRU(128, 512, batch_first=True)
            self.readout = nn.Sequential(nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU())
            self.vocabulary = nn.Linear(128, 256)

        def forward(self, characters: Tensor) -> Tensor:
            return self.vocabulary(self.readout(self.gru(self.embedding(characters))[0]))

    network = describe(LanguageModel(), torch.zeros(1, 20, dtype=torch.long))
    assert shapes_and_positions(network) == shapes_and_positions(specs.gru_language_model(characters=20))

"""The choice of layers among parameters, and the axes of each layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import nn
from torch.nn.init import _calculate_fan_in_and_fan_out
from torch.nn.utils import parametrizations
from torch.nn.utils.parametrize import register_parametrization

from rigl_backends.torch import choose_layers, sparsify
from rigl_core import Constant, ErdosRenyi, ErdosRenyiKernel, Layer, RigL, Static, UpdateSchedule, make_plan
from tests.torch.helpers import hooks_of, rigl


class Autoencoder(nn.Module):
    """Encoder and decoder share a matrix: they use it as W and W'."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(8, 8)
        self.decoder = nn.Linear(8, 8)
        self.decoder.weight = self.encoder.weight


class LanguageModel(nn.Module):
    def __init__(self, *, sparse: bool = False) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 6, sparse=sparse)
        self.hidden = nn.Linear(6, 6)
        self.head = nn.Linear(6, 20, bias=False)
        self.head.weight = self.embed.weight


class RegisteredTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 5)
        self.again = self.first
        self.blocks = nn.ModuleList([self.first, nn.Linear(5, 2)])


def names(model: nn.Module, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> list[str]:
    return [layer.name for layer in choose_layers(model, include, exclude)]


def layers(model: nn.Module, include: Sequence[str] = ()) -> dict[str, Layer]:
    return {layer.name: layer for layer in choose_layers(model, include)}


CHOSEN: dict[str, tuple[Callable[[], nn.Module], list[str]]] = {
    "linear": (lambda: nn.Linear(4, 5), ["weight"]),
    "conv1d": (lambda: nn.Conv1d(4, 6, 3), ["weight"]),
    "conv2d": (lambda: nn.Conv2d(4, 6, 3), ["weight"]),
    "conv3d": (lambda: nn.Conv3d(4, 6, 3), ["weight"]),
    "transposed 1d": (lambda: nn.ConvTranspose1d(4, 6, 3), ["weight"]),
    "transposed 2d": (lambda: nn.ConvTranspose2d(4, 6, 3), ["weight"]),
    "transposed 3d": (lambda: nn.ConvTranspose3d(4, 6, 3), ["weight"]),
    "grouped": (lambda: nn.Conv2d(4, 6, 3, groups=2), ["weight"]),
    "grouped transposed": (lambda: nn.ConvTranspose2d(4, 6, 3, groups=2), ["weight"]),
    "depthwise": (lambda: nn.Conv2d(4, 4, 3, groups=4), []),
    "depthwise with multiplier": (lambda: nn.Conv2d(4, 12, 3, groups=4), []),
    "depthwise transposed": (lambda: nn.ConvTranspose2d(4, 8, 3, groups=4), []),
    "one channel": (lambda: nn.Conv2d(1, 8, 3), ["weight"]),
    "rnn": (lambda: nn.RNN(3, 4), ["weight_ih_l0", "weight_hh_l0"]),
    "gru": (
        lambda: nn.GRU(3, 4, bidirectional=True),
        ["weight_ih_l0", "weight_hh_l0", "weight_ih_l0_reverse", "weight_hh_l0_reverse"],
    ),
    "lstm with projection": (
        lambda: nn.LSTM(3, 4, num_layers=2, proj_size=2),
        [f"weight_{kind}_l{i}" for i in (0, 1) for kind in ("ih", "hh", "hr")],
    ),
    "rnn cell": (lambda: nn.RNNCell(3, 4), ["weight_ih", "weight_hh"]),
    "lstm cell": (lambda: nn.LSTMCell(3, 4), ["weight_ih", "weight_hh"]),
    "gru cell": (lambda: nn.GRUCell(3, 4), ["weight_ih", "weight_hh"]),
    "attention": (lambda: nn.MultiheadAttention(4, 2, add_bias_kv=True), ["in_proj_weight", "out_proj.weight"]),
    "attention of other sizes": (
        lambda: nn.MultiheadAttention(4, 2, kdim=3, vdim=5),
        ["q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight"],
    ),
    "transformer": (
        lambda: nn.TransformerEncoderLayer(4, 2, 8),
        ["self_attn.in_proj_weight", "self_attn.out_proj.weight", "linear1.weight", "linear2.weight"],
    ),
    "embedding": (lambda: nn.Sequential(nn.Embedding(9, 4), nn.EmbeddingBag(9, 4)), []),
    "bilinear": (lambda: nn.Bilinear(3, 4, 5), []),
    "norms": (
        lambda: nn.Sequential(nn.LayerNorm(4), nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.RMSNorm(4), nn.PReLU(4)),
        [],
    ),
    "tied autoencoder": (Autoencoder, ["encoder.weight"]),
    "tied to an embedding": (LanguageModel, ["hidden.weight"]),
    "registered twice": (RegisteredTwice, ["first.weight", "blocks.1.weight"]),
    "weight norm": (
        lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(3, 4)), nn.Linear(4, 2)),
        ["1.weight"],
    ),
    "lazy, but excluded by its kind": (lambda: nn.Sequential(nn.LazyBatchNorm1d(), nn.Linear(4, 2)), ["1.weight"]),
}


@pytest.mark.parametrize("case", CHOSEN)
def test_layers_are_chosen_by_the_type_of_their_module(case: str) -> None:
    make_model, expected = CHOSEN[case]
    assert names(make_model()) == expected


def test_include_and_exclude_go_by_any_name_of_a_parameter() -> None:
    model = LanguageModel()
    assert names(model, include=["embed.*"]) == ["embed.weight", "hidden.weight"]
    assert names(model, include=["head.weight"]) == ["embed.weight", "hidden.weight"]
    assert names(model, include=["*"], exclude=["head.*", "*.bias"]) == ["hidden.weight"]
    assert names(Autoencoder(), exclude=["decoder.*"]) == []
    assert names(nn.Conv2d(4, 4, 3, groups=4), include=["weight"]) == ["weight"]
    assert names(nn.Bilinear(3, 4, 5), include=["weight"]) == ["weight"]
    assert names(nn.Linear(3, 4), include=["bias"]) == ["weight", "bias"]
    assert names(nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 2)), exclude=["0.*"]) == ["1.weight"]


def test_tied_weights_are_counted_and_masked_once() -> None:
    torch.manual_seed(0)
    model = Autoencoder()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    sparse = sparsify(model, optimizer, rigl(0.75))
    assert sparse.plan.active == (16,)
    assert int(torch.count_nonzero(model.decoder.weight)) == 16
    for _ in range(4):  # with an update at step 2
        optimizer.zero_grad()
        x = torch.randn(5, 8)
        (model.decoder(model.encoder(x)) - x).pow(2).sum().backward()
        optimizer.step()
    assert torch.equal(model.decoder.weight != 0, sparse.masks["encoder.weight"])


def test_the_weights_of_a_parametrization_are_sparsified_on_demand() -> None:
    class Scaled(nn.Module):
        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            return 2 * weight

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 2))
    register_parametrization(model[0], "weight", Scaled())
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    sparse = sparsify(model, optimizer, rigl(0.5), include=["*original"])
    for _ in range(4):
        optimizer.zero_grad()
        model(torch.randn(5, 6)).pow(2).sum().backward()
        optimizer.step()
    mask = sparse.masks["0.parametrizations.weight.original"]
    assert not model[0].weight[~mask].any()
    assert model[0].weight[mask].all()


@pytest.mark.parametrize(
    "module",
    [nn.Linear(4, 6), nn.Conv1d(4, 6, 5), nn.Conv2d(4, 6, (3, 2)), nn.Conv3d(4, 6, 3), nn.LSTMCell(3, 4)],
    ids=["linear", "conv1d", "conv2d", "conv3d", "lstm cell"],
)
def test_fans_agree_with_pytorchs_initialization(module: nn.Module) -> None:
    for layer in choose_layers(module):
        param = module.get_parameter(layer.name)
        assert (layer.fan_in, layer.fan_out) == _calculate_fan_in_and_fan_out(param)


def test_fans_of_transposed_and_grouped_convolutions() -> None:
    for forward, backward in (
        (nn.Conv2d(4, 6, (3, 2)), nn.ConvTranspose2d(4, 6, (3, 2))),
        (nn.Conv1d(4, 6, 5, groups=2), nn.ConvTranspose1d(4, 6, 5, groups=2)),
        (nn.Conv2d(4, 12, 3, groups=4), nn.ConvTranspose2d(4, 12, 3, groups=4)),
    ):
        convolution = layers(forward, ["weight"])["weight"]
        transposed = layers(backward, ["weight"])["weight"]
        inputs, outputs, groups = forward.in_channels, forward.out_channels, forward.groups
        positions = forward.weight[0, 0].numel()
        assert convolution.fan_in == transposed.fan_in == inputs // groups * positions
        assert convolution.fan_out == transposed.fan_out == outputs // groups * positions
        assert convolution.kernel_axes == transposed.kernel_axes == tuple(range(2, forward.weight.ndim))
        assert convolution.depthwise == transposed.depthwise == (groups == 4)


def test_er_gives_a_transposed_convolution_what_it_gives_the_same_kernel_stored_the_other_way() -> None:
    head = nn.Linear(24, 10)
    plans = []
    for middle in (nn.Conv2d(8, 24, (3, 2)), nn.ConvTranspose2d(8, 24, (3, 2))):
        chosen = choose_layers(nn.Sequential(nn.Linear(30, 8), middle, head))
        plans.append(make_plan(Static(0.8, distribution=ErdosRenyi()), chosen))
    forward, backward = plans
    assert forward.layers[1].shape != backward.layers[1].shape
    assert forward.active == backward.active
    assert forward.densities == backward.densities
    n_in, n_out = 8, 24
    assert forward.epsilon is not None
    assert forward.densities[1] == pytest.approx(forward.epsilon * (n_in + n_out) / (n_in * n_out))


def test_erk_needs_no_axes_and_er_names_the_layer_without() -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.Bilinear(3, 4, 5))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with pytest.raises(ValueError, match=r"in_axes of layer '1\.weight' is unknown"):
        sparsify(model, optimizer, Static(0.5, distribution=ErdosRenyi()), include=["1.weight"])
    assert hooks_of(model, optimizer) == 0
    sparse = sparsify(model, optimizer, Static(0.5, distribution=ErdosRenyiKernel()), include=["1.weight"])
    assert sparse.table.total_active == 45


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_recurrent_networks_and_attention_train_sparsely() -> None:
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.LSTM(6, 8, proj_size=4, batch_first=True)
            self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            hidden, _ = self.rnn(x)
            return self.attention(hidden, hidden, hidden)[0]

    torch.manual_seed(0)
    model = Reader()
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    sparse = sparsify(model, optimizer, RigL(0.6, schedule=UpdateSchedule(9, every=2), drop_fraction=Constant(0.5)))
    first = sparse.masks
    for _ in range(9):
        optimizer.zero_grad()
        model(torch.randn(3, 5, 6)).pow(2).mean().backward()
        optimizer.step()
    params = dict(model.named_parameters())
    assert len(sparse.masks) == 5
    for name, mask in sparse.masks.items():
        assert not params[name][~mask].any()
        assert not torch.equal(mask, first[name])

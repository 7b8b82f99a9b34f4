"""Hugging Face's Trainer and Accelerate: their loops are plain ones, bit for bit, and their checkpoints resume."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from torch import nn
from transformers import get_scheduler

import accelerate_loop
import trainer_loop
from letters import small_gpt2
from rigl_backends.torch import plan, sparsify
from rigl_core import NM, RigL, UpdateSchedule
from tests.torch.helpers import same_bits, snapshot

STEPS, HALF, EVERY = 12, 6, 2
SCHEDULE = UpdateSchedule.for_training(STEPS, every=EVERY)


@pytest.fixture(autouse=True)
def nothing_is_left_of_other_trainings() -> None:
    """Accelerate keeps its options, such as the accumulation of gradients, for all trainings of a process."""
    AcceleratorState._reset_state()
    GradientState._reset_state()


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """A text of which no training here sees the end, where Accelerate makes a step of fewer batches."""
    words = random.Random(0).choices(["mask", "drop", "grow", "density", "sparse"], k=20_000)
    path = tmp_path / "text.txt"
    path.write_text(" ".join(words), encoding="utf-8")
    return path


def recorded(model: nn.Module) -> list[dict[str, Any]]:
    """What a tool gives a model from now on; Trainer gives it the number of bytes in a batch, too."""
    batches: list[dict[str, Any]] = []

    def record(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        batches.append(dict(kwargs))

    model.register_forward_pre_hook(record, with_kwargs=True)
    return batches


def plain_loop(batches: list[dict[str, Any]], parts: int, *, decay: bool) -> Any:
    """The bits after a loop without any tool; each step takes the gradients of ``parts`` batches."""
    model = small_gpt2()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    sparse = sparsify(model, optimizer, RigL(0.8, schedule=SCHEDULE))
    scheduler = get_scheduler("linear" if decay else "constant", optimizer, 0, STEPS)
    for first in range(0, len(batches), parts):
        for batch in batches[first : first + parts]:
            (model(**batch).loss / parts).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
    assert sparse.step == STEPS
    return *snapshot(model, optimizer), sparse.state_dict()


def test_trainer(text: Path, tmp_path: Path) -> None:
    saves = {"save_strategy": "steps", "save_steps": HALF}
    trainer, sparse = trainer_loop.make_trainer(text, STEPS, EVERY, str(tmp_path), **saves)
    inner = trainer.optimizer
    batches = recorded(trainer.model)
    trainer.train()
    bits = (*snapshot(trainer.model, inner), sparse.state_dict())
    assert same_bits(bits, plain_loop(batches, 1, decay=True))

    resumed, sparse = trainer_loop.make_trainer(text, STEPS, EVERY, str(tmp_path), **saves)
    inner = resumed.optimizer
    resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{HALF}"))
    assert same_bits((*snapshot(resumed.model, inner), sparse.state_dict()), bits)


def test_accelerate(text: Path, tmp_path: Path) -> None:
    def bits(training: accelerate_loop.Training) -> Any:
        return *snapshot(training.model, training.optimizer.optimizer), training.sparse.state_dict()

    whole = accelerate_loop.Training(text, STEPS, EVERY)
    batches = recorded(whole.model)
    whole.train(STEPS)
    assert same_bits(bits(whole), plain_loop(batches, 2, decay=False))

    first, second = (accelerate_loop.Training(text, STEPS, EVERY) for _ in range(2))
    first.data, second.data = batches[: 2 * HALF], batches[2 * HALF :]
    first.train(HALF)
    first.accelerator.save_state(str(tmp_path))
    second.accelerator.load_state(str(tmp_path))
    second.train(STEPS)
    assert same_bits(bits(second), bits(whole))


def test_gpt2s_conv1d_stores_inputs_first() -> None:
    model = small_gpt2()
    layers = {layer.name: layer for layer in plan(model, RigL(0.8, schedule=SCHEDULE)).layers}
    kinds = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    assert set(layers) == {f"transformer.h.{block}.{kind}.weight" for block in (0, 1) for kind in kinds}
    assert {(layer.in_axes, layer.out_axes) for layer in layers.values()} == {((0,), (1,))}
    optimizer = torch.optim.AdamW(model.parameters())
    sparse = sparsify(model, optimizer, RigL(schedule=SCHEDULE, structure=NM(2, 4)))
    for mask in sparse.masks.values():  # two of every four inputs of each output
        assert (mask.reshape(len(mask) // 4, 4, -1).sum(1) == 2).all()


@pytest.mark.parametrize("example", [trainer_loop, accelerate_loop])
def test_the_examples(example: Any, text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example.main(["--steps", "3", "--every", "2", str(text)])
    printed = capsys.readouterr().out
    assert "loss " in printed
    assert "transformer.h.1.mlp.c_proj.weight   256x64   0.1875   3,072  13,312\n" in printed

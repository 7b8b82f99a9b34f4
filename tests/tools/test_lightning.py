"""Lightning: its loop is a plain one, bit for bit, and its checkpoints hold the topology."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from lightning_loop import Classifier, main
from tests.torch.helpers import batch, same_bits, snapshot

pytestmark = [
    # Lightning asks optree in a way that PyTorch has deprecated since.
    pytest.mark.filterwarnings("ignore:`isinstance\\(treespec, LeafSpec\\)` is deprecated"),
    # Lightning advises more workers to load the data.
    pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers"),
    # The resumed training saves where the whole one did.
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
]

STEPS, EPOCH = 48, 12


class ByStep(Classifier):
    """Takes the batch of the step: after a load at the end of an epoch, Lightning 2.6 gives the first batch twice."""

    def training_step(self, data: Any, number: int) -> torch.Tensor:
        return super().training_step(list(batch(self.global_step)), number)


def fit(folder: Path, checkpoint: Path | None = None) -> tuple[Classifier, lightning.Trainer]:
    torch.manual_seed(0)
    model = ByStep(12, 6, STEPS)
    quiet: dict[str, Any] = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)
    save = ModelCheckpoint(folder, filename="{step}", save_top_k=-1, save_on_train_epoch_end=True)
    trainer = lightning.Trainer(max_steps=STEPS, accelerator="cpu", callbacks=[save], **quiet)
    trainer.fit(model, DataLoader(torch.zeros(EPOCH)), ckpt_path=checkpoint)
    return model, trainer


def bits(model: Classifier, optimizer: Any) -> Any:
    return *snapshot(model, optimizer), model.sparse.state_dict()


def test_a_plain_loop_and_a_resumed_one_are_the_same(tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain = Classifier(12, 6, STEPS)
    optimizer = plain.configure_optimizers()
    for step in range(STEPS):
        optimizer.zero_grad()
        plain.training_step(list(batch(step)), step).backward()
        optimizer.step()
    whole, trainer = fit(tmp_path)
    assert whole.sparse.step == STEPS
    assert same_bits(bits(whole, trainer.optimizers[0]), bits(plain, optimizer))

    resumed, trainer = fit(tmp_path, checkpoint=tmp_path / f"step={EPOCH}.ckpt")
    assert same_bits(bits(resumed, trainer.optimizers[0]), bits(plain, optimizer))


def test_the_example(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = main(["--steps", "30", "--log", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "test accuracy 0." in printed
    assert str(model.sparse.table) in printed
    (log,) = tmp_path.rglob("metrics.csv")
    rows = list(csv.DictReader(log.read_text(encoding="utf-8").splitlines()))
    assert rows
    for row in rows:
        assert float(row["density"]) == pytest.approx(0.1, abs=1e-4)

"""What the two examples with transformers share: options, a text as blocks of bytes, and a small GPT-2."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import GPT2Config, GPT2LMHeadModel

LENGTH = 64
"""The bytes of a training example."""


def options_of(description: str | None) -> argparse.ArgumentParser:
    """The options: the number of steps, and a text file."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--steps", type=int, default=300, metavar="N", help="optimizer steps (%(default)s)")
    parser.add_argument("--every", type=int, default=20, metavar="N", help="steps between updates (%(default)s)")
    source = Path(argparse.__file__)  # a text that lies beside every Python
    parser.add_argument("text", nargs="?", type=Path, default=source, help="a text file (%(default)s)")
    return parser


class Blocks(Dataset[dict[str, Tensor]]):
    """A text in blocks of `LENGTH` bytes: every byte is a token, and each is to be told from those before it."""

    def __init__(self, path: Path) -> None:
        content = path.read_bytes()
        count = len(content) // LENGTH
        if not count:
            sys.exit(f"{path} holds {len(content)} bytes: give a text of at least {LENGTH}.")
        tokens = torch.frombuffer(bytearray(content), dtype=torch.uint8, count=count * LENGTH)
        self._tokens = tokens.to(torch.int64).reshape(count, LENGTH)

    def __len__(self) -> int:
        return len(self._tokens)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        return {"input_ids": self._tokens[number], "labels": self._tokens[number]}


def small_gpt2() -> GPT2LMHeadModel:
    """A GPT-2 of two blocks for bytes. All weights of its blocks are in Conv1D modules, which store (in, out)."""
    sizes = {"vocab_size": 256, "n_positions": LENGTH, "n_embd": 64, "n_layer": 2, "n_head": 4}
    dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(**sizes, **dropout, bos_token_id=0, eos_token_id=0))

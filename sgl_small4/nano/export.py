"""Write a trained model as a checkpoint in Hugging Face's layout: `python -m sgl_small4.nano.export RUN FOLDER`."""

import argparse
import shutil
from pathlib import Path

import torch

from sgl_small4.nano.checkpoint_io import export
from sgl_small4.nano.model import Model
from sgl_small4.nano.operators import Operators, Plain
from sgl_small4.nano.shape import Shape
from sgl_small4.nano.tokenizer import TOKENIZER_FILES

TEMPLATE = Path(__file__).parents[1] / "prompt" / "template.jinja"


def load_run(run: Path, operators: Operators) -> Model:
    """The model of a run's last saved state."""
    state = torch.load(run / "state.pt", weights_only=True)
    model = Model(Shape(**state["settings"]["shape"]), operators)
    model.load_state_dict(state["model"])
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a training run's model as a checkpoint folder.")
    parser.add_argument("run", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    export(load_run(options.run, Plain()), options.folder)
    for name in TOKENIZER_FILES:
        shutil.copyfile(options.run / name, options.folder / name)
    shutil.copyfile(TEMPLATE, options.folder / "chat_template.jinja")
    print(f"{options.folder}: {(options.folder / 'model.safetensors').stat().st_size:,} bytes of weights")


if __name__ == "__main__":
    main()

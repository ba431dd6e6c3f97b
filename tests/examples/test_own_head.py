"""The module of docs/training.md that puts extra.safetensors and a head of one's own together."""

import re
from pathlib import Path

import torch
from goldens import FIXTURES
from transformers import Trainer, TrainingArguments

from nezha_convert import convert


def test_the_documented_module_has_what_was_kept_and_trains(tmp_path):
    source = next((FIXTURES / "huawei-torch-classifier").glob("*.bin"))
    state = {name: tensor for name, tensor in torch.load(source, weights_only=True).items() if "classifier" not in name}
    hidden = state["bert.embeddings.word_embeddings.weight"].shape[1]
    own = {"fc.weight": torch.randn(5, hidden), "fc.bias": torch.randn(5), "crf.transitions": torch.randn(5, 5)}
    (tmp_path / "source").mkdir()
    torch.save({**state, **own}, tmp_path / "source" / "pytorch_model.bin")
    config = next((FIXTURES / "huawei-torch-classifier").glob("*config*.json"))
    (tmp_path / "source" / "config.json").write_text(config.read_text())
    convert(tmp_path / "source", tmp_path / "model", head="encoder")

    text = (Path(__file__).parents[2] / "docs" / "training.md").read_text("utf-8")
    (block,) = re.findall(r"```python\n([^`]*class Tagger.*?)```", text, re.DOTALL)
    names: dict = {}
    exec(compile(block, "docs/training.md", "exec"), names)
    model = names["Tagger"](str(tmp_path / "model"))
    for name, tensor in own.items():
        assert torch.equal(model.get_parameter(name.replace("crf.", "")), tensor), name
    rows = [{"input_ids": torch.arange(5, 13), "labels": torch.arange(8) % 5} for _ in range(4)]
    options = {"max_steps": 8, "learning_rate": 1e-2, "report_to": "none", "use_cpu": True, "logging_steps": 1}
    settings = TrainingArguments(str(tmp_path / "out"), save_strategy="no", disable_tqdm=True, **options)
    trainer = Trainer(model, settings, train_dataset=rows)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0] / 2

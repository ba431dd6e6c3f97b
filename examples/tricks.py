"""What competitions add to fine-tuning, as one Trainer: FGM, R-Drop, a learning rate by layer, averaged weights."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pairs import PairTrainer
from torch.nn.functional import kl_div
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import TrainerCallback
from transformers.hf_argparser import HfArg

from nezha_convert.errors import UsageError


@dataclass(kw_only=True)
class Tricks:
    """The options; 0 leaves one out."""

    fgm: float = HfArg(default=0.0, help="length of FGM's step along the embeddings' gradient, such as 1")
    rdrop: float = HfArg(default=0.0, help="weight of R-Drop's divergence, such as 4")
    layer_decay: float = HfArg(default=0.0, help="a layer's share of the next one's rate, such as 0.95")
    ema: float = HfArg(default=0.0, help="decay of averaged weights, which are saved, such as 0.999")


class TricksTrainer(PairTrainer, TrainerCallback):
    """A Trainer with `tricks`, for one process and DDP. It is its own callback, by which averaged weights follow."""

    def __init__(self, *arguments: Any, tricks: Tricks, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.tricks = tricks
        if any((tricks.fgm, tricks.rdrop, tricks.layer_decay, tricks.ema)) and self.is_fsdp_enabled:
            raise UsageError("--fgm, --rdrop, --layer_decay and --ema need whole tensors, which FSDP shards")
        if tricks.ema and self.args.load_best_model_at_end:
            raise UsageError("--ema saves averaged weights, and --load_best_model_at_end those of a step")
        if tricks.ema:
            self.average = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(tricks.ema))
            self.add_callback(self)

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """FGM (arXiv 1605.07725): also the gradient at embeddings moved by e g / |g|, where g is a sequence's slope."""
        if not self.tricks.fgm:
            return super().training_step(model, inputs, num_items_in_batch)
        with embeddings(model) as seen:
            loss = super().training_step(model, dict(inputs), num_items_in_batch)
        slope = seen[0].grad.float()
        with embeddings(model, self.tricks.fgm * slope / slope.flatten(1).norm(dim=1).clamp(min=1e-30)[:, None, None]):
            super().training_step(model, dict(inputs), num_items_in_batch)
        return loss

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """R-Drop (arXiv 2106.14448): the losses of two passes, plus a weight times the mean of their two divergences.

        The passes are one, of a batch twice as long. Where each token has a label, those of -100 do not count.
        """
        if not self.tricks.rdrop or not model.training:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        twice = {name: torch.cat([value, value]) if torch.is_tensor(value) else value for name, value in inputs.items()}
        loss, outputs = super().compute_loss(model, twice, True, num_items_in_batch)
        loss = loss if num_items_in_batch is not None else 2 * loss  # the mean over both, doubled
        for name in (name for name in outputs if name.endswith("logits")):
            one, other = outputs[name].float().log_softmax(-1).chunk(2)
            both = [kl_div(a, b, reduction="none", log_target=True).sum(-1) for a, b in ((one, other), (other, one))]
            apart, labels = sum(both) / 2, inputs.get("labels")
            if labels is not None and labels.shape == apart.shape:
                apart = apart[labels != -100]
            of_pairs = name == "seq_relationship_logits"
            items = inputs.get("num_pairs_in_batch") if of_pairs else num_items_in_batch
            processes = self.accelerator.num_processes if self.args.average_tokens_across_devices else 1
            loss = loss + self.tricks.rdrop * (apart.mean() if items is None else apart.sum() * processes / items)
        return (loss, outputs) if return_outputs else loss

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Each layer's rate is a share of the next one's (arXiv 1905.05583); the head has all of it."""
        optimizer = super().create_optimizer(model)
        if self.tricks.layer_decay:
            names = {parameter: name for name, parameter in self.model.named_parameters()}
            groups = defaultdict(list)
            for number, group in enumerate(optimizer.param_groups):
                for parameter in group["params"]:
                    below = layers_below_top(names[parameter], self.model.config.num_hidden_layers)
                    groups[below, number].append(parameter)
            optimizer.param_groups[:] = [
                {**group, "params": groups[below, number], "lr": group["lr"] * self.tricks.layer_decay**below}
                for (below, number), group in ((key, optimizer.param_groups[key[1]]) for key in sorted(groups))
            ]
        return optimizer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A resumed run goes on with its average."""
        if state.global_step:
            file = Path(args.resume_from_checkpoint) / "average.pt"
            self.average.load_state_dict(torch.load(file, map_location=args.device, weights_only=True))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """w' = decay w' + (1 - decay) w; the first w' is the first w."""
        self.average.update_parameters(self.model)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A checkpoint has the average beside its own weights."""
        if state.is_world_process_zero:
            torch.save(
                self.average.state_dict(), Path(args.output_dir, f"checkpoint-{state.global_step}", "average.pt")
            )

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The average is what was trained."""
        self.model.load_state_dict(self.average.module.state_dict())


def layers_below_top(name: str, layers: int) -> int:
    """0 for the last layer and what follows it, `layers` for the embeddings."""
    layer = re.search(r"encoder\.layer\.(\d+)\.", name)
    return layers - 1 - int(layer[1]) if layer else layers * (".embeddings." in name)


@contextmanager
def embeddings(model: Any, step: torch.Tensor | None = None) -> Iterator[list[torch.Tensor]]:
    """The word embeddings of the passes within, whose gradients are kept; or with `step` added to them."""
    seen: list[torch.Tensor] = []

    def hook(module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        if step is None:
            output.retain_grad()
            seen.append(output)
        return output if step is None else output + step.to(output.dtype)

    handle = getattr(model, "module", model).get_input_embeddings().register_forward_hook(hook)
    try:
        yield seen
    finally:
        handle.remove()

"""The library's trainer on a line through points: a run that takes a second and logs like any other."""

import torch
from torch import nn
from transformers import Trainer, TrainingArguments

from videollm.training.progress import LOSS_OF


class Line(nn.Module):
    """y = a x, learned; its inputs are called as a decoder's, for the library to count them."""

    def __init__(self):
        super().__init__()
        self.slope = nn.Linear(1, 1, bias=False)

    def forward(self, input_ids, labels):
        loss = (self.slope(input_ids.float()) - labels).pow(2).mean()
        return {"loss": loss}


class LineTrainer(Trainer):
    """Logs the losses of two datasets."""

    def log(self, logs, *args, **kwargs):
        if "loss" in logs:
            logs |= {f"{LOSS_OF}{name}": logs["loss"] * share for name, share in (("webvid", 1.5), ("cc3m", 0.5))}
        super().log(logs, *args, **kwargs)


def toy_run(folder, callbacks, *, steps=6, resume=None, save_steps=3):
    """Trains in a folder, and returns the trainer."""
    arguments = TrainingArguments(
        output_dir=str(folder), max_steps=steps, per_device_train_batch_size=4, gradient_accumulation_steps=2,
        learning_rate=0.1, logging_steps=2, save_steps=save_steps, report_to="none", disable_tqdm=True, use_cpu=True,
        include_num_input_tokens_seen="all",
    )  # fmt: skip
    points = [{"input_ids": torch.tensor([n % 5]), "labels": torch.tensor([3.0 * (n % 5)])} for n in range(64)]
    trainer = LineTrainer(Line(), arguments, train_dataset=points, callbacks=callbacks)
    # The library's own lines, which ours take the place of.
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=None if resume is None else str(folder / resume))
    return trainer

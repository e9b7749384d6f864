"""The Hugging Face Trainer: an image folder as a data set, transformed on the fly."""

from __future__ import annotations

import tempfile
import time
from typing import Any

import torch
from datasets import load_dataset
from timm.data import create_transform
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainingArguments

from benchmarks.networks import network
from benchmarks.work import LR, MOMENTUM, Work, contend


class Classifier(nn.Module):
    """The network, with the loss that the Trainer expects."""

    def __init__(self) -> None:
        super().__init__()
        self.network = network()

    def forward(self, pixel_values: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.network(pixel_values)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


class Clock(TrainerCallback):
    """Records the seconds of each epoch, validation included."""

    def __init__(self) -> None:
        self.epochs: list[float] = []

    def on_epoch_begin(self, *_: Any, **__: Any) -> None:
        self.began = time.perf_counter()

    def on_evaluate(self, *_: Any, **__: Any) -> None:
        self.epochs.append(time.perf_counter() - self.began)


def collate(rows: list[dict[str, Any]]) -> dict[str, Tensor]:
    return {
        "pixel_values": torch.stack([row["pixel_values"] for row in rows]),
        "labels": torch.tensor([row["label"] for row in rows]),
    }


def main(work: Work) -> dict[str, Any]:
    options = {"scale": (0.8, 1.0), "hflip": 0.5, "color_jitter": None} if work.augment else {}
    settings = {"crop_mode": "squash", "crop_pct": 1.0}
    plain = create_transform(work.size, is_training=False, **settings)
    augmented = create_transform(work.size, is_training=True, **options) if work.augment else plain

    def load_images(split: str, transform: Any) -> Any:
        rows = load_dataset("imagefolder", data_dir=f"{work.folder}/{split}", split="train")

        def convert(batch: dict[str, Any]) -> dict[str, Any]:
            batch["pixel_values"] = [transform(image.convert("RGB")) for image in batch.pop("image")]
            return batch

        return rows.with_transform(convert)

    model, clock = Classifier(), Clock()
    trainable = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.SGD(trainable, lr=LR, momentum=MOMENTUM)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder,
            per_device_train_batch_size=work.batch,
            per_device_eval_batch_size=work.batch,
            num_train_epochs=work.epochs,
            dataloader_num_workers=work.workers,
            remove_unused_columns=False,
            label_names=["labels"],
            eval_strategy="epoch",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            bf16=work.precision == "bfloat16",
        )
        trainer = Trainer(
            model,
            arguments,
            data_collator=collate,
            train_dataset=load_images("train", augmented),
            eval_dataset=load_images("val", plain),
            optimizers=(optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)),
            callbacks=[clock],
        )
        trainer.train()
        began = time.perf_counter()
        output = trainer.predict(load_images("test", plain))
        predict = time.perf_counter() - began
    accuracy = float((output.predictions.argmax(1) == output.label_ids).mean())
    return {"epochs": clock.epochs, "test_accuracy": accuracy, "predict": predict, "besides": predict}


if __name__ == "__main__":
    contend(main)

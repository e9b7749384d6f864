"""A plain loop: timm's network and transforms, torchvision's ImageFolder, torch's DataLoader."""

from __future__ import annotations

import time
from typing import Any

import torch
from timm.data import create_transform
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from benchmarks.networks import network
from benchmarks.work import LR, MOMENTUM, Work, contend


def loader(work: Work, split: str, *, train: bool) -> DataLoader[Any]:
    options = {"scale": (0.8, 1.0), "hflip": 0.5, "color_jitter": None} if train and work.augment else {}
    transform = create_transform(
        work.size, is_training=bool(options), crop_mode="squash", crop_pct=1.0, **options
    )
    images = ImageFolder(f"{work.folder}/{split}", transform)
    return DataLoader(
        images,
        work.batch,
        shuffle=train,
        num_workers=work.workers,
        persistent_workers=True,
        pin_memory=torch.cuda.is_available(),
    )


def accuracy(model: nn.Module, batches: DataLoader[Any], device: torch.device) -> float:
    model.eval()
    correct = count = 0
    with torch.inference_mode():
        for images, labels in batches:
            correct += int((model(images.to(device)).argmax(1).cpu() == labels).sum())
            count += len(labels)
    return correct / count


def main(work: Work) -> dict[str, Any]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = network().to(device)
    trainable = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.SGD(trainable, lr=LR, momentum=MOMENTUM)
    criterion = nn.CrossEntropyLoss()
    train, val, test = (loader(work, split, train=split == "train") for split in ("train", "val", "test"))
    epochs = []
    for _ in range(work.epochs):
        began = time.perf_counter()
        model.train()
        for images, labels in train:
            images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
            optimizer.zero_grad()
            loss = criterion(model(images), labels)
            loss.backward()
            optimizer.step()
        accuracy(model, val, device)
        epochs.append(time.perf_counter() - began)
    began = time.perf_counter()
    test_accuracy = accuracy(model, test, device)
    predict = time.perf_counter() - began
    return {"epochs": epochs, "test_accuracy": test_accuracy, "predict": predict, "besides": predict}


if __name__ == "__main__":
    contend(main)

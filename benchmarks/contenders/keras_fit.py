"""Keras on TensorFlow: its own VGG16, image_dataset_from_directory, fit."""

from __future__ import annotations

import os
import time
from typing import Any

os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import tensorflow as tf
from keras import layers

from benchmarks.work import DROPOUT, HIDDEN, LR, MOMENTUM, Work, contend


class Clock(keras.callbacks.Callback):
    """Records the seconds of each epoch, validation included."""

    def __init__(self) -> None:
        super().__init__()
        self.epochs: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.epochs.append(time.perf_counter() - self.began)


def images(work: Work, split: str, *, shuffle: bool) -> tf.data.Dataset:
    size = (work.size, work.size)
    dataset = keras.utils.image_dataset_from_directory(
        f"{work.folder}/{split}", image_size=size, batch_size=work.batch, shuffle=shuffle, verbose=False
    )
    return dataset.prefetch(tf.data.AUTOTUNE)


def main(work: Work) -> dict[str, Any]:
    keras.utils.set_random_seed(1)
    if work.precision == "bfloat16":
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
    base = keras.applications.VGG16(weights=None, include_top=False, input_shape=(work.size, work.size, 3))
    base.trainable = True
    for layer in base.layers:
        layer.trainable = layer.name.startswith("block5")
    inputs = keras.Input((work.size, work.size, 3))
    augmented = inputs
    if work.augment:
        for layer in (layers.RandomFlip("horizontal"), layers.RandomZoom((-0.2, 0.0))):
            augmented = layer(augmented)
    prepared = keras.applications.vgg16.preprocess_input(augmented)
    features = layers.Flatten()(base(prepared))
    hidden = layers.Dropout(DROPOUT)(layers.Dense(HIDDEN, activation="relu")(features))
    model = keras.Model(inputs, layers.Dense(2, dtype="float32")(hidden))
    model.compile(
        keras.optimizers.SGD(LR, momentum=MOMENTUM),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    clock = Clock()
    model.fit(
        images(work, "train", shuffle=True),
        validation_data=images(work, "val", shuffle=False),
        epochs=work.epochs,
        callbacks=[clock],
        verbose=0,
    )
    test = images(work, "test", shuffle=False)
    trained = time.perf_counter()
    model.evaluate(test.take(1), verbose=0)  # compiles the graph
    began = time.perf_counter()
    _, accuracy = model.evaluate(test, verbose=0)
    predict = time.perf_counter() - began
    bottleneck = keras.Sequential([keras.Input((work.size, work.size, 3)), base])
    only_images = test.map(lambda image, _: image)
    bottleneck.predict(only_images.take(1), verbose=0)
    began = time.perf_counter()
    bottleneck.predict(only_images, verbose=0)
    ended = time.perf_counter()
    return {
        "epochs": clock.epochs,
        "test_accuracy": accuracy,
        "predict": predict,
        "frozen_pass": ended - began,
        "besides": ended - trained,
    }


if __name__ == "__main__":
    contend(main)

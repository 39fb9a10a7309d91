"""Compare training speeds when only the head of a pretrained network is trained."""

import statistics
import time
from dataclasses import replace
from multiprocessing.connection import Connection

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from training_turns import (
    CLASSES,
    LITE0,
    USUAL,
    everything,
    faster_dtypes,
    noise,
    race,
    ratio,
    speeds_in_turns,
    training_of,
)

from common.cpu_runtime import usable_cores
from common.seeds import torch_generator
from trainables.recipe import Dtype
from trainables.stages import Stage

HEAD = LITE0.with_values(translate=0, stages=(Stage(train="head"),))
HEAD_IMAGES, HEAD_EPOCHS = 1024, 8


def print_head(rounds: int) -> None:
    """Print the speeds of training the head alone, and the gain over a whole schedule."""
    dtypes, _ = faster_dtypes(LITE0)
    print("\n| head of lite0 | usual | ours: features | ours: on features | bare linear layer |"
          f" ours over bare | {HEAD_EPOCHS} epochs: over usual |")  # fmt: skip
    print("|---|--:|--:|--:|--:|--:|--:|")
    for dtype in dtypes:
        speeds = speeds_in_turns(
            {
                "usual": (race, HEAD, dtype, USUAL),
                "features": (race_features, dtype),
                "head": (race_head, dtype),
                "bare": (race_bare, dtype),
            },
            rounds,
            with_loader=["usual"],
        )
        usual = [HEAD_EPOCHS / each for each in speeds["usual"]]
        ours = [
            1 / features + HEAD_EPOCHS / head
            for features, head in zip(speeds["features"], speeds["head"], strict=True)
        ]
        medians = " | ".join(f"{statistics.median(each):,.0f}" for each in speeds.values())
        over_bare = ratio(speeds["head"], speeds["bare"])
        print(f"| {dtype} | {medians} | {over_bare} | {ratio(usual, ours)} |", flush=True)
    print(
        "\nImages per second. Features are those of each image and its mirror image; both count "
        "as one image."
    )


def race_features(connection: Connection, dtype: Dtype) -> None:
    """Answer with the images per second of computing the features of HEAD_IMAGES images."""
    torch.set_num_threads(usable_cores())
    images = noise()
    splits = replace(everything(), train=np.arange(HEAD_IMAGES))
    while connection.recv():
        training = training_of(HEAD, dtype, images, splits)
        start = time.perf_counter()
        training.rehearse(1)
        connection.send(HEAD_IMAGES / (time.perf_counter() - start))


def race_head(connection: Connection, dtype: Dtype) -> None:
    """Answer with the images per second of our epochs on features."""
    torch.set_num_threads(usable_cores())
    splits = replace(everything(), train=np.arange(HEAD_IMAGES))
    training = training_of(HEAD, dtype, noise(), splits)
    steps = 400
    training.rehearse(2)
    while connection.recv():
        start = time.perf_counter()
        training.rehearse(steps)
        connection.send(steps * HEAD.optimizer.batch_size / (time.perf_counter() - start))


def race_bare(connection: Connection, dtype: Dtype) -> None:
    """Answer with the images per second of a linear layer and torch's AdamW on tensors."""
    torch.set_num_threads(usable_cores())
    batch, steps = HEAD.optimizer.batch_size, 400
    features = torch.rand(HEAD_IMAGES, 1280, generator=torch_generator(0, "features"))
    labels = torch.arange(HEAD_IMAGES) % CLASSES
    head = nn.Linear(1280, CLASSES)
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3, fused=True)
    while connection.recv():
        start = time.perf_counter()
        for step in range(steps):
            first = step * batch % HEAD_IMAGES
            optimizer.zero_grad()
            rows = slice(first, first + batch)
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
                loss = functional.cross_entropy(head(features[rows]), labels[rows])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        connection.send(steps * batch / (time.perf_counter() - start))

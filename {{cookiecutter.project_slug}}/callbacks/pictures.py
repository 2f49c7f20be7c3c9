"""Puts pictures into the logger."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional as F

LINE_HEIGHT = 12  # pixels, of Pillow's default font
GAP = 4  # pixels between images


def draw_grid(images: Tensor, captions: list[str], columns: int = 8, cell: int = 96) -> Image.Image:
    """Draws (N, C, H, W) floats in [-1, 1], each `cell` pixels high, with its caption under it."""
    width = cell * images.shape[3] // images.shape[2]
    images = F.interpolate(images.detach().float().cpu(), size=(cell, width))
    pixels = ((images.clamp(-1, 1) + 1) * 127.5).round().byte()
    pixels = pixels.expand(-1, 3, -1, -1) if pixels.shape[1] == 1 else pixels[:, :3]
    lines = max(len(caption.splitlines()) for caption in captions)
    height = cell + LINE_HEIGHT * lines + GAP
    rows = -(-len(pixels) // columns)
    size = min(columns, len(pixels)) * (width + GAP) - GAP, rows * height
    grid = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(grid)
    for i, (image, caption) in enumerate(zip(pixels, captions, strict=True)):
        x, y = i % columns * (width + GAP), i // columns * height
        grid.paste(Image.fromarray(image.permute(1, 2, 0).numpy()), (x, y))
        caption = "\n".join(line[: width // 6] for line in caption.splitlines())
        draw.text((x + 2, y + cell), caption, fill="black", spacing=1)
    return grid


def log_picture(trainer: Trainer, name: str, picture: Image.Image) -> None:
    """Sends a picture to every logger that takes pictures; the others are left alone."""
    for logger in trainer.loggers:
        kind = type(logger).__name__
        step = trainer.fit_loop.epoch_loop._batches_that_stepped  # what metrics are logged with
        experiment: Any = logger.experiment
        if kind == "TensorBoardLogger":
            tensor = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
            tensor = tensor.view(picture.height, picture.width, 3)
            experiment.add_image(name, tensor, step, dataformats="HWC")
        elif kind == "WandbLogger":
            logger.log_image(name, [picture], step=step)
        elif kind == "MLFlowLogger":
            experiment.log_image(logger.run_id, picture, key=name.replace("/", "-"), step=step)
        elif kind == "CometLogger":
            experiment.log_image(picture, name=name, step=step)


class Pictures(Callback):
    """Shows in a fit what the system's ``pictures`` method makes of the first validation images:
    predictions with their labels, reconstructions or samples.

    Args:
        every_n_epochs: how often; 0 turns the pictures off.
        count: how many images of the first batch; 0 turns them off, too.
    """

    def __init__(self, every_n_epochs: int = 5, count: int = 16) -> None:
        self.every_n_epochs = every_n_epochs
        self.count = count
        self.shown: int | None = None  # the epoch of the last ones

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if not (self.every_n_epochs > 0 and self.count > 0 and hasattr(pl_module, "pictures")):
            return
        if batch_idx or dataloader_idx or trainer.sanity_checking or trainer.state.fn != "fit":
            return
        if not trainer.loggers or trainer.fast_dev_run:
            return
        # Not each epoch has a validation: the first one in so many epochs.
        epoch, n = trainer.current_epoch, self.every_n_epochs
        if self.shown not in (None, epoch) and epoch // n == self.shown // n:
            return
        self.shown = epoch
        # On all processes: where the network is sharded, each of them has to take part.
        with trainer.precision_plugin.val_step_context():  # as in the steps themselves
            images, captions = pl_module.pictures([part[: self.count] for part in batch])
        if trainer.is_global_zero:
            # Few columns: loggers show pictures small.
            log_picture(trainer, "val/pictures", draw_grid(images, captions, columns=4))

"""Sends pictures, or generated text, to the loggers."""

from pathlib import Path
from textwrap import indent
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer, loggers
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from lightning.pytorch.utilities.seed import isolate_rng
from lightning_utilities.core.apply_func import apply_to_collection
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional as F

from engine.compat import step_logged
from engine.files import may_be_missing

LINE_HEIGHT = 12  # pixels, of Pillow's default font
GAP = 4  # pixels between images


def draw_grid(images: Tensor, captions: list[str], columns: int = 8, cell: int = 96) -> Image.Image:
    """Draws (N, C, H, W) floats in [-1, 1], each `cell` pixels high, with its caption under it.

    Raises:
        ValueError: they are no images of 1, 3 or 4 channels.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3, 4):
        raise ValueError(f"a tensor of shape {tuple(images.shape)} is no images")
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


def log_picture(trainer: Trainer, name: str, picture: Image.Image | str) -> None:
    """Sends a picture, or a text, to every logger that can show it."""
    step = step_logged(trainer)
    for logger in trainer.loggers:
        experiment: Any = logger.experiment
        if isinstance(picture, str):
            if isinstance(logger, loggers.TensorBoardLogger):
                # A block of code in Markdown.
                experiment.add_text(name, indent(picture, "    "), step)
            elif isinstance(logger, loggers.WandbLogger):
                logger.log_text(name, columns=["text"], data=[[picture]], step=step)
            elif isinstance(logger, loggers.MLFlowLogger):
                experiment.log_text(logger.run_id, picture, f"{name}-{step}.txt")
            elif isinstance(logger, loggers.CometLogger):
                experiment.log_text(picture, step=step, metadata={"name": name})
        elif isinstance(logger, loggers.TensorBoardLogger):
            experiment.add_image(name, np.asarray(picture), step, dataformats="HWC")
        elif isinstance(logger, loggers.WandbLogger):
            logger.log_image(name, [picture], step=step)
        elif isinstance(logger, loggers.MLFlowLogger):
            experiment.log_image(logger.run_id, picture, key=name.replace("/", "-"), step=step)
        elif isinstance(logger, loggers.CometLogger):
            experiment.log_image(picture, name=name, step=step)


class Pictures(Callback):
    """Shows what the system's ``pictures`` makes of the first samples (images with captions, or a
    picture, or a text): of a validation in the loggers, of ``predict`` in a file beside the table.

    Args:
        every_n_epochs: how often in a fit; 0 turns the pictures off.
        count: how many samples of the first batch; 0 turns them off, too.
    """

    def __init__(self, every_n_epochs: int = 5, count: int = 16) -> None:
        self.every_n_epochs = every_n_epochs
        self.count = count
        self.shown: int | None = None  # the epoch of the last pictures
        self.stands_aside = every_n_epochs <= 0 or count <= 0

    @isolate_rng()  # a fit has the same random numbers with pictures and without
    def draw(self, trainer: Trainer, pl_module: Any, batch: Any) -> Image.Image | str | None:
        """The pictures of a batch; if that fails, says why once, and does not try again."""
        if self.stands_aside or not hasattr(pl_module, "pictures"):
            return None
        batch = apply_to_collection(batch, Tensor, lambda tensor: tensor[: self.count])
        try:
            with trainer.precision_plugin.val_step_context():  # the precision of the steps
                pictures: Any = pl_module.pictures(batch)
            if pictures is None or isinstance(pictures, Image.Image | str):
                return pictures
            images, captions = pictures
            return draw_grid(images, captions, columns=4)  # few, since loggers show pictures small
        except Exception as error:  # pictures must not end a fit
            rank_zero_info(f"No pictures of these batches: {error}")
            self.stands_aside = True
            return None

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *index: int
    ) -> None:
        # Only the first batch of the first loader.
        if any(index) or trainer.sanity_checking or trainer.state.fn != "fit":
            return
        if not trainer.loggers or trainer.fast_dev_run or self.stands_aside:
            return
        # The first validation in each n epochs, since not every epoch has one.
        epoch, n = trainer.current_epoch, self.every_n_epochs
        if self.shown not in (None, epoch) and epoch // n == self.shown // n:
            return
        self.shown = epoch
        # On all processes: a sharded network needs each of them.
        picture = self.draw(trainer, pl_module, batch)
        if picture and trainer.is_global_zero:
            log_picture(trainer, "val/pictures", picture)

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *index: int
    ) -> None:
        picture = None
        if not any(index) and not trainer.fast_dev_run:
            picture = self.draw(trainer, pl_module, batch)
        if not picture or not trainer.is_global_zero:
            return
        path = Path(trainer.default_root_dir, "predictions.png")
        with may_be_missing(path):
            if isinstance(picture, str):
                path.with_suffix(".txt").write_text(picture, encoding="utf-8")
            else:
                picture.save(path)

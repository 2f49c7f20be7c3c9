"""Masks: read, moved with their images, measured, written, and refused where they make no sense."""

import csv
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from projects import ONE_CPU, QUIET, command, inside, small_data
from sklearn import metrics


@pytest.fixture(scope="module")
def project(render):
    return render(data="mask_folder", model="unet")


@pytest.fixture
def folder(project, tmp_path):
    """Inside a project; forty images of 48 x 40 with masks of 0 and 1 in `data`."""
    with inside(project, tmp_path):
        small_data("mask_folder", tmp_path / "data")
        yield tmp_path / "data"


def make(**options):
    from data.mask_folder import MaskFolder

    data = MaskFolder(data_dir="data", image_size=32, num_workers=0, **options)
    data.setup("fit")
    return data


def mask(folder: Path, name: str = "00") -> tuple[Path, np.ndarray]:
    path = folder / "masks" / f"{name}.png"
    return path, np.array(Image.open(path))


def recode(folder: Path, code) -> None:
    """Writes `code` of each mask in its place."""
    for path in (folder / "masks").iterdir():
        array = np.array(Image.open(path))
        Image.fromarray(code(array)).save(path)


def test_image_and_mask_move_together(folder):
    data = make(augment=True, flip=True)
    images = torch.arange(32 * 32, dtype=torch.uint8).view(1, 1, 32, 32).expand(64, 3, -1, -1)
    masks = images[:, 0].clone()
    torch.manual_seed(0)
    moved, moved_masks = data.augment((images, masks))
    padded = moved_masks == 255
    assert torch.equal(moved[:, 0][~padded], moved_masks[~padded])
    assert not torch.equal(moved, images)
    edge = padded & (moved[:, 0] == 0)  # what is padded is black and does not count
    assert edge.sum() > 64
    still = make()
    assert all(map(torch.equal, still.augment((images, masks)), (images, masks)))


@pytest.mark.parametrize("kind", ["numbers", "colours", "palette"])
def test_what_stands_in_a_mask_is_a_class(folder, kind):
    expected = make()
    options = {}
    if kind == "numbers":
        recode(folder, lambda array: np.where(array == 1, 200, 100).astype(np.uint8))
        options["class_values"] = [100, 200]
    if kind == "colours":
        colors = np.array([[0, 0, 128], [255, 255, 0]], np.uint8)
        recode(folder, lambda array: colors[array])
        options["class_values"] = colors.tolist()
    if kind == "palette":  # as those that `predict` writes: the number counts, not the colour
        for path in (folder / "masks").iterdir():
            image = Image.open(path)
            image.putpalette([9, 9, 9, 200, 0, 0])
            image.save(path)
    found = make(**options)
    for split in ("train", "val", "test"):
        rows = found.splits[split].indices
        assert rows == expected.splits[split].indices
        for a, b in zip(
            found.splits[split].dataset.__getitems__(rows),
            expected.splits[split].dataset.__getitems__(rows),
            strict=True,
        ):
            assert torch.equal(a, b)
    assert found.class_counts.sum() == len(found.splits["train"]) * 32 * 32


def test_images_of_16_bits_are_read_in_the_range_of_the_fit(folder):
    for path in (folder / "images").iterdir():
        levels = 1000 + 10 * np.array(Image.open(path).convert("L"), dtype=np.uint16)
        Image.fromarray(levels).save(path.with_suffix(".png"))
        path.unlink()
    data = make()
    low, high = data.facts["value_range"]
    assert 1000 <= low < high <= 3550
    images, _ = next(iter(data.val_dataloader()))
    assert images.max() > images.min() + 100
    Image.fromarray(np.full((9, 9), (low + high) // 2, np.uint16)).save("middle.png")
    assert data.read("middle.png")[0][0].unique().tolist() in ([127], [128])
    other = type(data)("gone", predict_dir="middle.png")
    other.adopt(data.facts)
    assert other.read("middle.png")[0][0].unique().tolist() in ([127], [128])


def test_a_mask_is_turned_as_its_image_is(folder, recwarn):
    """By the EXIF data of each: upside down, and on its side, which changes height and width."""
    right, right_mask = make().splits["train"].dataset[0]
    path, array = mask(folder)
    image = Image.open(folder / "images" / "00.jpg")
    for orientation, turns in ((3, 2), (6, 1)):
        exif = Image.Exif()
        exif[0x0112] = orientation
        turned = np.rot90(np.array(image), turns).copy()
        Image.fromarray(turned).save(folder / "images" / "00.jpg", exif=exif, quality=100)
        Image.fromarray(np.rot90(array, turns).copy()).save(path, exif=exif)
        found, found_mask = make().splits["train"].dataset[0]
        assert torch.equal(found_mask, right_mask)
        assert (found.float() - right.float()).abs().mean() < 8
    assert not [w for w in recwarn if "EXIF" in str(w.message)]
    Image.fromarray(np.rot90(array).copy()).save(path)
    with pytest.raises(ValueError, match=r"00.jpg, turned as its EXIF data says, has 48 x 40 pix"):
        make()
    exif[0x0112] = 3
    image.save(folder / "images" / "00.jpg", exif=exif)
    Image.fromarray(array).save(path)
    with pytest.warns(UserWarning, match=r"00.jpg is turned .*00.png is not: see whether"):
        make()


def test_damaged_exif_data_leaves_the_mask(folder):
    right, right_mask = make().splits["train"].dataset[0]
    path, array = mask(folder)
    text = PngInfo()
    text.add_text("Raw profile type exif", "\nexif\n1\nno number")
    Image.fromarray(array).save(path, pnginfo=text)
    found, found_mask = make().splits["train"].dataset[0]
    assert torch.equal(found, right)
    assert torch.equal(found_mask, right_mask)


def test_pixels_that_do_not_count(folder):
    path, array = mask(folder)
    array[:20] = 255
    Image.fromarray(array).save(path)
    _, masks = make().splits["train"].dataset[0]
    assert (masks[:16] == 255).all() and (masks[16:] < 2).all()
    _, masks = make(class_values=[0, 1], ignore_value=255).splits["train"].dataset[0]
    assert (masks[:16] == 255).all()
    from data.mask_folder import MaskFolder

    with pytest.raises(ValueError, match=r"00.png has the value 255 .* known are 0, 1"):
        MaskFolder("data", ignore_value=None, num_workers=0).setup("fit")


def spoil(folder: Path, fault: str) -> None:
    path, array = mask(folder)
    if fault == "size":
        Image.fromarray(array[:, :-1]).save(path)
    if fault == "value":
        array[3, 4] = 7
        Image.fromarray(array).save(path)
    if fault == "missing":
        path.unlink()
    if fault == "unreadable mask":
        path.write_bytes(b"no image")
    if fault == "unreadable image":
        (folder / "images" / "00.jpg").write_bytes(b"no image")
    if fault == "colours":
        Image.fromarray(np.stack([array * 255, array, array], axis=2)).save(path)
    if fault == "two classes in one":  # 0 and 255, and 255 does not count
        recode(folder, lambda array: array * 255)
    if fault == "same name":
        Image.new("RGB", (48, 40)).save(folder / "images" / "00.png")
    if fault == "empty":
        for file in (folder / "images").iterdir():
            file.unlink()
    if fault == "nothing":
        (folder / "images").rename(folder / "pictures")
    if fault == "no split":
        shutil.copytree(folder / "images", folder / "validation" / "images")
    if fault == "floats":
        Image.fromarray(array.astype(np.float32)).save(path.with_suffix(".tif"))
        path.unlink()
    if fault == "frames":
        other = [Image.fromarray(1 - array)]
        Image.fromarray(array).save(path.with_suffix(".tif"), save_all=True, append_images=other)
        path.unlink()
    if fault == "no pixel counts":
        recode(folder, lambda array: array * 0 + 255)


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("size", r"00.jpg has 48 x 40 pixels, but its mask data.masks.00.png has 47 x 40"),
        ("value", r"00.png has the value 7 .*no class: known are 0, 1, 255.*--data.class_names"),
        (
            "missing",
            r"1 of 40 images have no mask: for data.images.00.jpg there is no data.masks.00",
        ),
        ("unreadable mask", r"masks.00.png cannot be read as a mask"),
        ("unreadable image", r"images.00.jpg cannot be read as an image"),
        ("colours", r"00.png has colours: give .*class_values '\[\[0, 0, 0\], \[255, 1, 1\]\]'"),
        ("two classes in one", r"have no pixel of \['foreground'\].*class_values.*\[0, 255\]"),
        ("same name", r"00.jpg and .*00.png would have the same mask"),
        ("empty", r"There are no images in data.images"),
        ("nothing", r"There is no folder data.images. Put images in"),
        (
            "no split",
            r"data has folders of images that are no split: validation. Splits are called",
        ),
        ("floats", r"00.tif cannot be read as a mask: its pixels are floats: save whole numbers"),
        ("frames", r"00.tif cannot be read as a mask: it has 2 frames, and a mask is one"),
        ("no pixel counts", r"masks in data have no pixel of \['background', 'foreground'\]"),
    ],
)
def test_faults_name_the_file(folder, fault, sentence):
    spoil(folder, fault)
    with pytest.raises(ValueError, match=sentence):
        make()


def test_a_mask_that_may_have_lost_values_is_told(folder):
    path, array = mask(folder)
    Image.fromarray(array * 255).save(path.with_suffix(".jpg"))
    path.unlink()
    with (
        pytest.warns(UserWarning, match=r"00.jpg: JPEG and most WebP files change values"),
        pytest.raises(ValueError, match=r"00.jpg has the value .*no class: known are 0, 1"),
    ):
        make()


def test_a_mask_without_an_image_is_told_and_accents_are_the_same_in_each_form(folder, caplog):
    caplog.set_level("INFO", logger="lightning.pytorch")
    (folder / "images" / "00.jpg").rename(folder / "images" / unicodedata.normalize("NFD", "é.jpg"))
    (folder / "masks" / "00.png").rename(folder / "masks" / unicodedata.normalize("NFC", "é.png"))
    shutil.copy(folder / "masks" / "01.png", folder / "masks" / "zz.png")
    data = make()
    assert len(data.splits["train"].dataset) == 40
    assert "1 masks have no image, the first is data/masks/zz.png" in caplog.text


@pytest.mark.parametrize("place", ["test", "test/images"])
def test_images_without_masks_are_for_predict_alone(folder, place, caplog):
    caplog.set_level("INFO", logger="lightning.pytorch")
    for kind in ("images", "masks"):
        shutil.move(folder / kind, folder / "train" / kind)
    shutil.copytree(folder / "train" / "images", folder / place)
    data = make()
    assert len(data.splits["train"].dataset) == 40 and len(data.splits["test"]) == 8
    assert "data/test has no masks and is left out; --data.predict_dir data/test" in caplog.text


def test_what_lies_beside_masks_is_predicted_without_them(folder):
    data = make()
    names = data.read("data").names
    assert len(names) == 40 and names == data.read("data/images").names


def test_a_number_that_has_another_colour_in_another_mask_is_told(folder, recwarn):
    for path in (folder / "masks").iterdir():
        image = Image.open(path)
        image.putpalette([0, 0, 0, 200, 0, 0])
        image.save(path)
    make()
    assert not [one for one in recwarn if "colour" in str(one.message)]
    path, array = mask(folder, "03")
    image = Image.fromarray(1 - array)
    image.putpalette([200, 0, 0, 0, 0, 0])
    image.save(path)
    with pytest.warns(
        UserWarning, match=r"0 is the colour \[0, 0, 0\] in .*, and \[200, 0, 0\] in .*03"
    ):
        make()


def test_what_lies_under_transparent_pixels_is_told_to_count(folder):
    recode(folder, lambda array: np.stack([array * 200, 0 * array, 0 * array, 255 * array], axis=2))
    with pytest.warns(UserWarning, match=r"00.png is transparent in places: .* counts"):
        make(class_values=[[0, 0, 0], [200, 0, 0]])


def test_a_colour_that_is_no_class(folder):
    recode(folder, lambda array: np.stack([array * 255, array, array], axis=2))
    with pytest.raises(ValueError, match=r"has the value \[255, 1, 1\] .*known are \[0, 0, 0\]"):
        make(class_values=[[0, 0, 0], [255, 0, 0]])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"class_names": ["one"]}, "give 2 to 254 different names"),
        ({"class_values": [0, 1, 2]}, "3 values for 2 class_names"),
        ({"class_values": [0, [1, 2, 3]]}, "give different numbers, or different colours"),
        ({"class_values": [[0, 0, 0], [0, 0, 256]]}, r"\[0, 0, 256\] must have three numbers"),
        ({"ignore_value": 0}, r"ignore_value is 0: give what is none of class_values, \[0, 1\]"),
        ({"ignore_value": [0, 0, 9]}, r"ignore_value is \[0, 0, 9\]: .*, but alike"),
    ],
)
def test_settings_that_make_no_sense(folder, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        make(**options)


def test_weights_are_one_for_each_class(project):
    with inside(project):
        from models.segmenter import Segmenter

        with pytest.raises(Exception, match="weight tensor .* for all 2 classes"):
            Segmenter(torch.nn.Identity(), class_weights=[1.0, 2, 3], class_names=["a", "b"])


def test_files_that_are_not_kept_in_memory_give_the_same(folder, monkeypatch):
    from data.mask_files import MaskFiles
    from data.mask_folder import MaskFolder

    kept = make()
    monkeypatch.setattr(MaskFolder, "most_memory", 1000)
    files = make()
    assert isinstance(files.splits["train"].dataset, MaskFiles)
    rows = files.splits["test"].indices
    pairs = (data.splits["test"].dataset.__getitems__(rows) for data in (kept, files))
    assert all(torch.equal(a, b) for a, b in zip(*pairs, strict=True))


def test_metrics_are_those_of_all_pixels_that_count(folder):
    from lightning.pytorch import Trainer

    from models.segmenter import Segmenter

    class Known(torch.nn.Module):
        """Class 1 where the image is bright."""

        def forward(self, images):
            bright = images[:, :1] * 10
            return torch.cat([-bright, bright], dim=1) + 0 * self.zero

        def __init__(self):
            super().__init__()
            self.zero = torch.nn.Parameter(torch.zeros(()))

    images = torch.full((4, 3, 8, 8), -1.0)
    images[:, :, :4] = 1
    masks = torch.zeros(4, 8, 8, dtype=torch.uint8)
    masks[:, :2] = 1
    masks[:, 7] = 255
    masks[2:] = 255  # of a whole batch, too
    loader = torch.utils.data.DataLoader(list(zip(images, masks, strict=True)), batch_size=2)
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    system = Segmenter(Known(), class_names=["dark", "bright"])
    [found] = trainer.validate(system, loader, verbose=False)
    # Of 8 rows: 2 are bright and found, 2 are dark and taken for bright, 3 are dark and found.
    # Those that count alone: of each 7 rows 2 are wrong, by 20.
    assert found["val/loss"] == pytest.approx(20 * 2 / 7, rel=1e-4)
    assert found["val/iou_dark"] == pytest.approx(3 / 5)
    assert found["val/iou_bright"] == pytest.approx(2 / 4)
    assert found["val/mean_iou"] == pytest.approx((3 / 5 + 2 / 4) / 2)
    assert found["val/dice_dark"] == pytest.approx(6 / 8)
    assert found["val/mean_dice"] == pytest.approx((6 / 8 + 4 / 6) / 2)


def test_learns_writes_masks_of_the_images_size_and_predicts_others(folder):
    options = [*ONE_CPU, *QUIET, "--data.data_dir=data", "--data.image_size=32"]
    fit = ["fit", *options, "--trainer.max_epochs=30", "--model.network.width=8"]
    command("train", *fit, "--model.lr=0.01", "--data.batch_size=8")
    metrics = command("train", "test", *options, "--ckpt_path=best").trainer.callback_metrics
    assert metrics["test/mean_iou"] > 0.8
    new = folder / "new" / "below"
    new.mkdir(parents=True)
    Image.open(folder / "images" / "03.jpg").resize((96, 80)).save(new / "one.png")
    options += ["--data.predict_dir=data/new", "--predictions.output=found/table.csv"]
    command("train", "predict", *options, "--ckpt_path=best")
    with open("found/table.csv", newline="", encoding="utf-8") as file:
        [row] = csv.DictReader(file)
    assert row["input"] == "data/new/below/one.png"
    written = Image.open("found/masks/one.png")
    assert written.size == (96, 80) and written.mode == "P"
    truth = np.array(Image.open(folder / "masks" / "03.png").resize((96, 80)))
    assert (np.array(written) == truth).mean() > 0.9
    share = float(row["share_foreground"])
    assert share == pytest.approx((truth == 1).mean(), abs=0.1)
    assert share + float(row["share_background"]) == pytest.approx(1)

    from predictor import load

    found, again = load("best")(["data/new/below/one.png"] * 2)
    assert torch.equal(found["probability"], again["probability"])
    assert found["share_foreground"] == pytest.approx(share, abs=1e-5)
    assert found["probability"].shape == (2, 32, 32)
    with pytest.raises(ValueError, match="nothing to predict"):
        load("best")([])  # and not what was predicted before


def test_the_dice_loss_is_cross_entropy_and_what_f1_lacks_of_one(render, tmp_path):
    generator = torch.Generator().manual_seed(0)
    masks = torch.randint(2, (2, 32, 32), generator=generator)  # no pixel is of the last class
    found = torch.where(torch.rand(masks.shape, generator=generator) < 0.8, masks, 1)
    logits = 1e3 * torch.nn.functional.one_hot(found, 3).movedim(-1, 1).float()
    masks[0, 0] = 255
    with inside(render(data="earth", model="unet"), tmp_path):
        from models.dice_loss import DiceCrossEntropy

        options = dict(weight=torch.tensor([1.0, 2.0, 3.0]), ignore_index=255)
        loss, entropy = DiceCrossEntropy(**options), torch.nn.CrossEntropyLoss(**options)
        added = loss(logits, masks) - entropy(logits, masks)
        assert loss.eval()(logits, masks) == entropy(logits, masks)  # a mean over all pixels
    counted = masks != 255
    f1 = metrics.f1_score(masks[counted], found[counted], average=None)
    assert len(f1) == 2
    assert added.item() == pytest.approx(1 - (f1.sum() + 1) / 3, abs=1e-3)


def test_pictures_of_the_earth_turn_with_their_masks(render, tmp_path):
    with inside(render(data="earth", model="unet"), tmp_path):
        from data.earth import Earth

        data = Earth(augment=True)
        masks = torch.arange(4).repeat_interleave(16).repeat_interleave(64).view(1, 64, 64).byte()
        sides = set()
        for _ in range(40):
            images, turned = data.augment((masks.unsqueeze(1).expand(-1, 3, -1, -1), masks))
            seen = turned != 255
            assert all(torch.equal(images[:, i][seen], turned[seen]) for i in range(3))
            corners = turned[0, 8::47, 8::47].flatten().tolist()
            sides.add(tuple(corners))
        assert len(sides) == 4  # the first stripe is above, below, left or right


def test_the_earth_is_split_by_longitude_and_lies_north_up(render, tmp_path):
    with inside(render(data="earth", model="unet"), tmp_path):
        from data.earth import Earth

        data = Earth()
        data.setup("fit")
        images, masks = data.splits["train"].dataset.samples
        names = data.splits["train"].dataset.names
        longitudes = {
            split: {names[i].split("lon")[1] for i in data.splits[split].indices}
            for split in ("train", "val", "test")
        }
        assert not longitudes["train"] & longitudes["test"]
        assert not longitudes["val"] & (longitudes["train"] | longitudes["test"])
        assert [len(longitudes[split]) for split in ("train", "val", "test")] == [46, 6, 15]
        folds = [Earth(num_folds=3, fold=fold) for fold in range(3)]
        held = []
        for fold in folds:
            fold.setup("fit")
            rows = {split: fold.splits[split].indices for split in ("train", "val", "test")}
            sides = [{names[i].split("lon")[1] for i in rows[split]} for split in rows]
            assert not sides[0] & sides[1] and rows["test"] == data.splits["test"].indices
            held += rows["val"]
        assert len(held) == len({*held})
        assert {*held} == {*data.splits["train"].indices, *data.splits["val"].indices}
        share = {name: (masks[i] == 1).float().mean() for i, name in enumerate(names)}
        assert share["lat+27_lon+20"] == 1  # the Sahara
        assert share["lat-85_lon+20"] == 1  # the ice of Antarctica
        assert share["lat+27_lon-39"] == 0  # the Atlantic
        assert (masks[names.index("lat+0_lon+31")] == 2).float().mean() > 0.1  # Lake Victoria
        sea, land = (
            images[names.index(name)].float() for name in ("lat+27_lon-39", "lat+27_lon+20")
        )
        assert sea[2].mean() > sea[0].mean() and land[0].mean() > land[2].mean()
        prepared, _ = data.preparation()((images[:1], masks[:1]))
        assert torch.allclose(prepared, (images[:1] / 255.0).sqrt() * 2 - 1)

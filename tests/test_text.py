"""Text: what is read, how it is split, what a language model says of it, and what it writes."""

import csv
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from projects import ONE_CPU, QUIET, command, inside, small_data
from torch.nn import functional as F

OPTIONS = [
    *(*ONE_CPU, *QUIET, "--data.batch_size=8", "--trainer.limit_train_batches=6"),
    *("--trainer.limit_val_batches=2", "--pictures.every_n_epochs=0"),
]
TINY = ["--model.network.dim=16", "--model.network.depth=1", "--model.network.heads=2"]
GPT = [*OPTIONS, *TINY]


@pytest.fixture(scope="module")
def project(render):
    return render(data="text_files", model="gpt", logger="csv")


@pytest.fixture(scope="module")
def trained(project, tmp_path_factory):
    """A folder with a small fit of characters, and the options that point to its text."""
    folder = tmp_path_factory.mktemp("trained")
    with inside(project, folder):
        data = [*small_data("text_files", folder / "data"), "--data.unit=character"]
        command("train", "fit", *GPT, *data, "--trainer.max_epochs=1")
    return folder, data


def write(folder: Path, **files: bytes) -> Path:
    for name, content in files.items():
        (folder / f"{name}.txt").write_bytes(content)
    return folder


def made(folder: Path, **options):
    from data.text_files import TextFiles

    data = TextFiles(data_dir=str(folder), context=4, **options)
    data.setup("fit")
    return data


def text_of(data, split: str) -> str:
    """The targets of a split's windows, one after the other."""
    windows = data.splits[split].__getitems__(list(range(len(data.splits[split]))))
    return "".join(map(chr, windows[:, 1:].flatten()))


def test_the_splits_are_pieces_of_the_text_in_its_order(project, tmp_path):
    text = "".join(chr(ord("a") + i % 26) for i in range(401))
    write(tmp_path, a=b"\xef\xbb\xbf" + text[:150].encode(), b=b"", c=text[150:].encode())
    with inside(project):
        data = made(tmp_path, val_fraction=0.1)
        assert [text_of(data, name) for name in ("train", "val", "test")] == [
            *(text[1:325], text[325:361], text[361:401]),
        ]
        folds = [made(tmp_path, num_folds=3, fold=fold) for fold in range(3)]
        assert "".join(text_of(fold, "val") for fold in folds) == text[1:361]
        assert text_of(folds[1], "train") == text[1:121] + text[241:361]


def test_characters_are_those_of_the_training_split_and_others_are_one(project, tmp_path):
    write(tmp_path, a=("äb" * 162 + "ä" + "é" * 76).encode())
    with inside(project):
        with pytest.warns(UserWarning, match="not in that of the training: 1, as 'é'. They count"):
            data = made(tmp_path, unit="character")
        assert data.facts == {
            "context": 4,
            "unit": "character",
            "vocab_size": 3,
            "characters": ["\ufffd", "b", "ä"],
        }
        codes = torch.tensor([[ord(c) for c in "bäé\U0010ffff"]], dtype=torch.int32)
        assert data.preparation()(codes).tolist() == [[1, 2, 0, 0]]


def test_finds_what_is_linked_once_and_what_the_pattern_says(project, tmp_path):
    folder, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    for place in (folder / "below", folder / ".hidden", elsewhere):
        place.mkdir(parents=True)
        write(place, a=b"text " * 9)
    write(folder, b=b"more")
    (folder / "again.txt").symlink_to(folder / "b.txt")
    (folder / "linked").symlink_to(elsewhere)
    (folder / "below" / "round").symlink_to(folder)
    with inside(project):
        from data.text_reading import find_files

        def found(pattern: str) -> list[str]:
            return [path.relative_to(folder).as_posix() for path in find_files(folder, pattern)]

        assert len(found("*")) == 3
        assert found("below/*.txt") == ["below/a.txt"]
        assert found("**/b*") == ["b.txt", "below/a.txt"]


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (b"", {}, "a.txt is empty"),
        (b"one\ntwo \xff", {"unit": "character"}, "a.txt, line 2: the byte 0xff is not UTF-8"),
        ("many words".encode("utf-16"), {}, "a.txt has zero bytes"),
        (b"few words", {}, "The text has 9 bytes, too few for windows of 4"),
        (b"few", {}, "The text has 3 bytes, and a window 5"),
        (b"words", {"context": 1}, "context is 1: it must be 2 or more"),
        (b"words", {"temperature": -1.0}, "temperature is -1.0: it must be 0 or more"),
        (b"words", {"data_dir": "elsewhere"}, "There is no elsewhere"),
        (b"words", {"pattern": "*.md"}, r"There is no file \*.md in"),
        (b"words" * 999 + b"\0", {}, "a.txt has zero bytes"),
    ],
)
def test_what_is_no_text_is_refused(project, tmp_path, content, options, message):
    write(tmp_path, a=content)
    with inside(project):
        from data.text_files import TextFiles
        from engine.errors import UserError

        with pytest.raises(UserError, match=message):
            data = TextFiles(**{"data_dir": str(tmp_path), "context": 4, **options})
            data.setup("fit")


@pytest.mark.parametrize("unit", ["byte", "character"])
def test_a_link_to_nothing_is_refused(project, tmp_path, unit):
    (tmp_path / "a.txt").symlink_to(tmp_path / "gone.txt")
    with inside(project):
        from data.text_files import TextFiles
        from engine.errors import UserError

        with pytest.raises(UserError, match="a.txt cannot be read"):
            TextFiles(data_dir=str(tmp_path), unit=unit).setup("fit")


@pytest.mark.parametrize("text", ["größe " * 99, "é" * 2**19 + " 漢" * 9, "a" + "é" * 2**19])
def test_bytes_of_another_encoding_are_told(project, tmp_path, recwarn, text):
    write(tmp_path, a=text.encode())
    with inside(project):
        from data.text_files import TextFiles

        TextFiles(data_dir=str(tmp_path), context=4).setup("fit")
        assert not [one for one in recwarn if "not UTF-8" in str(one.message)]
        write(tmp_path, a="größe ".encode("latin-1") * 99)
        with pytest.warns(UserWarning, match="a.txt is not UTF-8, as prompts"):
            TextFiles(data_dir=str(tmp_path), context=4).setup("fit")


def test_a_file_is_mapped_and_read_where_it_is_needed(project, tmp_path):
    path = tmp_path / "large.txt"
    with path.open("wb") as file:  # 8 GB, of which the disk has a MB
        file.write(b"begins" * 2**18)
        file.truncate(8 * 2**30)
    with inside(project):
        from data.text_reading import read_bytes

        text = read_bytes([path])
        assert len(text) == 8 * 2**30
        windows = text.unfold(0, 129, 128)
        assert windows[torch.tensor([0, len(windows) - 1])][:, :6].tolist() == [
            list(b"begins"),
            [0] * 6,
        ]


def test_trains_as_a_loop_written_by_hand(project, tmp_path):
    """The losses of the first steps, with a cosine, weight decay and the same batches."""
    steps, losses = 5, []
    with inside(project, tmp_path):
        data = small_data("text_files", tmp_path / "data")
        options = [*GPT, *data, "--model.optimizer.fused=false", "--trainer.log_every_n_steps=1"]
        options += ["--data.val_fraction=0.1"]
        fit = command("train", "fit", *options, f"--trainer.max_steps={steps}")
        with Path("logs/version_0/metrics.csv").open(newline="") as file:
            rows = [row["train/loss"] for row in csv.DictReader(file)]
        found = [float(loss) for loss in rows if loss]

        from lightning.pytorch import seed_everything

        from models.networks.gpt import GPT as Network

        seed_everything(42, verbose=False)
        network = Network(256, context=16, dim=16, depth=1, heads=2)
        text = b"".join(path.read_bytes() for path in sorted((tmp_path / "data").iterdir()))
        text = torch.tensor(list(text))
        count = (len(text) - 1) // 16
        train = count - round(count / 10)
        train -= round(train / 10)
        order = torch.randperm(train, generator=torch.Generator().manual_seed(42))
        named = [(p.ndim < 2, p) for p in network.parameters()]
        groups = [
            {"params": [p for small, p in named if not small]},
            {"params": [p for small, p in named if small], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=0.003, betas=(0.9, 0.95), weight_decay=0.1)
        for step, rows in enumerate(order.split(8)[:steps]):
            for group in optimizer.param_groups:
                group["lr"] = 0.003 * (step + 1) / 51
            windows = torch.stack([text[16 * i : 16 * i + 17] for i in rows.tolist()])
            loss = F.cross_entropy(network(windows[:, :-1]).flatten(0, 1), windows[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert found == pytest.approx(losses, rel=1e-5)
        weights = fit.model.network.state_dict()
        for name, weight in network.state_dict().items():
            torch.testing.assert_close(weights[name], weight, rtol=1e-4, atol=1e-6)


def test_figures_are_those_of_the_text(trained, project):
    folder, data = trained
    with inside(project, folder):
        test = command("train", "test", *GPT, *data, "--ckpt_path=best")
        found = {name: value.item() for name, value in test.trainer.callback_metrics.items()}
        system, module = test.model.eval(), test.datamodule
        windows = module.splits["test"].__getitems__(list(range(len(module.splits["test"]))))
        ids = system.preparation(windows)
        with torch.no_grad():
            logits = system.network(ids[:, :-1])
        nats = F.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none").double()
        size = len("".join(map(chr, windows[:, 1:].flatten())).encode())
        assert found["test/bits_per_byte"] == pytest.approx(nats.sum().item() / math.log(2) / size)
        assert found["test/perplexity"] == pytest.approx(nats.mean().exp().item(), rel=1e-4)

        command("train", "predict", *GPT, *data, "--ckpt_path=best")
        with Path("logs/version_0/predictions.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        sizes = [len("".join(map(chr, window[1:])).encode()) for window in windows]
        right = nats.sum(dim=1) / math.log(2) / torch.tensor(sizes)
        assert [float(row["bits_per_byte"]) for row in rows] == pytest.approx(right.tolist())


def test_a_text_that_has_got_new_characters_keeps_those_of_the_fit(
    trained, project, tmp_path, caplog
):
    folder, data = trained
    (tmp_path / "one.txt").write_text(
        "жж" + (folder / "data" / "one.txt").read_text("utf-8"), "utf-8"
    )
    with inside(project, folder):
        checkpoint = ["--ckpt_path=logs/version_0", f"--data.data_dir={tmp_path}"]
        found = command("train", "test", *GPT, *data, *checkpoint)
    assert "removed; all others keep their split. What was renamed, changed" in caplog.text
    assert "ж" in text_of(found.datamodule, "train")
    assert "ж" not in found.datamodule.characters == found.model.characters


def test_windows_that_have_left_their_split_are_told(project, tmp_path, caplog):
    """Of a text that repeats itself some are in another split when all have moved."""
    caplog.set_level("INFO")
    text = "".join(f"{i} {'rivers' if i % 3 else 'hills'}.\n" for i in range(600))
    with inside(project, tmp_path):
        Path("one.txt").write_text(text, "utf-8")
        before = made(tmp_path).state_dict()
        Path("one.txt").write_text(f"ss{text}", "utf-8")
        made(tmp_path).load_state_dict(before)
    assert "have left their split. What was renamed, changed" in caplog.text


def test_text_that_was_trained_on_is_told_though_it_has_moved(project, tmp_path, recwarn):
    generator = torch.Generator().manual_seed(0)
    old, new = (torch.randint(97, 123, (n,), generator=generator) for n in (9000, 60_001))
    (tmp_path / "old.txt").write_bytes(bytes(old.tolist()))
    with inside(project, tmp_path):
        options = [*GPT, f"--data.data_dir={tmp_path}", "--data.pattern=*.txt", "--data.context=16"]
        command("train", "fit", *options, "--trainer.max_epochs=1")
        test = ["test", *options, "--ckpt_path=best"]
        command("train", *test)
        (tmp_path / "zz.txt").write_bytes(bytes(new.tolist()))
        command("train", *test)
        assert not [one for one in recwarn if "trained on" in str(one.message)]
        (tmp_path / "zz.txt").rename(tmp_path / "aa.txt")
        with pytest.warns(UserWarning, match="places in the test split are text that was trained"):
            command("train", *test)


def test_goes_on_with_prompts_where_the_text_is_not(trained, project):
    """The most likely of what follows, without a cache; and the same from a fresh process's view."""
    folder, _ = trained
    with inside(project, folder):
        Path("prompts.txt").write_text("# 1 naïve\n\n2 simple riv\n", encoding="utf-8")
        options = ["--data.data_dir=nowhere", "--data.length=40", "--data.temperature=0"]
        options += ["--ckpt_path=best", "--predictions.output=found.csv"]
        with pytest.warns(UserWarning, match=r"not in the text of the training: \['#'\]"):
            made = command("train", "predict", *GPT, *options, "--data.prompt_file=prompts.txt")
        with open("found.csv", newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert [row["input"] for row in rows] == ["# 1 naïve", "2 simple riv"]
        system = made.model.eval()
        for row in rows:
            codes = torch.tensor([[*map(ord, row["input"])]])
            assert len(row["text"]) == 40
            ids = system.preparation(codes)
            first = system.network(ids)[0, -1].argmax()
            assert row["text"][0] == system.characters[first]
        with pytest.raises(ValueError, match="are no prompts: give texts"):
            made.datamodule.read({"2 simple": ["riv"]})  # such as a data frame
        with pytest.raises(
            SystemExit, match="data with unit character, but this TextFiles has unit byte"
        ):
            command("train", "predict", *GPT, *options, "--data.prompt=2", "--data.unit=byte")
        with pytest.raises(SystemExit, match="prompt reads as null or a comment"):
            command("train", "predict", *GPT, *options, "--data.prompt=# comment")
        both = ["--data.prompt=2", "--data.predict_dir=prompts.txt"]
        with pytest.raises(SystemExit, match="predict_dir is prompts.txt, and there is a prompt"):
            command("train", "predict", *GPT, *options, *both)


@pytest.mark.parametrize("kind", ["gpt", "lstm"])
def test_writes_with_a_state_what_it_would_write_without(render, project, kind):
    with inside(render(data="text_files", model=kind)):
        from models.generation import generate

        torch.manual_seed(0)
        if kind == "gpt":
            from models.networks.gpt import GPT as Network

            network = Network(11, context=12, dim=16, depth=2, heads=2)
            for weight in network.parameters():  # some are zero at first
                torch.nn.init.normal_(weight, std=0.5)
        else:
            from models.networks.lstm import LSTM as Network

            network = Network(11, dim=16, depth=2)
        prompts = torch.randint(11, (3, 4))
        with torch.no_grad():
            found = generate(network, prompts, 8, temperature=0)
            tokens = prompts
            for _ in range(8):
                following = network(tokens)[:, -1].argmax(dim=1, keepdim=True)
                tokens = torch.cat([tokens, following], dim=1)
            assert torch.equal(found, tokens[:, 4:])
            assert generate(network, prompts, 30).shape == (3, 30)  # further than it looks back
            drawn = generate(network, prompts, 30, temperature=5.0, top_k=1)
            assert torch.equal(drawn[:, :8], found)


def test_exports_what_follows_a_text_of_any_length(trained, project, caplog):
    folder, data = trained
    with inside(project, folder):
        with caplog.at_level("INFO", logger="lightning.pytorch"):  # an export leaves another
            command("export", "best", "--format=pt2")
        module = torch.export.load("logs/version_0/model.pt2").module()
        from models.language_model import LanguageModel

        path = "logs/version_0/checkpoints/best.ckpt"
        system = LanguageModel.load_from_checkpoint(path).eval()
        codes = torch.tensor([[*map(ord, "12 naïve ?")]] * 2, dtype=torch.int32)
        with torch.no_grad():
            right = system.network(system.preparation(codes))[:, -1].softmax(dim=1)
        torch.testing.assert_close(module(codes)["probability"], right)


def test_resumes_in_mid_epoch_to_the_bit(trained, project, tmp_path):
    _, data = trained
    saves = ["--last_checkpoint.filename={step}", "--last_checkpoint.save_top_k=-1"]
    options = [*GPT, *data, *saves, "--last_checkpoint.every_n_train_steps=4"]
    with inside(project, tmp_path):
        whole = command("train", "fit", *options, "--trainer.max_epochs=2")
        path = Path("logs/version_0/checkpoints/step=8.ckpt").rename(tmp_path / "step=8.ckpt")
        parts = command("train", "fit", *options, "--trainer.max_epochs=2", f"--ckpt_path={path}")
        weights = parts.model.state_dict()
        assert all(torch.equal(w, weights[n]) for n, w in whole.model.state_dict().items())


def test_generated_text_reaches_the_logger(render, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with inside(render(data="text_files", model="lstm"), tmp_path):
        data = small_data("text_files", tmp_path / "data")
        options = [*OPTIONS, *data, "--pictures.every_n_epochs=1", "--model.network.dim=16"]
        command("train", "fit", *options, "--trainer.max_epochs=1")
        events = EventAccumulator("logs/version_0").Reload()
        [event] = events.Tensors("val/pictures/text_summary")
        assert len(event.tensor_proto.string_val[0].decode()) > 4 * 200


@pytest.mark.nightly
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_processes_train_what_one_writes_with(render, tmp_path, strategy):
    hardware = {"accelerator": "cpu", "devices": "2", "strategy": strategy}
    project = render(data="text_files", model="gpt", logger="csv", copy=True, **hardware)
    with inside(project):
        data = [*small_data("text_files", tmp_path / "data"), "--data.batch_size=8", *TINY, *QUIET]

        def run(*words: str) -> str:
            python = [sys.executable, *words]
            result = subprocess.run(python, capture_output=True, text=True, timeout=400)
            assert result.returncode == 0, result.stderr[-3000:]
            return result.stdout

        run("train.py", "fit", *data, "--trainer.max_epochs=2", "--trainer.limit_train_batches=9")
        checkpoint = Path("logs/version_0/checkpoints/best.ckpt")
        assert checkpoint.is_dir() == (strategy == "fsdp2")
        if checkpoint.is_dir():
            run("consolidate.py", str(checkpoint), "whole.ckpt")
            checkpoint = Path("whole.ckpt")
        weights = torch.load(checkpoint, weights_only=True)["state_dict"]
        assert weights["network.backbone.blocks.0.attention.to_out.weight"].any()  # zeros at first
        writes = ["--data.prompt=1 naive", "--data.length=20", "--predictions.output=found.csv"]
        command("train", "predict", *GPT, *data, *writes, f"--ckpt_path={checkpoint}")
        with open("found.csv", newline="", encoding="utf-8") as file:
            [row] = csv.DictReader(file)
        assert row["text"]

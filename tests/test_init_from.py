"""Weights to start from: what fits is taken, wherever it comes from; what does not is named."""

from pathlib import Path

import pytest
import torch
import yaml
from projects import SMALL, command, evaluate, inside


@pytest.fixture(scope="module")
def project(render):
    return render()


def test_another_head_keeps_its_own_weights(project, tmp_path, caplog):
    with inside(project, tmp_path):
        from engine.weights import start_from
        from models.networks.cnn import CNN

        old, new = CNN((1, 8, 8), 10, width=4), CNN((1, 8, 8), 3, width=4)
        head = new.head.weight.clone()
        # As Lightning, torch.compile's wrapper and plain torch name them.
        for prefix in ("network.", "_orig_mod.", ""):
            named = {f"{prefix}{name}": value for name, value in old.state_dict().items()}
            torch.save({"state_dict": named} if prefix else named, "weights.pth")
            for parameter in new.backbone.parameters():
                torch.nn.init.zeros_(parameter)
            caplog.clear()
            with caplog.at_level("INFO"):
                start_from(new, "weights.pth")
            pairs = zip(
                new.backbone.state_dict().items(), old.backbone.state_dict().items(), strict=True
            )
            assert all(n == m and torch.equal(a, b) for (n, a), (m, b) in pairs)
            assert torch.equal(new.head.weight, head)
            assert "36 of 38 taken" in caplog.text
            assert "head.weight (10, 16), here (3, 16)" in caplog.text


def test_a_bare_backbone_and_an_encoder_find_their_place(project, tmp_path):
    with inside(project, tmp_path):
        from engine.weights import start_from
        from models.networks.cnn import CNN

        old = CNN((1, 8, 8), 10, width=4)
        for prefix in ("", "network.encoder."):  # torchvision's way; an autoencoder's
            new = CNN((1, 8, 8), 10, width=4)
            weights = {f"{prefix}{k}": v for k, v in old.backbone.state_dict().items()}
            torch.save(weights | {"network.decoder.weight": torch.zeros(3)}, "weights.pth")
            start_from(new, "weights.pth")
            assert all(
                torch.equal(a, b)
                for a, b in zip(new.backbone.parameters(), old.backbone.parameters(), strict=True)
            )


def test_what_cannot_be_taken_is_a_sentence(project, tmp_path):
    with inside(project, tmp_path):
        from engine.errors import UserError
        from engine.weights import start_from

        network = torch.nn.Linear(2, 3)
        torch.save({"a": torch.zeros(5)}, "other.pth")
        with pytest.raises(UserError, match=r"none of its weights fits this Linear: a \(5,\)"):
            start_from(network, "other.pth")
        torch.save(network, "pickled.pth")
        with pytest.raises(UserError, match="pickled code"):
            start_from(network, "pickled.pth")
        torch.save({"epoch": 3}, "none.pth")
        with pytest.raises(UserError, match="no weights: save the state_dict"):
            start_from(network, "none.pth")
        with pytest.raises(UserError, match="--model.init_from nowhere: no checkpoint there"):
            start_from(network, "nowhere")


def test_other_data_of_the_same_shape_is_named(render, tmp_path, caplog):
    with inside(render(data="csv", logger="csv"), tmp_path):
        rows = [f"{i},{i % 7},{'xy'[i % 2]}" for i in range(60)]
        Path("old.csv").write_text("\n".join(["a,b,target", *rows]))
        Path("new.csv").write_text("\n".join(["a,c,target", *rows]).replace("y", "u"))
        command("train", "fit", *SMALL, "--trainer.max_epochs=1", "--data.data_path=old.csv")
        again = ["--trainer.fast_dev_run=true", "--model.init_from=best"]
        with caplog.at_level("INFO"):
            command("train", "fit", *SMALL, *again, "--data.data_path=old.csv")
            assert "trained on other data" not in caplog.text
            command("train", "fit", *SMALL, *again, "--data.data_path=new.csv")
        [line] = [one for one in caplog.messages if "trained on other data: " in one]
        assert "class_names ['x', 'y'] (here ['u', 'x']); columns [" in line


def test_a_named_run_is_started_from_and_a_resume_is_not(project, tmp_path, capsys, caplog):
    with inside(project, tmp_path):
        options = [*SMALL, "--trainer.max_epochs=1", "--model.network.width=4"]
        first = command("train", "fit", *options, "--name=first", "--tags=a,b").model
        Path("first").mkdir()  # of something else, as of predictions: it holds no checkpoint
        # With no learning rate the parameters stay what they were at the start.
        still = [*options, "--model.lr=0", "--model.init_from=first", "--seed_everything=7"]
        second = command("train", "fit", *still, "--tags=b").model
        assert caplog.messages.count("model.lr is 0: nothing will be trained") == 1
        pairs = zip(first.parameters(), second.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
        run = Path("logs", "version_1")
        checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
        assert "init_from" not in checkpoint["hyper_parameters"]
        for parameter in second.parameters():
            torch.nn.init.ones_(parameter)  # a sign that the resume takes its checkpoint's
        names = dict(second.named_parameters())
        checkpoint["state_dict"] |= {name: value.detach() for name, value in names.items()}
        torch.save(checkpoint, run / "checkpoints" / "last.ckpt")
        resumed = command(
            "train", "fit", *options, "--ckpt_path=last", "--trainer.max_epochs=2"
        ).model
        assert all(torch.equal(p, torch.ones_like(p)) for p in resumed.parameters())

        [record] = yaml.safe_load(Path("logs/version_0/run.yaml").read_text())
        assert (record["name"], record["tags"]) == ("first", ["a", "b"])
        best = torch.load("logs/version_0/checkpoints/best.ckpt", weights_only=True)
        [score] = [
            state["best_model_score"].item()
            for state in best["callbacks"].values()
            if state.get("monitor") == record["result"]["monitor"]
        ]
        result = record["result"]
        assert result["best"] == score
        assert (result["state"], result["epochs"], result["best_epoch"]) == ("finished", 1, 0)

        capsys.readouterr()
        metrics = evaluate("test", "first")
        correct = round(metrics["test/acc"] * 364)
        output = capsys.readouterr().out
        lines = {line.split()[0]: line.split()[1:] for line in output.splitlines() if "/" in line}
        accuracy = f"{metrics['test/acc']:.4g}"
        assert lines["test/acc"] == [accuracy, f"({correct}", "of", "364)"]
        assert lines["test/loss"] == [f"{metrics['test/loss']:.4g}"]


def test_the_average_forgets_the_first_weights(project, tmp_path):
    """After 60 steps 0.99 ** 60 = 55 % of an average with a fixed decay would be the first weights."""
    with inside(project, tmp_path):
        from torch.optim.swa_utils import AveragedModel

        from engine.lightning_callbacks import EMA

        model = torch.nn.Linear(1, 1, bias=False)
        average = AveragedModel(model, multi_avg_fn=EMA(decay=0.99).average)
        with torch.no_grad():
            for step in range(61):
                model.weight.fill_(float(step > 0))  # the first weights are 0, all others 1
                average.update_parameters(model)
        assert average.module.weight.item() > 0.99


def test_weights_of_torchvision_get_the_images_that_they_expect(render, tmp_path):
    from torchvision.models import resnet18

    with inside(render(model="resnet"), tmp_path):
        from engine.weights import start_from
        from models.networks.resnet import ResNet

        theirs = resnet18(num_classes=3).eval()
        torch.save(theirs.state_dict(), "resnet18.pth")
        ours = ResNet((3, 64, 64), 3, imagenet_scale=True).eval()
        start_from(ours, "resnet18.pth")
        ours.head.load_state_dict(theirs.fc.state_dict())  # the head has another name
        images = torch.rand(2, 3, 64, 64)
        mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 3, 1, 1)
        expected = theirs((images - mean) / std)
        assert torch.allclose(ours(images * 2 - 1), expected, atol=1e-4)

"""Tables: what a file says is what is trained on, predicted and exported, or it is refused."""

import csv
import gzip
import importlib
import json
import re
import shlex
import time
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow
import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from projects import ONE_CPU, QUIET, command, inside, small_data
from sklearn import metrics
from templates import ROOT

FRUITS = [*ONE_CPU, *QUIET, "--data.batch_size=16"]


@pytest.fixture(scope="module")
def project(render):
    return render(data="csv", logger="csv")


@pytest.fixture
def tables(project, tmp_path):
    """`tables(text or bytes, **arguments)` is the data module of that file."""
    with inside(project, tmp_path):
        kind = importlib.import_module("data.csv").CSV

        def tables(content: str | bytes, name: str = "table.csv", **arguments):
            raw = content.encode() if isinstance(content, str) else content
            Path(name).write_bytes(raw)
            return kind(**{"data_path": name, "target": "y", **arguments})

        yield tables


def lines(header: str, row, count: int = 40) -> str:
    return "\n".join([header, *(row(i) for i in range(count))])


def columns(data) -> dict[str, dict]:
    return {column.pop("name"): column for column in map(dict, data.facts["columns"])}


def test_columns_are_what_their_types_say(tables):
    colours = ("red", "blue", "")
    data = tables(
        lines(
            "row,n,gap,flag,day,colour,name,nothing,zip,y",
            lambda i: (
                f"{i},{i / 4},{i if i % 5 else 'NA'},{'true' if i % 2 else 'false'},"
                f"2026-01-{1 + i % 28:02},{colours[i % 3]},name {i},,0{i % 4},{i + 0.5}"
            ),
        ),
        categorical=["zip"],
    )
    found = columns(data)
    assert {name: (c["kind"], c["missing"]) for name, c in found.items()} == {
        "n": ("number", False),
        "gap": ("number", True),
        "flag": ("boolean", False),
        "day": ("date", False),
        "colour": ("category", True),
        "zip": ("category", False),
    }
    assert found["colour"]["categories"] == ["blue", "red"]
    assert found["zip"]["categories"] == ["00", "01", "02", "03"]  # a code, whatever it looks like
    facts = data.facts
    assert (facts["num_numbers"], facts["cardinalities"]) == (
        5,
        [3, 5],
    )  # and whether gap is missing
    assert (facts["num_outputs"], facts["class_names"]) == (1, [])
    data.setup("fit")
    numbers, codes, targets = data.splits["train"].dataset.samples
    assert numbers[1].tolist() == [0.25, 1, 1, 20455]  # days from 1970 to 2026-01-02
    assert codes[:3].tolist() == [[2, 1], [1, 2], [0, 3]]
    assert targets[:2].tolist() == [0.5, 1.5]


def test_categories_and_scales_are_those_of_the_training_rows(tables):
    data = tables(lines("a,c,y", lambda i: f"{i * i},c{i % 19},{i}.5", 38), val_fraction=0.2)
    data.setup("fit")
    train = data.splits["train"].indices
    assert len(data.splits["test"]) == 8 and len(train) < 30
    assert columns(data)["c"]["categories"] == sorted({f"c{i % 19}" for i in train})
    preparation = data.preparation()
    squares = np.array(train, dtype=float) ** 2
    assert preparation.mean.item() == pytest.approx(squares.mean())
    assert preparation.std.item() == pytest.approx(squares.std())


def test_what_is_missing_or_unknown_is_prepared_as_such(tables):
    data = tables(
        lines("a,b,c,y", lambda i: f"{i if i % 4 else ''},{i * 2},{'uv'[i % 2]},{i % 2}.5")
    )
    data.setup("fit")
    prepare = data.preparation()
    numbers = torch.tensor([[torch.nan, 3.0], [2.0, torch.inf]])
    raw = (numbers, torch.tensor([[1], [9]]), torch.zeros(2))
    (prepared, codes), targets = prepare(raw)
    scale = (numbers - prepare.mean) / prepare.std
    assert prepared.tolist() == [[0, scale[0, 1].item(), 1], [scale[1, 0].item(), 0, 0]]
    assert codes.tolist() == [[1], [0]] and targets is raw[2]
    (again, same), _ = prepare({"c": raw[1][:, 0], "b": numbers[:, 1], "a": numbers[:, 0]})
    assert torch.equal(again, prepared) and torch.equal(same, codes)


PLAIN = lines("größe,art,y", lambda i: f"{i}.5,{'ä b'[i % 3]},{i * 0.25}")
GERMAN = PLAIN.replace(",", ";").replace(".", ",")
FORMATS = {
    "mark": (PLAIN.encode("utf-8-sig"), {}),
    "utf-16": (PLAIN.encode("utf-16"), {}),
    "windows": (PLAIN.replace("\n", "\r\n").encode("cp1252"), {}),
    "decimal comma": (GERMAN.encode(), {}),
    "tabs": (PLAIN.replace(",", "\t").encode(), {}),
    "quotes": (
        "\n".join(f'"{line}"' for line in PLAIN.replace(",", '","').split("\n")).encode(),
        {},
    ),
    "gzip": (gzip.compress(PLAIN.encode()), {"name": "table.csv.gz"}),
}


@pytest.mark.parametrize("case", FORMATS)
def test_files_of_many_programs_say_the_same(tables, case):
    content, arguments = FORMATS[case]
    right, found = tables(PLAIN, "plain.csv"), tables(content, **arguments)
    assert found.facts == right.facts
    assert found.facts["columns"][0]["name"] == "größe"
    assert found.whole[0].equals(right.whole[0])


def test_parquet_is_the_same_table(tables, tmp_path):
    right = tables(PLAIN)
    importlib.import_module("pyarrow.parquet").write_table(right.whole[0], "TABLE.PQ")
    kind = type(right)
    assert kind(data_path="TABLE.PQ", target="y").facts == right.facts
    arrays = [pyarrow.array(range(40)), pyarrow.array(range(40))]
    twice = pyarrow.Table.from_arrays(arrays, names=["y", "y"])
    importlib.import_module("pyarrow.parquet").write_table(twice, "twice.pq")
    with pytest.raises(ValueError, match="^twice.pq has several columns with the name y"):
        _ = kind(data_path="twice.pq", target="y").facts


def test_decimals_of_a_database_are_the_classes_that_a_file_has(tables):
    """Numbers of two decimal places, as SQL writes them, are 1 and 2 in another file."""
    values = [Decimal(1 + i % 2).quantize(Decimal("0.01")) for i in range(40)]
    table = pyarrow.table({"a": [i * 3 % 40 for i in range(40)], "y": values})
    importlib.import_module("pyarrow.parquet").write_table(table, "table.pq")
    data = type(tables(PLAIN))(data_path="table.pq", target="y")
    assert data.facts["class_names"] == ["1", "2"]
    data.setup("fit")
    Path("new.csv").write_text("a,y\n3,2\n4,1.0\n", "utf-8")
    assert data.read("new.csv").samples[2].tolist() == [1, 0]


TABLE = lines("a,b,y", lambda i: f"{i},{i % 3},{i * 0.5}")
FAULTS = {
    "none": (None, {"data_path": "elsewhere.csv"}, "There is no file elsewhere.csv"),
    "empty": ("", {}, "table.csv is empty"),
    "header": ("a,b,y\n", {}, "table.csv has no rows"),
    "few": (lines("a,y", lambda i: f"{i},{i}.5", 5), {}, "5 rows are too few"),
    "ragged": (
        TABLE + "\n1,2\n",
        {},
        r"Row #42: Expected 3 columns, got 2: 1,2. The first row names",
    ),
    "twice": (TABLE.replace("a,b", "a,a"), {}, "several columns with the name a"),
    "encoding": (TABLE.encode().replace(b"7,1", b"7,\x81"), {}, "Give the encoding"),
    "no text": (TABLE.encode("utf-16-le"), {}, "no text in UTF-8, nor Parquet.*Give the encoding"),
    "target": (TABLE, {"target": "z"}, "no column 'z' to predict, but a, b, y.*--data.target"),
    "column": (TABLE, {"leave_out": ["q"]}, "no column 'q', but a, b, y"),
    "constant": (lines("a,y", lambda i: f"{i},1"), {}, "the target is always .1"),
    "rare": (
        lines("a,y", lambda i: f"{i * 2},{'rare' if i < 2 else 'uv'[i % 2]}"),
        {},
        "less than 3 rows.*: rare",
    ),
    "words": (
        lines("a,y", lambda i: f"{i},{'uv'[i % 2]}"),
        {"task": "regression"},
        "no numbers to",
    ),
    "infinite": (TABLE.replace("\n7,", "\ninf,"), {}, "row 8: a is inf"),
    "too large": (TABLE.replace("\n7,", "\n7e39,"), {}, "row 8: a is 7e.39, infinite in float32"),
    "mixed": (TABLE.replace("\n7,", "\nseven,"), {}, "row 8: a is 'seven', and most others are n"),
    "unlike": (TABLE.replace("\n7,", "\n$7.00,"), {}, "row 8: a is '.7.00', and most others"),
    "thousands": (TABLE.replace("\n7,", '\n"7,000",'), {}, "row 8: a is '7,000', and most others"),
    "dates": (
        lines("d,y", lambda i: f"{1 + i % 28:02}.01.2026,{i}.5"),
        {},
        "row 1: d is '01.01.2026', and most others are dates.*--data.date_format '%d.%m.%Y'",
    ),
    "dates with slashes": (
        lines("d,y", lambda i: f"2026/1/{1 + i % 28} 10:30,{i}.5"),
        {},
        "row 1: d is '2026/1/1 10:30', .*--data.date_format '%Y/%m/%d %H:%M'",
    ),
    "months first": (
        lines("d,y", lambda i: f"{1 + i % 12}/{1 + i % 28}/2026,{i}.5"),
        {},
        "row 1: d is '1/1/2026', .*--data.date_format '%m/%d/%Y'",
    ),
    "days or months first": (
        lines("d,y", lambda i: f"{1 + i % 12:02}/{1 + i % 9:02}/2026,{i}.5"),
        {},
        r"row 1: d is '01/01/2026', .*--data.date_format '%d/%m/%Y' \(or %m before %d\?\), or",
    ),
    "months by name": (
        lines("d,y", lambda i: f"{1 + i % 28}-Jan-26,{i}.5"),
        {},
        "row 1: d is '1-Jan-26', and most others are dates.*--data.date_format '%d-%b-%y'",
    ),
    "money": (
        lines("a,y", lambda i: f"EUR {i}.5,{i}"),
        {},
        "row 1: a is 'EUR 0.5', and most others",
    ),
    "a date": (
        lines("d,y", lambda i: f"2026-02-{29 if i == 7 else 1 + i % 28:02},{i}.5"),
        {},
        "row 8: d is '2026-02-29', and most others are dates",
    ),
    "other point": (
        lines("a;b;y", lambda i: f"{i % 3}.125;{i},5;{i * 2}"),
        {"decimal": ","},
        "row 1: a is '0.125', and most others are numbers. Write it as 1234,5 is",
    ),
    "minus": (TABLE.replace("\n7,", "\n\u22127,"), {}, "row 8: a is '.7', .* as 1234.5 is"),
    "title": (
        f"Report\n{TABLE}",
        {},
        "Expected 1 columns, got 3: a,b,y. The first row names the co",
    ),
    "spaces": (TABLE.replace("\n7,", "\n7\u202f000,"), {}, "row 8: a is '7.+000', .* as 1234.5 is"),
    "offsets": (
        lines("d,y", lambda i: f"2026-01-{1 + i % 9:02}T10:00{'' if i % 4 else 'Z'},{i}.5"),
        {},
        "row 2: d is '2026-01-02T10:00', and some .* an offset from UTC, some none. Give all of them",
    ),
    "an offset apart": (
        lines("d,y", lambda i: f"2026-01-{1 + i % 9:02} 10:00:00 +01:00,{i}.5"),
        {},
        "row 1: d is '2026-01-01 10:00:00 .01:00', and most .*date_format '%Y-%m-%d %H:%M:%S %z'",
    ),
    "half a day": (
        lines("d,y", lambda i: f"2026-01-{1 + i % 9:02} 10:00 PM UTC,{i}.5"),
        {},
        "row 1: d is '2026-01-01 10:00 PM UTC', and most .*date_format '%Y-%m-%d %I:%M %p UTC'",
    ),
    "ids": (
        lines("id,a,y", lambda i: f"n{i % 30},{i},{i}.5"),
        {"id_column": "id"},
        "table.csv, column id, row 31: n0 names row 1, too",
    ),
    "classes": (lines("a,y", lambda i: f"{i % 7},{['u', 'v', ' u'][i % 3]}"), {}, "spaces only"),
    "always": (
        lines("a,b,c,y", lambda i: f"true,2026-01-01,same,{i}.5"),
        {},
        "no column is left to predict from",
    ),
    "nothing": (lines("a,y", lambda i: f",{i}.5"), {}, "no column is left to predict from"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_faults_are_named_with_their_place(tables, case):
    content, arguments, sentence = FAULTS[case]
    with pytest.raises(ValueError, match=sentence):
        tables(TABLE if content is None else content, **arguments).setup("fit")


def test_what_a_value_means_can_be_said(tables):
    content = TABLE.replace("\n7,", "\n?,")
    data = tables(content, missing=["?"])
    assert columns(data)["a"] == {"kind": "number", "missing": True}
    for month, date_format in {"01": "%d.%m.%Y", "Jan": "%d.%b.%Y", "January": "%d.%B.%Y"}.items():
        content = lines("d,y", lambda i, m=month: f"{1 + i % 28:02}.{m}.2026,{i}.5")
        data = tables(content, date_format=date_format)
        data.setup("fit")
        assert data.splits["train"].dataset.samples[0][0].item() == 20454  # 2026-01-01


@pytest.mark.parametrize(
    ("column", "first"),
    [
        (lambda i: f"2026/01/{1 + i % 28} 12:30:15", 20454 + 45015 / 86400),
        (lambda i: f"{1 + i % 28}.01.2026T23:30", 20454 + 23.5 / 24),
        (lambda i: f"1/{1 + i % 28}/2026 1:30 PM", 20454 + 13.5 / 24),
        (lambda i: "0000-00-00" if i == 3 else f"2026-01-{1 + i % 28:02}", 20454),
        (lambda i: "#DIV/0!" if i == 3 else f"{i}.5", 0.5),
        (lambda i: "a, b" if i == 3 else f"{i}.5", 0.5),
        (lambda i: "-" if i == 3 else f"{i}.5", 0.5),
    ],
)
def test_the_option_that_is_named_mends_the_column(project, tables, column, first):
    table = lines("'?, #',y", lambda i: f'"{column(i)}",{i % 7}.5').replace("'", '"')
    with pytest.raises(ValueError) as error:
        _ = tables(table).facts
    named = re.search(r"--data\.(\w+) ('.*'), or --data\.(\w+) ('.*') in a table", str(error.value))
    # The command line takes them as they are.
    parser = ArgumentParser()
    parser.add_class_arguments(type(tables(PLAIN)), "data")
    for name, value in (named.groups()[:2], named.groups()[2:]):
        given = parser.parse_args([f"--data.{name}", *shlex.split(value)]).data[name]
        data = tables(table, **{name: given})
        data.setup("fit")
        numbers, codes, _ = data.splits["train"].dataset.samples
        assert codes.shape[1] or numbers[0].item() == pytest.approx(first)


def test_rows_are_known_by_whole_numbers_of_any_size(tables):
    """Floats hold no odd number beyond 2^53: two samples would be one."""
    from data.columns import keys_of_rows

    for first in (0, 2**60):
        whole = pyarrow.table({"id": [*range(first, first + 1000), None]})
        assert len(keys_of_rows(whole).unique()) == 1001
    # Whatever the file, and the other rows, are.
    small, floats = (
        pyarrow.table({"id": pyarrow.array([1, None, 3], kind)}) for kind in ("int8", "double")
    )
    assert keys_of_rows(small).tolist() == keys_of_rows(floats).tolist()


@pytest.mark.parametrize(
    ("values", "task", "names"),
    [
        ("uv", "auto", ["u", "v"]),
        ("01", "auto", ["0", "1"]),
        ("01", "regression", []),
        (["10", "9"], "classification", ["9", "10"]),
        (["true", "false"], "auto", ["false", "true"]),
        (["1.0", "2.0", ""], "auto", ["1", "2"]),  # rows without a target are left out
        (["0.5", "1.5"], "auto", []),
    ],
)
def test_the_target_says_whether_to_classify(tables, caplog, values, task, names):
    caplog.set_level("INFO")
    data = tables(lines("a,y", lambda i: f"{i * 2},{values[i % len(values)]}"), task=task)
    assert data.facts["class_names"] == names
    data.setup("test")
    assert "taken for" not in caplog.text  # that was said in the fit
    data.setup("fit")
    assert ("taken for" in caplog.text) == (task == "auto")
    targets = data.splits["train"].dataset.samples[2]
    right = [values[i % len(values)] for i in range(40) if values[i % len(values)]]
    assert len(targets) == len(right)
    kept = [str(i) for i in range(40) if values[i % len(values)]]
    assert data.predict_names == [kept[i] for i in data.splits["test"].indices]
    if names:
        assert [names[i] for i in targets] == [value.removesuffix(".0") for value in right]
    else:
        assert targets.tolist() == [float(value) for value in right]


def test_a_test_split_of_its_own(tables):
    Path("test.csv").write_text(lines("a,b,y", lambda i: f"{i},0,{i}.25", 6))
    data = tables(TABLE, test_path="test.csv")
    data.setup("fit")
    assert data.splits["test"].indices == [*range(40, 46)]
    assert {i < 40 for name in ("train", "val") for i in data.splits[name].indices} == {True}
    assert data.predict_names == [str(i) for i in range(6)]  # as in the file
    for name, content, sentence in (
        ("less.csv", "a,y\n1,2.5\n", "less.csv lacks columns of table.csv: b"),
        ("words.csv", "a,b,y\none,1,2.5\n", "words.csv has other values than table.csv: .*a"),
        ("none.csv", "a,b\n1,1\n", "none.csv has no column 'y'.*--data.predict_dir takes a file"),
    ):
        Path(name).write_text(content)
        with pytest.raises(ValueError, match=sentence):
            tables(TABLE, test_path=name).setup("fit")


def read(path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def classified(project, tmp_path_factory):
    """A folder with a run on the small table of the project's own tests, and its options."""
    folder = tmp_path_factory.mktemp("classified")
    with inside(project, folder):
        options = [*FRUITS, *small_data("csv", folder / "data")]
        command("train", "fit", *options, "--trainer.max_epochs=4")
    return folder, options


def test_a_classification_is_measured_as_scikit_learn_does(project, classified):
    folder, options = classified
    with inside(project, folder):
        charts = f"--config={project}/configs/callbacks/table_charts.yaml"
        trainer = command("train", "test", *options, charts, "--ckpt_path=best").trainer
        command("train", "predict", *options, "--ckpt_path=best")
        rows = read("logs/version_0/predictions.csv")
        true = [row["fruit"] for row in rows]
        probability = [float(row["probability_plum"]) for row in rows]
        found = {key: value.item() for key, value in trainer.callback_metrics.items()}
        names = [row["prediction_name"] for row in rows]
        assert found["test/acc"] == pytest.approx(metrics.accuracy_score(true, names))
        assert found["test/f1"] == pytest.approx(metrics.f1_score(true, names, average="macro"))
        plum = [name == "plum" for name in true]
        assert found["test/auroc"] == pytest.approx(metrics.roc_auc_score(plum, probability))
        assert found["test/loss"] == pytest.approx(metrics.log_loss(plum, probability), rel=1e-4)
        [drawn] = [each for each in trainer.callbacks if type(each).__name__ == "TableCharts"]
        assert sorted(drawn.pairs.compute()[:, 1].tolist()) == sorted(
            float(row["prediction_name"] == row["fruit"]) for row in rows
        )
        importance = read("logs/version_0/importance.csv")
        assert {row["column"] for row in importance} == {"size", "colour", "ripe", "picked"}
        assert {row["column"] for row in importance[:2]} == {
            "size",
            "colour",
        }  # the others say nothing
        assert Path("logs/version_0/predicted.png").stat().st_size > 1000


def test_another_table_keeps_its_rows_order_and_ids(project, classified, capsys):
    """Without the target, with the columns in another order, and values that were never seen."""
    folder, options = classified
    table = "colour,picked,size,id,ripe\nred,2026-08-03,4.5,x9,true\npink,,,x1,\nblue,2026-08-09,6,x5,false\n"
    with inside(project, folder):
        Path("new.csv").write_text(table)
        new = ["--data.predict_dir=new.csv", "--predictions.output=new_found.csv"]
        elsewhere = [
            option for option in options if "data_path" not in option
        ]  # the fit's is not needed
        cli = command("train", "predict", *elsewhere, *new, "--ckpt_path=best")
        rows = read("new_found.csv")
        assert [row["id"] for row in rows] == ["x9", "x1", "x5"]
        assert "fruit" not in rows[0]
        # By hand, from what the checkpoint holds.
        columns = {column["name"]: column for column in cli.datamodule.facts["columns"]}
        place = 1 + columns["colour"]["categories"].index("red")
        raw = torch.tensor([[4.5, 1.0, 20668.0]])  # size, ripe, days to 2026-08-03
        prepare, network = cli.model.preparation, cli.model.network.eval()
        numbers = torch.cat([(raw - prepare.mean) / prepare.std, torch.zeros(1, 1)], dim=1)
        with torch.no_grad():
            right = network(numbers, torch.tensor([[place]])).softmax(dim=1)[0]
            nothing = network(torch.tensor([[0.0, 0, 0, 1]]), torch.tensor([[0]])).softmax(dim=1)[0]
        given = [[float(row[f"probability_{name}"]) for name in ("apple", "plum")] for row in rows]
        assert given[0] == pytest.approx(right.tolist(), abs=1e-5)
        assert given[1] == pytest.approx(nothing.tolist(), abs=1e-5)


def test_a_table_that_has_grown_is_tested_and_trained_on_as_before(
    project, classified, tmp_path, caplog, recwarn
):
    """By new rows, with a category and gaps that no row had, and by a column."""
    folder, options = classified
    head, *rows = (folder / "data" / "fruits.csv").read_text().split("\n")
    rows += [f"new{i},{i / 5},pink,,,{('apple', 'plum')[i % 2]}" for i in range(40)]
    grown = [f"{head},weight", *(f"{row},{i % 9}.5" for i, row in enumerate(reversed(rows)))]
    checkpoint = f"--ckpt_path={folder}/logs/version_0/checkpoints/last.ckpt"
    with inside(project, tmp_path):
        command("train", "predict", *options, checkpoint, "--predictions.output=before.csv")
        before = {row["id"]: row["probability_plum"] for row in read("before.csv")}
        grown_csv = ["--data.data_path=grown.csv"]
        Path("grown.csv").write_text("\n".join(grown))
        Path("last.ckpt").write_bytes(Path(checkpoint.partition("=")[2]).read_bytes())
        with caplog.at_level("INFO"):
            output = "--predictions.output=after.csv"
            cli = command("train", "predict", *options, *grown_csv, checkpoint, output)
        assert "grown.csv: no inputs, since new: weight" in caplog.text
        assert "40 values of colour are unknown" in "".join(str(one.message) for one in recwarn)
        after = {row["id"]: row["probability_plum"] for row in read("after.csv")}
        assert before.keys() < after.keys() and {*after} - {*before} <= {
            f"new{i}" for i in range(40)
        }
        found = [float(after[name]) for name in before]
        assert found == pytest.approx([*map(float, before.values())], abs=1e-5)
        on = [*options, *grown_csv, "--ckpt_path=last.ckpt", "--trainer.max_epochs=5"]
        fit = command("train", "fit", *on)
        assert fit.datamodule.columns == cli.datamodule.columns and fit.trainer.current_epoch == 5
        for wanted, text, reason in (
            ("--data.leave_out=[size]", grown, "comes from data with columns "),
            (
                "--data.id_column=id",
                [g.replace("plum", "pear") for g in grown],
                "class_names .*pear",
            ),
        ):
            Path("grown.csv").write_text("\n".join(text))
            with pytest.raises(SystemExit, match=reason):
                command("train", "test", *options, *grown_csv, checkpoint, wanted)


def test_rows_without_an_id_keep_their_split_when_a_column_is_added(tables):
    text = lines("a,b,y", lambda i: f"{i % 7}.5,{i * i % 11},{i % 2}", 60)
    before = tables(text)
    before.setup("fit")
    head, *rows = text.split("\n")
    after = tables("\n".join([f"c,{head}", *(f"{i % 5}.25,{row}" for i, row in enumerate(rows))]))
    after.go_on_with(before.facts, "The checkpoint")
    after.setup("fit")
    for name, split in before.splits.items():
        assert after.splits[name].indices == split.indices
    assert torch.equal(after.keys, before.keys) and after.columns == before.columns
    with pytest.raises(ValueError, match=r"comes from data with table_columns \['a', 'b', 'y'\]"):
        tables(text.replace("a,b", "a,c")).go_on_with(before.facts, "The checkpoint")


def test_an_exported_file_takes_raw_columns_by_name(project, classified):
    onnxruntime = pytest.importorskip("onnxruntime")
    folder, options = classified
    with inside(project, folder):
        command("train", "predict", *options, "--ckpt_path=best")
        rows = {row["id"]: row for row in read("logs/version_0/predictions.csv")}
        command("export", "best", "--format", "onnx")
        session = onnxruntime.InferenceSession("logs/version_0/model.onnx")
        facts = {k: json.loads(v) for k, v in session.get_modelmeta().custom_metadata_map.items()}
        [colours] = [c["categories"] for c in facts["columns"] if c["name"] == "colour"]
        table = [row for row in read("data/fruits.csv") if row["id"] in rows]
        inputs = {
            "size": [float(row["size"] or "nan") for row in table],
            "ripe": [float(row["ripe"] == "true") for row in table],
            "picked": np.array([row["picked"] for row in table], "datetime64[D]").astype(int),
            "colour": [1 + colours.index(row["colour"]) for row in table],
        }
        kinds = {one.name: one.type for one in session.get_inputs()}
        dtypes = {"tensor(float)": np.float32, "tensor(int64)": np.int64}
        given = {name: np.array(inputs[name], dtypes[kind]) for name, kind in kinds.items()}
        [found] = session.run(["probability"], given)
        plum = facts["class_names"].index("plum")
        right = [float(rows[row["id"]]["probability_plum"]) for row in table]
        assert found[:, plum].tolist() == pytest.approx(right, abs=1e-5)


def test_a_regression_is_measured_in_the_unit_of_the_target(render, tmp_path):
    with inside(render(data="diabetes", logger="csv"), tmp_path):
        fitted = command("train", "fit", *ONE_CPU, *QUIET, "--trainer.max_epochs=3")
        test = ["test", *ONE_CPU, *QUIET, "--ckpt_path=best"]
        found = command("train", *test).trainer.callback_metrics
        command("train", "predict", *ONE_CPU, *QUIET, "--ckpt_path=best")
        rows = read("logs/version_0/predictions.csv")
        true, predicted = ([float(row[k]) for row in rows] for k in ("progression", "prediction"))
        right = {
            "mae": metrics.mean_absolute_error(true, predicted),
            "rmse": metrics.root_mean_squared_error(true, predicted),
            "r2": metrics.r2_score(true, predicted),
        }
        for name, value in right.items():
            assert found[f"test/{name}"].item() == pytest.approx(value, rel=1e-4)
        targets = fitted.datamodule.train_targets
        assert fitted.model.target_mean.item() == pytest.approx(targets.mean().item())
        assert right["rmse"] < targets.std().item()  # better than the mean
        assert found["test/loss"].item() == pytest.approx(
            right["rmse"] ** 2 / targets.var().item(), rel=1e-4
        )


def test_a_class_that_is_not_there_lowers_no_mean(project):
    with inside(project):
        kind = importlib.import_module("models.table_metrics").AUROC
        generator = torch.Generator().manual_seed(0)
        targets = torch.randint(2, (200,), generator=generator)
        probability = torch.randn(200, 3, generator=generator).softmax(dim=1)
        metric = kind(3)
        for some, true in zip(probability.split(40), targets.split(40), strict=True):
            metric.update(some, true)
        each = [metrics.roc_auc_score(targets == i, probability[:, i]) for i in (0, 1)]
        assert metric.compute().item() == pytest.approx(np.mean(each))
        metric.reset()
        metric.update(probability, targets * 0)
        assert metric.compute().isnan()


def test_r2_is_right_where_targets_are_far_from_zero(project):
    with inside(project):
        system = importlib.import_module("models.tabular").Tabular(torch.nn.Identity()).eval()
        system.stage, system.measured = "val", {}
        generator = torch.Generator().manual_seed(0)
        outputs, noise = torch.randn(2, 4000, 1, generator=generator)
        years = 2000 + 2 * (outputs + noise)[:, 0]
        system.target_mean.fill_(2000)
        system.target_std.fill_(2)
        for some, targets in zip(outputs.split(100), years.split(100), strict=True):
            system.loss(((some,), targets))
        found = {name: metric.compute().item() for name, metric in system.measured.items()}
        right = metrics.r2_score(years.double(), 2000 + 2 * outputs[:, 0].double())
        assert found["val/r2"] == pytest.approx(right, abs=1e-4) and 0.4 < right < 0.6
        assert found["val/rmse"] == pytest.approx(2 * noise.square().mean().sqrt().item(), rel=1e-3)


@pytest.mark.parametrize(
    ("loss", "classes", "taken"),
    [
        ("HuberLoss", 0, True),
        ("L1Loss", 0, True),
        ("PoissonNLLLoss", 0, False),  # of the logarithm of counts: the targets are scaled
        ("CrossEntropyLoss", 0, False),
        ("CrossEntropyLoss", 3, True),
        ("NLLLoss", 3, False),
        ("MSELoss", 3, False),
    ],
)
def test_a_loss_that_does_not_suit_the_task_is_refused(project, loss, classes, taken):
    with inside(project):
        kind = importlib.import_module("models.tabular").Tabular
        arguments = {"loss": getattr(torch.nn, loss)(), "class_names": [*"abc"][:classes]}
        if taken:
            assert isinstance(kind(torch.nn.Identity(), **arguments).criterion, torch.nn.Module)
            return
        with pytest.raises(MisconfigurationException, match=f"loss: {loss} does not take"):
            kind(torch.nn.Identity(), **arguments)


def test_what_float32_does_not_tell_apart_is_said(tables, caplog):
    caplog.set_level("INFO")
    data = tables(lines("a,b,y", lambda i: f"{2**60 + i},{i % 7},{i}.5"))
    assert [*columns(data)] == ["b"]
    assert "left out a (always about 115292150460684" in caplog.text
    with pytest.warns(UserWarning, match="a differs in digits that float32 does not hold"):
        tables(lines("a,y", lambda i: f"{10**9 + i % 5},{i}.5")).setup("fit")
    with pytest.warns(UserWarning, match="a has 1e.12, beside which most others look alike"):
        tables(lines("a,y", lambda i: f"{10**12 if i == 5 else i % 5},{i}.5")).setup("fit")


def test_a_column_of_another_kind_than_in_the_training_is_refused(tables):
    data = tables(lines("n,f,d,y", lambda i: f"{i % 7},{i % 2 > 0},2026-01-{1 + i % 28:02},{i}.5"))
    data.setup("fit")
    right = {"n": "1", "f": True, "d": "2026-01-05"}
    assert data.read([right, right]).samples[0][0].tolist() == [1, 1, 20458]
    assert data.read([{**right, "n": None}]).samples[0][0, 0].isnan()
    nested = pyarrow.table({name: [value] for name, value in {**right, "other": [1, 2]}.items()})
    assert data.read(nested).samples[0][0].tolist() == [1, 1, 20458]  # what is not needed may be so
    for name, value in {"n": "2026-01-05", "d": 205, "f": "yes"}.items():
        kind = dict(n="number", d="date", f="boolean")[name]
        with pytest.raises(ValueError, match=f"row 1: {name} is .*, and in the training a {kind}"):
            data.read([{**right, name: value}])


def test_a_table_without_categories_is_exported_by_each_network(tmp_path):
    with inside(ROOT / "{{cookiecutter.project_slug}}", tmp_path):
        for name, kind in (
            ("table_mlp", "TableMLP"),
            ("tabular_transformer", "TabularTransformer"),
        ):
            network = getattr(importlib.import_module(f"models.networks.{name}"), kind)(3, [], 1)
            inputs = torch.randn(4, 3), torch.zeros(4, 0, dtype=torch.long)
            exported = torch.export.export(network.eval(), inputs)
            torch.export.save(exported, f"{name}.pt2")
            found = torch.export.load(f"{name}.pt2").module()(*inputs)
            torch.testing.assert_close(found, network(*inputs))


def test_the_first_block_sees_how_large_a_number_is(tmp_path):
    with inside(ROOT / "{{cookiecutter.project_slug}}", tmp_path):
        transformer = importlib.import_module("models.networks.tabular_transformer")
        network = transformer.TabularTransformer(1, [], 1, depth=2).eval()
        torch.nn.init.zeros_(network.tokens.bias)  # a token is only its number's size then
        numbers, codes = torch.tensor([[2.0], [20.0]]), torch.zeros(2, 0, dtype=torch.long)
        small, large = network.blocks[0](network.tokens(numbers, codes))[:, 0]
        assert not torch.allclose(small, large, rtol=0.1)


def test_dates_and_times_of_any_unit_are_days_and_hours(project):
    with inside(project):
        to_numbers = importlib.import_module("data.columns").to_numbers
        table = pyarrow.table(
            {
                "ms": pyarrow.array([86_400_000 * 3 // 2], pyarrow.timestamp("ms", tz="UTC")),
                "ns": pyarrow.array([86_400_000_000_000 * 3 // 2 + 1], pyarrow.timestamp("ns")),
                "day": pyarrow.array([2], pyarrow.date32()),
                "whole": pyarrow.array([19700103]),
                "time": pyarrow.array([5400], pyarrow.time32("s")),
            }
        )
        kinds = dict.fromkeys(table.column_names[:4], "date") | {"time": "time"}
        found = [
            to_numbers(table[name], {"name": name, "kind": kind}, "").item()
            for name, kind in kinds.items()
        ]
        assert found == [1.5, 1.5, 2, 2, 1.5]


def test_whole_numbers_may_be_dates_or_codes(tables, caplog):
    caplog.set_level("INFO")
    text = lines(
        "day,month,zip,y",
        lambda i: f"202601{1 + i % 28:02},2026{1 + i % 12:02}00,{i % 9:03},{i % 5}.5",
    )
    data = tables(text)
    found = {name: column["kind"] for name, column in columns(data).items()}
    assert found == {"day": "date", "month": "number", "zip": "number"}  # no month has a day 0
    data.setup("fit")
    assert data.splits["train"].dataset.samples[0][1, 0] == 20455  # days from 1970 to 2026-01-02
    assert data.read([{"day": "2026-01-02", "month": 1, "zip": 1}]).samples[0][0, 0] == 20455
    assert "zip is read as numbers, though with leading zeros, such as 003" in caplog.text
    assert "inputs are 1 date (day); 2 numbers (month, zip)" in caplog.text


@pytest.mark.parametrize("name", ["__index_level_0__", "Unnamed: 0", ""])
def test_an_index_that_a_data_frame_has_left_in_a_file_is_no_input(tables, name):
    data = tables(lines(f"{name},a,y", lambda i: f"{i * 7 % 40},{i % 7},{i // 20}"))
    assert [*columns(data)] == ["a"]


@pytest.mark.parametrize(("mark", "name"), [(".", "point"), (",", "comma")])
def test_a_mark_that_may_part_thousands_is_told(tables, mark, name):
    with pytest.warns(UserWarning, match=f"table.csv: 1{mark}000 is read with a decimal {name}"):
        _ = tables(lines("a;y", lambda i: f"{i + 1}{mark}000;{i % 2}")).facts


def test_a_row_of_totals_is_told(tables, recwarn):
    table = lines("a,y", lambda i: f"{i % 7},{i}.5")
    _ = tables(table).facts
    assert not [one for one in recwarn if "all others" in str(one.message)]
    with pytest.warns(UserWarning, match="y in row 41, 800, is the sum of all others"):
        _ = tables(f"{table}\n,800").facts


def test_categories_that_differ_in_spaces_are_told(tables):
    with pytest.warns(UserWarning, match="c has categories that differ in spaces only"):
        _ = tables(lines("a,c,y", lambda i: f"{i % 9},{('red', 'red ')[i % 2]},{i % 2}")).facts


@pytest.mark.parametrize(
    ("column", "target"),
    [
        (lambda i: f"{i * 7 % 41 * 0.83 + 4}", lambda i: i * 7 % 41),  # in another unit
        (lambda i: f"{i % 5}.5", lambda i: f"{i % 5}.25"),
        (lambda i: ("sick", "")[i % 2], lambda i: "uv"[i % 2]),
    ],
)
def test_a_column_that_says_the_target_is_told(tables, recwarn, column, target):
    row = "{0},{1},{2},{3}".format
    _ = tables(lines("a,b,c,y", lambda i: row(i % 9, column(i), i // 5, target(i)))).facts
    [told] = [str(one.message) for one in recwarn if "says what" in str(one.message)]
    assert told.startswith("table.csv: b says what y is; if it is not known before, leave it out")
    other = lambda i: column(i + (i == 7))  # one row tells them apart  # noqa: E731
    _ = tables(lines("a,b,c,y", lambda i: row(i % 9, other(i), i // 5, target(i)))).facts
    assert len([one for one in recwarn if "says what" in str(one.message)]) == 1


def test_a_table_of_many_columns_takes_time_by_their_number(tables):
    """Not by its square: 4,000 took a minute."""
    names = [f"c{j}" for j in range(3000)]
    text = lines(
        ",".join([*names, "y"]),
        lambda i: ",".join([*(f"{i * j % 7}" for j in range(3000)), f"{i}.5"]),
    )
    start = time.process_time()
    tables(text).setup("fit")
    assert time.process_time() - start < 20


def test_minus_zero_is_zero(tables):
    data = tables(lines("a,y", lambda i: f"{i * 2},{(-0.0, 0.0, 1.0)[i % 3]}", 42))
    assert data.facts["class_names"] == ["0", "1"]
    data.setup("fit")
    assert data.splits["train"].dataset.samples[2].bincount(minlength=3).tolist() == [28, 14, 0]


def test_rows_that_are_there_twice_are_told(tables, caplog):
    caplog.set_level("INFO")
    for content, options in [
        (lines("a,y", lambda i: f"{i % 30},{i % 2}"), {}),
        (lines("a,y,name", lambda i: f"{i % 30},{i % 2},n{i}"), {}),
        (lines("a,y,id", lambda i: f"{i % 30},{i % 2},n{i}"), {"id_column": "id"}),
    ]:
        caplog.clear()
        _ = tables(content, **options).facts
        assert "10 rows repeat others, maybe those of another split" in caplog.text


def test_a_number_that_rises_with_each_row_is_told(tables, caplog):
    caplog.set_level("INFO")
    _ = tables(lines("a,no,y", lambda i: f"{i % 7},{500 + 2 * i},{i // 20}")).facts
    assert "no rises with each row; if that is how the file is sorted" in caplog.text
    assert "leave it out: --data.leave_out '[\"no\"]'" in caplog.text
    caplog.clear()
    _ = tables(lines("a,no,y", lambda i: f"{i % 7},{500 + i - i % 3},{i // 20}")).facts
    assert "rises" not in caplog.text


def test_numbers_unlike_those_of_the_training_are_told(tables, caplog, recwarn):
    caplog.set_level("INFO")
    data = tables(lines("a,b,y", lambda i: f"{1000 + i * 7 % 40},{i % 9 or ''},{i % 2}"))
    data.setup("fit")
    data.read([{"a": a, "b": 1} for a in (1010, 1020, 2, None)])
    data.read([{"a": 1010, "b": None}])
    [told] = [
        str(one.message) for one in recwarn if "which the training always" in str(one.message)
    ]
    assert "a, which the training always has, is missing in rows: 1. Its mean" in told
    made = [("models.networks.table_mlp", "TableMLP"), ("models.tabular", "Tabular")]
    network, kind = (getattr(importlib.import_module(module), name) for module, name in made)
    system = data.build(kind, data.build(network))
    system.preparation = data.preparation()
    predictor = importlib.import_module("engine.predictor").Predictor(system, data)
    for unit, told in {1: 0, 1000: 1}.items():
        rows = [{"a": a / unit, "b": 1} for a in (1010, 1020, 1021)]
        assert len(predictor(rows)) == 3
        found = [str(one.message) for one in recwarn if "unit" in str(one.message)]
        assert len(found) == told
    assert re.search(r"most of a lies outside of the 1000 to 103\d of the training", found[0])


def test_rows_keep_their_split_whatever_else_the_file_has(tables):
    def splits(data) -> dict[str, set[str]]:
        data.setup("fit")
        rows = data.kept["id"].to_pylist()
        return {name: {rows[i] for i in split.indices} for name, split in data.splits.items()}

    names = [f"no{i}" for i in range(60)]
    text = lines("id,a,y", lambda i: f"{names[i]},{i * 2},{i}.5", 60)
    before = splits(tables(text, id_column="id"))
    head, *rows = text.split("\n")
    after = splits(tables("\n".join([head, *rows[::-1]]), id_column="id"))
    assert before == after  # in another order
    named, unnamed = tables(text, id_column="id"), tables(text)
    unnamed.go_on_with(named.facts, "The checkpoint")
    assert splits(named) == before
    unnamed.setup("test")
    for name, split in named.splits.items():
        assert unnamed.splits[name].indices == split.indices


def test_sixteen_bits_round_no_number_of_the_data(project, tmp_path):
    """Years and prices, before they are scaled, and what they are scaled by: 2011 is 2016 in bfloat16,
    and 200,000 infinite in float16."""
    with inside(project, tmp_path):
        rows = [(2000 + i % 25, 200_000 + 37 * i) for i in range(300)]
        lines = [f"{year},{price},{2 * price + 5000 * year}" for year, price in rows]
        Path("a.csv").write_text("\n".join(["year,price,y", *lines]))
        table = ["--data.data_path=a.csv", "--data.target=y", "--trainer.max_epochs=2", *FRUITS]
        exact = command("train", "fit", *table).model
        forecasts = {}
        kinds = {"32-true": torch.float, "bf16-true": torch.bfloat16, "16-true": torch.half}
        for precision, dtype in kinds.items():
            options = [*table, f"--trainer.precision={precision}", "--model.optimizer.eps=1e-4"]
            command("train", "predict", *options, "--ckpt_path=logs/version_0")
            with Path("logs/version_0/predictions.csv").open() as file:
                found = [
                    (float(row["prediction"]), float(row["y"])) for row in csv.DictReader(file)
                ]
            forecasts[precision], labels = torch.tensor(found).T
            fitted = command("train", "fit", *options).model
            assert torch.equal(fitted.preparation.mean, exact.preparation.mean)
            assert fitted.target_mean == exact.target_mean == pytest.approx(1.04e7, rel=0.02)
            assert {p.dtype for p in fitted.network.parameters()} == {dtype}
        for precision in ("bf16-true", "16-true"):
            error = (forecasts[precision] - forecasts["32-true"]).abs().max()
            assert error < 0.02 * labels.std()

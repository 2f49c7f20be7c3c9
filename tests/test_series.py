"""Time series: what a file is read as, which windows are in which split, what a forecast is."""

import csv
import importlib
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from projects import SMALL, command, inside, small_data
from templates import MODELS, ROOT

WINDOW, HORIZON, SEASON = 36, 6, 24


@pytest.fixture(scope="module", autouse=True)
def template_project():
    with inside(ROOT / "{{cookiecutter.project_slug}}"):
        yield


def write(path: Path, rows: list, header: str = "time,load", delimiter: str = ",", **how) -> str:
    lines = [header, *(delimiter.join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n", **{"encoding": "utf-8", **how})
    return str(path)


def hours(count: int, start: str = "2024-01-01T00:00") -> list[str]:
    first = datetime.fromisoformat(start)
    return [(first + timedelta(hours=hour)).isoformat() for hour in range(count)]


def series_csv(path: str, **options):
    options = {"window": WINDOW, "horizon": HORIZON, "season": SEASON} | options
    return importlib.import_module("data.series_csv").SeriesCSV(data_path=path, **options)


def read(path: str, date_format: str | None = None, **columns):
    module = importlib.import_module("data.series_reading")
    reading = {"date_format": date_format}
    return module.read_series(path, module.Columns(**columns, reading=reading))


def ready(data):
    data.setup("fit")
    return data


@pytest.fixture
def numbered(tmp_path):
    """A file in which each value is the number of its step."""
    return write(tmp_path / "numbered.csv", list(zip(hours(300), range(300), strict=True)))


@pytest.mark.parametrize(
    ("start", "step", "season"),
    [
        ("2024-01-01", "30m", 48),
        ("2024-01-01", "1h", 24),
        ("2024-01-01", "1m", 1),  # a day is longer than the window
        ("2024-01-01", "1D", 7),
        ("2024-01-07", "7D", 52),
        ("2024-01", "1M", 12),
        ("2024-01", "3M", 4),
        ("2024-01", "12M", 1),
    ],
)
def test_a_season_is_the_usual_cycle_of_such_steps(tmp_path, start, step, season):
    times = np.datetime64(start) + np.arange(400) * np.timedelta64(step[:-1], step[-1])
    path = write(tmp_path / "x.csv", list(zip(times, range(400), strict=True)))
    data = series_csv(path, season=None, window=192)
    assert data.season == season
    assert data.facts["input_shape"] == [192 - season, 2]
    assert series_csv(path, season=5).season == 5
    numbers = write(tmp_path / "y.csv", list(zip(range(400), range(400), strict=True)))
    assert series_csv(numbers, season=None).season == 1


# --- Windows and splits ---


def test_what_never_changes_is_told(tmp_path):
    rows = [(time, i, 5, i // 299) for i, time in enumerate(hours(300))]
    path = write(tmp_path / "x.csv", rows, "time,load,flat,late")
    with pytest.warns(UserWarning, match="always the same: flat, late. Leave them out of data"):
        series_csv(path, covariates=["late"]).setup("fit")
    with pytest.raises(ValueError, match="always the same: flat. There is nothing to learn"):
        series_csv(path, values=["flat"]).setup("fit")


def test_a_window_is_followed_by_its_future(numbered):
    data = ready(series_csv(numbered))
    batch = data.splits["train"].dataset.__getitems__([5, 40])
    assert batch["past"][:, :, 0].tolist() == [[*range(5, 41)], [*range(40, 76)]]
    assert batch["future"][:, :, 0].tolist() == [[*range(41, 47)], [*range(76, 82)]]
    assert "covariates" not in batch


@pytest.mark.filterwarnings("error")
def test_loaders_give_the_windows_of_their_rows(numbered):
    data = ready(series_csv(numbered, batch_size=4))
    batch = next(iter(data.val_dataloader()))
    first = data.splits["val"].indices[0]
    past = torch.arange(len(batch["past"]))[:, None] + torch.arange(WINDOW) + first
    assert torch.equal(batch["past"][:, :, 0], past.float())


def futures(data, split: str) -> set[int]:
    part = data.splits[split]
    return set(part.dataset.__getitems__(list(part.indices))["future"].flatten().int().tolist())


def test_splits_follow_each_other_in_time(numbered):
    data = ready(series_csv(numbered, val_fraction=0.1))
    assert futures(data, "train") == {*range(WINDOW, 216)}
    assert futures(data, "val") == {*range(216, 240)}
    assert futures(data, "test") == {*range(240, 300)}
    predicted = data.splits["predict"]
    assert [i + WINDOW for i in predicted.indices] == [*range(240, 300, HORIZON)]
    assert data.predict_names[:2] == ["2024-01-11T00:00", "2024-01-11T01:00"]
    assert data.predict_columns["true_load"] == [float(step) for step in range(240, 300)]


def test_folds_are_trained_on_what_is_before_them(numbered):
    with pytest.raises(ValueError, match="or fewer folds"):
        ready(series_csv(numbered, num_folds=40, fold=0))
    for fold, (first, last) in enumerate([(80, 160), (160, 240)]):
        data = ready(series_csv(numbered, num_folds=2, fold=fold))
        assert futures(data, "train") == {*range(WINDOW, first)}
        assert futures(data, "val") == {*range(first, last)}
        assert futures(data, "test") == {*range(240, 300)}


def test_statistics_are_of_the_training_part(tmp_path):
    values = np.random.default_rng(0).normal(size=300)
    values[216:] += 1e6  # validation and test
    path = write(tmp_path / "x.csv", [*zip(hours(300), values, strict=True)])
    data = ready(series_csv(path, val_fraction=0.1))
    found, known = data.preparation(), torch.from_numpy(values[:216])
    assert found.mean.item() == pytest.approx(known.mean().item(), abs=1e-5)
    assert found.unit.item() == pytest.approx((known[24:] - known[:-24]).abs().mean().item(), 1e-5)


def test_an_untrained_forecast_is_the_last_seasons_course_from_the_present_level(tmp_path):
    """And of a season of 1, the last value. So a scaled error of the first is one of that."""
    past = torch.arange(40.0).square()[None, :, None]
    from data.series_windows import FromSeason

    steps = torch.randn(100, 1)
    batch = FromSeason(steps, 1, season=10, horizon=12)({"past": past})
    step = [*range(30, 40), 30, 31]
    right = past[0, step, 0] + past[0, 39, 0] - past[0, 29, 0]
    torch.testing.assert_close(batch["base"][0, :, 0], right)
    batch = FromSeason(steps, 1, season=1, horizon=3)({"past": past})
    assert batch["base"][0, :, 0].tolist() == [39.0**2] * 3


def test_a_series_with_other_steps_than_that_of_the_fit_is_refused(numbered, tmp_path, caplog):
    caplog.set_level("INFO")
    facts = series_csv(numbered).facts
    other = write(tmp_path / "other.csv", [*zip(hours(300)[::2], range(150), strict=True)])
    data = series_csv("gone.csv", predict_dir=other)
    data.adopt(facts)
    assert len(data.read(numbered)) == len(data.read(np.arange(100.0))) == 1
    assert "left out" not in caplog.text
    rows = [(hour, i, -i) for i, hour in enumerate(hours(300))]
    data.read(write(tmp_path / "more.csv", rows, "time,load,new"))
    assert "more.csv: the fit does not forecast new: left out." in caplog.text
    with pytest.raises(ValueError, match=r"has steps of 2:00:00, and the training .* 1:00:00"):
        data.read(other)
    with pytest.raises(ValueError, match="comes from data with interval 1:00:00"):
        series_csv(other).go_on_with(facts, "The checkpoint")
    months = [f"{2000 + i // 12}-{i % 12 + 1:02}" for i in range(100)]
    path = write(tmp_path / "months.csv", [*zip(months, range(100), strict=True)])
    assert series_csv(path).facts["interval"] == "1 months"


def test_too_few_steps_are_refused_with_the_numbers(tmp_path):
    path = write(tmp_path / "short.csv", [*zip(hours(50), range(50), strict=True)])
    with pytest.raises(ValueError, match="50 steps are too few: train has 0 to forecast") as told:
        ready(series_csv(path))
    assert "--data.window 25 --data.horizon 4, or another val_fraction" in str(told.value)
    ready(series_csv(path, window=25, horizon=4))
    path = write(tmp_path / "year.csv", [(f"2025-{i + 1:02}", i) for i in range(12)])
    with pytest.raises(ValueError, match="window 3 --data.horizon 1 --data.season 1, or another"):
        ready(series_csv(path, season=12))
    ready(series_csv(path, window=3, horizon=1, season=1))
    with pytest.raises(ValueError, match="window is 24 and season 24"):
        series_csv(path, window=24)


@pytest.mark.parametrize("name", [n for n, row in MODELS.items() if "series" in row["modalities"]])
def test_networks_take_the_shortest_window(tmp_path, name):
    """Beside a season of one step it leaves one step to see."""
    path = write(tmp_path / "year.csv", [(f"2025-{i + 1:02}", i) for i in range(12)])
    module = importlib.import_module(f"models.networks.{name}")
    data = ready(series_csv(path, window=2, horizon=1, season=1))
    network = data.build(getattr(module, MODELS[name]["class"]))
    batch = data.preparation()(next(iter(data.train_dataloader())))
    assert network(batch["past"], batch["known"]).shape[1:] == (1, 1)


# --- Files ---


def test_what_spreadsheets_write_is_read(tmp_path):
    rows = [("01.02.2024 00:00", "1,5"), ("01.02.2024 01:00", "-2"), ("01.02.2024 02:00", "1e3")]
    path = write(tmp_path / "x.csv", rows, "Zeit;Wärme", ";", encoding="cp1252")
    found = read(path, time="Zeit", date_format="%d.%m.%Y %H:%M")
    assert found.columns == ["Wärme"]
    assert found.steps.tolist() == [[1.5], [-2.0], [1000.0]]
    assert found.times_as_text() == ["2024-02-01T00:00", "2024-02-01T01:00", "2024-02-01T02:00"]
    for encoding in ("utf-8-sig", "utf-16"):
        path = write(tmp_path / "y.csv", rows, "Zeit\tWärme", "\t", encoding=encoding)
        assert read(path, time="Zeit", date_format="%d.%m.%Y %H:%M").columns == ["Wärme"]


def test_parquet_is_read_as_csv(tmp_path):
    import pyarrow
    from pyarrow import parquet

    times = [datetime(2024, 1, day) for day in (1, 2, 3)]
    table = pyarrow.table({"time": times, "load": [1.0, 2.5, None]})
    parquet.write_table(table, tmp_path / "x.parquet")
    found = read(str(tmp_path / "x.parquet"))
    assert found.times_as_text() == ["2024-01-01", "2024-01-02", "2024-01-03"]
    assert found.steps[:2].tolist() == [[1.0], [2.5]] and found.num_known == 2
    table = table.set_column(0, "time", pyarrow.array([7, 8, 9], pyarrow.int16()))
    parquet.write_table(table, tmp_path / "x.parquet")
    assert read(str(tmp_path / "x.parquet")).times_as_text() == ["7", "8", "9"]
    texts = [f"{day}.01.2024 12:00 +0100" for day in ("01", "02", "03")]
    for kind in (pyarrow.string(), pyarrow.large_string()):
        parquet.write_table(
            table.set_column(0, "time", pyarrow.array(texts, kind)), tmp_path / "x.parquet"
        )
        with pytest.raises(
            ValueError, match="x.parquet, row 1: time .*date_format '%d.%m.%Y .*%z'"
        ):
            read(str(tmp_path / "x.parquet"))
        found = read(str(tmp_path / "x.parquet"), date_format="%d.%m.%Y %H:%M %z")
        assert found.times_as_text()[0] == "2024-01-01T11:00+00:00"


def test_rows_are_sorted_and_times_with_offsets_become_utc(tmp_path):
    times = ["2024-10-27T02:00+01:00", "2024-10-27T02:00+02:00", "2024-10-27T03:00+0100"]
    found = read(write(tmp_path / "x.csv", [*zip(times, (2, 1, 3), strict=True)]))
    assert found.steps[:, 0].tolist() == [1, 2, 3]
    assert found.times_as_text()[0] == "2024-10-27T00:00+00:00"


@pytest.mark.parametrize(
    ("times", "following"),
    [
        (["2023-12", "2024-01", "2024-02", "2024-03"], "2024-04-01"),
        (["2023-12-31", "2024-01-31", "2024-02-29", "2024-03-31"], "2024-04-30"),
        (["1957", "1958", "1959", "1960"], "1961"),
        (["202310", "202311", "202312", "202401"], "2024-02-01"),
        (["2023-06-30", "2023-09-30", "2023-12-31", "2024-03-31"], "2024-06-30"),
    ],
    ids=["months", "ends of months", "years", "months as numbers", "quarters"],
)
def test_the_calendar_goes_on(tmp_path, times, following):
    found = read(write(tmp_path / "x.csv", [*zip(times, range(4), strict=True)]))
    assert len(found.steps) == 4
    assert found.part(0, 5).times_as_text()[-1] == following


def test_days_as_whole_numbers_flags_and_a_column_without_a_name(tmp_path):
    rows = [(i, day, i % 2 > 0, i) for i, day in enumerate((20240229, 20240301, 20240302))]
    path = write(tmp_path / "x.csv", rows, "no time open load", delimiter=" ")
    assert read(path).columns == ["no", "open", "load"]
    path = write(tmp_path / "x.csv", rows, ",time,open,load")
    found = read(path, covariates=["open"])
    assert found.columns == ["load"]
    assert found.steps.tolist() == [[0, 0], [1, 1], [2, 0]]
    assert found.times_as_text() == ["2024-02-29", "2024-03-01", "2024-03-02"]


def test_gaps_are_filled_only_if_told_to(tmp_path):
    rows = [(t, v) for t, v in zip(hours(8), (1, 2, 3, 4, "", 6, 7, 8), strict=True)]
    del rows[2]
    path = write(tmp_path / "x.csv", rows)
    with pytest.raises(ValueError, match="column load: there is no number at 2024-01-01T02:00"):
        read(path)
    with pytest.raises(ValueError, match="as weekends are, have the time column number the rows"):
        read(path)
    found = read(path, fill_gaps=1)
    assert found.steps[:, 0].tolist() == [1, 2, 2, 4, 4, 6, 7, 8]


FAULTS = {
    "text": ([1, 2, "x"], "row 3: load is 'x', and most others are numbers.*--data.missing"),
    "infinity": ([1, "inf", 3], "row 2: load is inf"),
    "too large": ([1, "2e39", 3], "row 2: load is 2e.39, infinite in float32"),
    "thousands": (['"1,000"', '"2,000"'], "row 1: load is '1,000'"),
    "words": (["a", "b"], "column load holds string such as a"),
    "one row": ([1], "has 1 row"),
    "nothing first": (["", 2, 3], "column load: there is no number at 2024-01-01"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_a_number_is_named(tmp_path, fault):
    values, message = FAULTS[fault]
    path = write(tmp_path / "x.csv", [*zip(hours(len(values)), values, strict=True)])
    with pytest.raises(ValueError, match=message):
        read(path)


def test_a_number_beside_which_the_others_look_alike_is_told(tmp_path, recwarn):
    """Its deviation, and the mean change, would make errors of all others nothing."""
    values = [10 + i % 24 for i in range(300)]
    read(write(tmp_path / "x.csv", [*zip(hours(300), [*values[1:], 1000], strict=True)]))
    assert not [w for w in recwarn if "look alike" in str(w.message)]
    values[50] = 1e12
    with pytest.warns(UserWarning, match=r"column load has 1e\+12, beside which most others look"):
        read(write(tmp_path / "x.csv", [*zip(hours(300), values, strict=True)]))


TIMES = {
    "twice": (
        ["2024-01-01", "2024-01-02", "2024-01-02"],
        "row 3: 2024-01-02.*twice.* several series",
    ),
    "local days": (
        [
            f"2024-0{3 + (d > 31)}-{(d - 1) % 31 + 1:02}T00:00+0{1 + (d > 31)}:00"
            for d in range(28, 36)
        ],
        "row 5: .* is no whole number .* Days of a local time are, if their offset from UTC is left",
    ),
    "uneven": ([*hours(4), "2024-01-01T04:30"], "row 5: 2024-01-01 04:30:00 is no whole number"),
    "no time": (["2024-01-01", "soon"], "row 2: time is 'soon', and most others are dates"),
    "no hour": (["2024-01-01 00:00", "2024-01-01 25:00"], "'2024-01-01 25:00'.*date_format"),
    "empty": (["2024-01-01", ""], "row 2: there is no time"),
    "hours": ([2024010122, 2024010123, 2024010200], "ten steps of 1, .*date_format '%Y%m%d%H'"),
    "some zones": (["2024-01-01T00:00Z", "2024-01-01T01:00"], "others have an offset from UTC"),
}


@pytest.mark.parametrize("fault", TIMES)
def test_a_fault_in_a_time_is_named(tmp_path, fault):
    times, message = TIMES[fault]
    path = write(tmp_path / "x.csv", [(time, 1) for time in times])
    with pytest.raises(ValueError, match=message):
        read(path)


def test_a_fault_in_the_columns_is_named(tmp_path):
    path = write(tmp_path / "x.csv", [("2024-01-01", 1)])
    with pytest.raises(ValueError, match="no column 'date'; it has time, load"):
        read(path, time="date")
    with pytest.raises(ValueError, match="load is named twice"):
        read(path, values=["load"], covariates=["load"])
    with pytest.raises(ValueError, match="several columns with the name load"):
        read(write(tmp_path / "y.csv", [], "time,load,load"))
    with pytest.raises(ValueError, match="Row #3: Expected 2 columns, got 3"):
        read(write(tmp_path / "z.csv", [("2024-01-01", 1), ("2024-01-02", 1, 2)]))
    (tmp_path / "empty.csv").touch()
    with pytest.raises(ValueError, match="is empty"):
        read(str(tmp_path / "empty.csv"))
    with pytest.raises(ValueError, match="There is no file"):
        read(str(tmp_path / "none.csv"))


def test_an_array_is_gone_on_from_as_a_file_is(numbered):
    data = series_csv(numbered)
    windows = data.read(np.arange(100.0))
    [batch] = windows.__getitems__([0])["past"].tolist()
    assert batch == [[step] for step in range(100 - WINDOW, 100)] and len(windows) == 1
    assert data.series.times_as_text()[WINDOW] == "100"
    with pytest.raises(ValueError, match=r"shape \(100, 2\): give \(steps, 1\)"):
        data.read(np.zeros((100, 2)))
    with pytest.raises(ValueError, match="is no file, table or array of a series"):
        data.read(["own.csv"])


# --- A project ---


def test_errors_are_those_of_the_forecasts_and_a_file_is_gone_on_from(render, tmp_path, recwarn):
    options = [*SMALL, *small_data("series_csv", tmp_path / "data")]
    options = [option for option in options if "limit" not in option]
    with inside(render(data="series_csv", model="tcn"), tmp_path):
        command("train", "fit", *options, "--trainer.max_epochs=2")
        tested = command("train", "test", *options, "--ckpt_path=best").trainer.callback_metrics
        command("train", "predict", *options, "--ckpt_path=best")
        run = Path("logs", "version_0")
        rows = list(csv.DictReader(run.joinpath("predictions.csv").open()))
        with run.joinpath("lead_times.csv").open() as file:
            leads = list(csv.DictReader(file))
        assert [row["lead"] for row in leads] == [str(lead) for lead in range(1, 7)]
        mean = np.mean([float(row["mae"]) for row in leads])
        assert mean == pytest.approx(tested["test/mae"].item(), rel=1e-4)
        error = np.mean([abs(float(r["true_load"]) - float(r["forecast_load"])) for r in rows])
        assert 0 < error < 4  # the series has a range of 16
        source = tmp_path / "data" / "series.csv"
        more = "".join(f"2024-01-11T{hour:02}:00,,,0\n" for hour in range(6))
        Path("own.csv").write_text(source.read_text() + more)
        own = ["--data.predict_dir=own.csv", "--predictions.output=own_forecast.csv"]
        command("train", "predict", *options, *own, "--ckpt_path=best")
        found = list(csv.DictReader(Path("own_forecast.csv").open()))
        assert [row["input"] for row in found] == [f"2024-01-11T{hour:02}:00" for hour in range(6)]
        assert all(10 < float(row["forecast_load"]) < 35 for row in found)
        assert "true_load" not in found[0]
        assert not [each for each in recwarn if "unit" in str(each.message)]
        head, *lines = csv.reader(Path("own.csv").open())
        kilo = [[time, f"{float(load) / 1000}" if load else "", *r] for time, load, *r in lines]
        Path("kilo.csv").write_text("\n".join(map(",".join, [head, *kilo])))
        command("train", "predict", *options, "--data.predict_dir=kilo.csv", "--ckpt_path=best")
        [told] = [str(each.message) for each in recwarn if "unit" in str(each.message)]
        assert told.startswith("kilo.csv: load changes by 0.00")
        with pytest.raises(
            SystemExit, match="data with horizon 6, but this SeriesCSV has horizon 3"
        ):
            command("train", "predict", *options, *own, "--ckpt_path=best", "--data.horizon=3")
        with pytest.raises(SystemExit, match="covariates of 0 steps after the last values"):
            own[0] = f"--data.predict_dir={source}"
            command("train", "predict", *options, *own, "--ckpt_path=best")

"""A run folder whose files were changed: named, put right or refused; never trained over."""

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

import cnndsl.train as training
from cnndsl.cli.main import main
from tests.train import trainee

TEXT = "model Small\ninput 6 x 6 x 1\nflatten\nfc 3\n"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs of a network from a file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cnndsl.rt.module.INTERPRETED", False)
        path = tmp_path_factory.mktemp("finished") / "run"
        file = path.with_name("small.cnn")
        file.write_text(TEXT)
        training.train(file, trainee.data(), out=path, recipe=trainee.RECIPE, epochs=2, patience=2)
    return path


@pytest.fixture
def run(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("cnndsl.rt.module.INTERPRETED", False)
    return Path(shutil.copytree(finished, tmp_path / "run"))


def weights(path: Path) -> dict[str, bytes]:
    return {str(f.relative_to(path)): f.read_bytes() for f in path.rglob("*.safetensors")}


def first_line_lost(text: str) -> str:
    return text.split("\n", 1)[1]


@pytest.mark.parametrize(
    "change",
    [
        first_line_lost,
        lambda text: text.rsplit("\n", 2)[0] + "\n",
        lambda text: "",
        lambda text: None,
        lambda text: text[:-20],
        lambda text: text + text,
        lambda text: "garbage\n[1]\nnull\n" + text,
        lambda text: text + '{"epoch": "two"}\n{"epoch": 9, "test_loss": "x"}\n{"loss": NaN}\n',
        lambda text: text.replace('"epoch": 2', '"epoch": 7'),
        lambda text: "[" * 100_000,
    ],
)
def test_what_is_finished_is_not_trained_over_whatever_its_metrics_say(run: Path, change) -> None:
    path = run / "metrics.jsonl"
    before, text = weights(run), path.read_text()
    changed = change(text)
    path.unlink() if changed is None else path.write_text(changed)
    outcome = training.resume(run, data=trainee.data())
    assert weights(run) == before
    assert [m["epoch"] for m in outcome.metrics] == [1, 2]
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    wanted = [json.loads(line) for line in text.splitlines()]
    for line in (*lines, *wanted):
        del line["images_per_second"]  # which is in this file only
    assert lines == wanted


def test_a_run_that_patience_ended_stays_ended(tmp_path: Path) -> None:
    recipe = trainee.RECIPE.replace(epochs=50, lr=1e-12, ema=0.5, patience=1)
    data = training.as_data(trainee.images(), trainee.images(30, seed=1))
    outcome = training.train(trainee.network(), data, out=tmp_path / "run", recipe=recipe)
    assert len(outcome.metrics) < 50
    before = weights(tmp_path / "run")
    (tmp_path / "run" / "metrics.jsonl").unlink()
    training.resume(tmp_path / "run", trainee.network(), data)
    assert weights(tmp_path / "run") == before


# The only versions that are read are to compare; these settings may be `null`, or -1.
MAY_BE_OTHERWISE = {
    *("versions", "versions.python", "versions.torch", "versions.numpy"),
    *("recipe.warmup", "data.mean", "data.deviation"),
}
WRONG = (None, -1, 1e999, "x", True, [], ["x"], {}, [None], [[1]])


def places(value: object, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not isinstance(value, dict):
        return [path]
    return [p for k, v in value.items() for p in places(v, (*path, k))] + ([path] if path else [])


def test_any_value_of_the_configuration_may_be_wrong(run: Path, capsys) -> None:
    """Each place, each type: an error of ours, or a value that means something there."""
    file = run / "config.json"
    text = file.read_text()
    taken: set[str] = set()
    tried = 0
    for place in places(json.loads(text)):
        for wrong in WRONG:
            config = json.loads(text)
            inner = config
            for key in place[:-1]:
                inner = inner[key]
            if type(inner[place[-1]]) is type(wrong):
                continue
            inner[place[-1]] = wrong
            file.write_text(json.dumps(config))
            tried += 1
            with suppress(training.TrainError):
                training.open_run(run)
                taken.add(".".join(place))
    assert tried > 200
    assert taken <= MAY_BE_OTHERWISE
    for text in ("", "{", "[]", "null", "3", '"x"', "[" * 100_000, '{"version": 99}', "\udcff"):
        file.write_bytes(text.encode("utf-8", "surrogateescape"))
        assert main(["eval", str(run)]) in (1, 2)
    assert "bug in cnndsl" not in capsys.readouterr().err


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "source.cnn"])
def test_a_pipe_in_a_run_folder_is_not_waited_for(run: Path, name: str, capsys) -> None:
    (run / name).unlink()
    os.mkfifo(run / name)
    if name == "metrics.jsonl":
        training.resume(run, data=trainee.data())
        assert (run / name).is_file()
    else:
        assert main(["eval", str(run), "--data", "digits"]) in (1, 2)
        assert "bug in cnndsl" not in capsys.readouterr().err

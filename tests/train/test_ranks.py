"""Several processes: together they do what one does, and none outlives another for long.

`CNNDSL_MANY=1` kills a process 20 times instead of twice.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import cnndsl.train as training
from cnndsl.cli.main import main
from cnndsl.train.examples import IGNORED, Part, as_examples
from cnndsl.train.network import leaves_out
from tests.train import trainee

ROOT = Path(__file__).parent.parent.parent
MANY = os.environ.get("CNNDSL_MANY") == "1"
KILLS = 20 if MANY else 2
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 16])
@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_parts_are_the_whole_and_the_first_is_the_largest(count: int, world: int) -> None:
    bounds = [Part(rank, world).bounds(count) for rank in range(world)]
    assert [i for first, end in bounds for i in range(first, end)] == list(range(count))
    sizes = [end - first for first, end in bounds]
    assert sizes == sorted(sizes, reverse=True)
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("kind", ["tensors", "dataset", "loader"])
def test_each_way_to_give_data_can_be_divided(kind: str) -> None:
    import torch

    images, labels = trainee.images(9)
    pairs = torch.utils.data.TensorDataset(images, labels)
    given = {
        "tensors": (images, labels),
        "dataset": pairs,
        "loader": torch.utils.data.DataLoader(pairs, batch_size=4),
    }[kind]
    examples = as_examples(given)
    whole = list(examples.batches(4, 5))
    parts = [list(examples.batches(4, 5, part=Part(rank, 3))) for rank in range(3)]
    for number, batch in enumerate(whole):
        own = [part[number] for part in parts]
        assert [part.whole for part in own] == [len(batch.labels)] * 3
        real = [part for part in own if int(part.labels[0]) != IGNORED]
        assert torch.equal(torch.cat([part.images for part in real]), batch.images)
        assert torch.equal(torch.cat([part.labels for part in real]), batch.labels)
    # The last batch has one image: the second and third process have none of it.
    assert [part[2].labels.tolist() == [IGNORED] for part in parts] == [False, True, True]


def test_parameters_without_a_part_in_the_logits_are_found() -> None:
    import torch

    from tests.train.sidebyside import Plain

    images = torch.rand(2, 1, 6, 6)
    model = Plain()
    assert leaves_out(model, images)
    assert all(p.grad is None for p in model.parameters())
    model.extra.requires_grad_(False)
    assert not leaves_out(model, images)


def finished(command: list[str], **settings: str) -> subprocess.CompletedProcess[str]:
    ended = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended


def test_two_processes_give_what_one_gives_and_end_with_each_other(tmp_path: Path) -> None:
    """`sidebyside` says what it looks at."""
    command = [sys.executable, "-m", "tests.train.sidebyside", str(tmp_path)]
    said = finished([*command, "--kills", str(KILLS)], TRITON_INTERPRET="0").stdout
    assert "2 processes for 50 steps: weights within" in said
    assert f"{KILLS} of {KILLS} kills ended the other within" in said
    script = [line for line in said.splitlines() if line.startswith("epoch 12 ")]
    assert len(script) == 1
    assert float(script[0].split()[-1].rstrip("%")) > 95
    assert said.count("of them here") == 4


@pytest.mark.skipif(not MANY, reason="Triton's interpreter takes long: CNNDSL_MANY=1")
def test_compiled_networks_can_be_sharded_with_their_kernels() -> None:
    said = finished([sys.executable, "-m", "tests.train.sharded"], TRITON_INTERPRET="1").stdout
    assert said.count("of them here") == 3


# ── torchrun ─────────────────────────────────────────────────────────────────────────────────────


def workers(agent: int) -> list[int]:
    """The processes that torchrun has started."""
    return [
        int(child) for child in Path(f"/proc/{agent}/task/{agent}/children").read_text().split()
    ]


def test_torchrun_ends_with_a_dead_process_and_the_run_goes_on_in_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network, run = tmp_path / "small.cnn", tmp_path / "run"
    network.write_text("input 8 x 8 x 1\nconv 8 3x3; relu\npool max 2\nflatten\nfc 10\nsoftmax\n")
    arguments = ["train", str(network), "--data", "digits", "--out", str(run), "--epochs", "60"]
    with (tmp_path / "said").open("w+") as said:
        agent = subprocess.Popen(
            [*TORCHRUN, "-m", "cnndsl", *arguments, "--device", "cpu"],
            env={**os.environ, "TRITON_INTERPRET": "0"},
            stdout=said,
            stderr=subprocess.STDOUT,
        )
        metrics = run / "metrics.jsonl"
        while not metrics.is_file() or len(metrics.read_bytes().splitlines()) < 2:
            assert agent.poll() is None, (tmp_path / "said").read_text()
            time.sleep(0.02)
        os.kill(workers(agent.pid)[1], signal.SIGKILL)
        began = time.monotonic()
        assert agent.wait(timeout=60) == 1
        lived = time.monotonic() - began
    said = (tmp_path / "said").read_text()
    assert lived < 10
    assert said.count("small: ") + said.count("Small: ") == 1  # one process speaks for all
    assert said.count("epoch  1/60") == 1
    before = len(metrics.read_text().splitlines())
    assert before < 60

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cnndsl.rt.module.INTERPRETED", False)
        assert main(["train", "--resume", str(run)]) == 0
    out = capsys.readouterr().out
    assert "note: begun in 2 processes, going on in 1 process: the last bits" in out
    epochs = [json.loads(text)["epoch"] for text in metrics.read_text().splitlines()]
    assert epochs == list(range(1, 61))
    assert training.open_run(run).metrics[-1]["test_accuracy"] > 0.9


@pytest.mark.skipif(not MANY, reason="`sidebyside` runs it too: CNNDSL_MANY=1")
def test_the_script_for_torchrun_learns() -> None:
    said = finished([*TORCHRUN, "examples/train_torchrun.py"], TRITON_INTERPRET="0").stdout
    last = said.splitlines()[-1]
    assert last.startswith("epoch 12 ")
    assert float(last.split()[-1].rstrip("%")) > 95

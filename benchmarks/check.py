"""How long `cnndsl check` takes, against what people use to learn the shapes of a network today.

    python benchmarks/check.py [--rounds 7]

Whole processes, from start to exit, as a user waits for them; the contenders take turns, so that
the load of the machine hits all alike. Prints medians, and ratios to `cnndsl check` of the same
network.
torchinfo and onnx are measured where they are installed (`pip install torchinfo onnx`).
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[1]
ZOO = ROOT / "examples" / "zoo"

# VGG-16 as its users write it, for those who need it in PyTorch.
VGG16 = """
from torch import nn
def vgg16():
    layers, channels = [], 3
    for width in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0):
        if width:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        else:
            layers.append(nn.MaxPool2d(2))
    layers += [nn.Flatten(), nn.Linear(25088, 4096), nn.ReLU(), nn.Dropout()]
    layers += [nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 1000)]
    return nn.Sequential(*layers)
"""
META = (
    VGG16
    + """
import torch
with torch.device("meta"):
    model, x = vgg16(), torch.empty(1, 3, 224, 224)
for layer in model:
    x = layer(x)
    print(type(layer).__name__, tuple(x.shape))
"""
)
TORCHINFO = (
    VGG16
    + """
import torchinfo
torchinfo.summary(vgg16(), (1, 3, 224, 224))
"""
)
# Two files of the same network: weights that are declared only, and weights that lie in the file,
# as exporters write them and people have them.
ONNX_MODEL = """
import sys
import numpy
import onnx
from onnx import TensorProto, helper, numpy_helper
nodes, inputs, stored, x, channels = [], [], [], "x", 3
def tensor(name, shape):
    if sys.argv[2] == "stored" and name != "x":
        stored.append(numpy_helper.from_array(numpy.zeros(shape, numpy.float32), name))
    else:
        inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    return name
tensor("x", [1, 3, 224, 224])
def add(kind, *weights, **attributes):
    global x
    nodes.append(helper.make_node(kind, [x, *weights], [f"y{len(nodes)}"], **attributes))
    x = nodes[-1].output[0]
for width in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0):
    if width:
        weight = tensor(f"w{len(nodes)}", [width, channels, 3, 3])
        add("Conv", weight, tensor(f"b{len(nodes)}", [width]), pads=[1, 1, 1, 1])
        add("Relu")
        channels = width
    else:
        add("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
add("Flatten")
for size, features in ((25088, 4096), (4096, 4096), (4096, 1000)):
    weight = tensor(f"w{len(nodes)}", [features, size])
    add("Gemm", weight, tensor(f"b{len(nodes)}", [features]), transB=1)
result = helper.make_tensor_value_info(x, TensorProto.FLOAT, None)
graph = helper.make_graph(nodes, "vgg16", inputs, [result], stored)
onnx.save(helper.make_model(graph), sys.argv[1])
"""
ONNX = """
import sys
import onnx
model = onnx.shape_inference.infer_shapes(onnx.load(sys.argv[1]), strict_mode=True)
for value in model.graph.value_info:
    print(value.name, [d.dim_value for d in value.type.tensor_type.shape.dim])
"""


def contenders(folder: Path) -> dict[str, list[str]]:
    """Each by its name: the command of a whole process."""
    python = sys.executable
    deep = folder / "deep.cnn"
    deep.write_text("input H x W x 3\nrepeat 4_999 { conv 8 3x3 pad=1; relu }\n")
    check = [python, "-m", "cnndsl", "check"]
    found = {
        "cnndsl check lenet": [*check, str(ROOT / "examples" / "lenet.cnn")],
        "cnndsl check vgg16": [*check, str(ZOO / "vgg16.cnn"), "--set", "H=224", "--set", "W=224"],
        "cnndsl check vgg16, all sizes": [*check, str(ZOO / "vgg16.cnn")],
        "cnndsl check resnet50": [*check, str(ZOO / "resnet50.cnn")],
        "cnndsl check, 9,998 layers": [*check, str(deep)],
        "torch meta device, vgg16": [python, "-c", META],
    }
    if find_spec("torchinfo"):
        found["torchinfo, vgg16"] = [python, "-c", TORCHINFO]
    if find_spec("onnx"):
        for weights in ("declared", "stored"):
            model = str(folder / f"{weights}.onnx")
            subprocess.run([python, "-c", ONNX_MODEL, model, weights], check=True)
            found[f"onnx shape inference, vgg16, weights {weights}"] = [python, "-c", ONNX, model]
    return found


def seconds(command: list[str]) -> float:
    """The time from start to exit."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7, help="how often each is run (7)")
    rounds = parser.parse_args().rounds
    # As an installed package: compiled modules are written once, and torch has one thread.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        commands = contenders(Path(folder))
        times: dict[str, list[float]] = {name: [] for name in commands}
        for number in range(rounds + 1):
            for name, command in commands.items():
                taken = seconds(command)
                if number:  # the first round warms the caches
                    times[name].append(taken)
    medians = {name: statistics.median(each) for name, each in times.items()}
    print(
        "| whole process | median s | against check of the same, or of lenet |\n| --- | --- | --- |"
    )
    for name, median in medians.items():
        base = "cnndsl check vgg16" if "vgg16" in name else "cnndsl check lenet"
        print(f"| {name} | {median:.3f} | {median / medians[base]:.1f} |")


if __name__ == "__main__":
    main()

"""What `gpu.py` measures: blocks of the design notes' table, and whole networks."""

from typing import NamedTuple


class Block(NamedTuple):
    """A convolution, bias, ReLU and maximum; `pool` is size, stride, pad."""

    name: str
    batch: int
    size: int
    channels: int
    filters: int
    kernel: int
    stride: int
    pad: int
    pool: tuple[int, int, int] | None
    is_first: bool = False

    @property
    def tiny(self) -> "Block":
        """The same form for a dry run."""
        return self._replace(
            batch=1,
            size=min(self.size, 10),
            channels=min(self.channels, 17),
            filters=min(self.filters, 17),
        )

    @property
    def source(self) -> str:
        """The block in the language."""
        pool = ""
        if self.pool:
            size, stride, pad = self.pool
            pool = f"pool max {size} stride={stride} pad={pad}"
        return (
            f"input {self.size} x {self.size} x {self.channels}\n"
            f"conv {self.filters} {self.kernel}x{self.kernel} stride={self.stride} pad={self.pad}\n"
            f"relu\n{pool}\n"
        )


# The table of design notes: first layers, the middle of CIFAR's and ImageNet's networks, a stem.
BLOCKS = (
    Block("A cifar 3-64", 256, 32, 3, 64, 3, 1, 1, (2, 2, 0), True),
    Block("B cifar 64-128", 256, 32, 64, 128, 3, 1, 1, (2, 2, 0)),
    Block("C cifar 256-256", 256, 16, 256, 256, 3, 1, 1, (2, 2, 0)),
    Block("D stem 7x7", 128, 224, 3, 64, 7, 2, 3, (3, 2, 1), True),
    Block("E 224 64-64", 64, 224, 64, 64, 3, 1, 1, (2, 2, 0)),
    Block("F 112 128-128", 64, 112, 128, 128, 3, 1, 1, (2, 2, 0)),
    Block("G 14 512-512", 64, 14, 512, 512, 3, 1, 1, (2, 2, 0)),
    Block("H mnist 1-32", 512, 28, 1, 32, 5, 1, 0, (2, 2, 0), True),
    Block("I mnist 32-64", 512, 12, 32, 64, 5, 1, 0, (2, 2, 0)),
    Block("J 56 64-64, no pool", 64, 56, 64, 64, 3, 1, 1, None),
    Block("K 14 256-256, no pool", 64, 14, 256, 256, 3, 1, 1, None),
    Block("L 14 1024-256 1x1", 64, 14, 1024, 256, 1, 1, 0, None),
)
CIFAR = """input 32 x 32 x 3
conv 64 3x3 pad=1; relu; pool max 2
conv 128 3x3 pad=1; relu; pool max 2
conv 256 3x3 pad=1; relu; pool max 2
flatten
fc 10
softmax
"""
VGG16_32 = "input 32 x 32 x 3\n" + "".join(
    f"conv {width} 3x3 pad=1; relu{'; pool max 2' if pool else ''}\n"
    for width, pool in zip(
        (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512),
        (0, 1, 0, 1, 0, 0, 1, 0, 0, 1, 0, 0, 1),
        strict=True,
    )
)
VGG16_32 += "flatten\nfc 10\nsoftmax\n"
# Jordan, 94% on CIFAR-10 in 3.29 seconds on a single GPU (2024): its layers.
AIRBENCH = "input 32 x 32 x 3\nconv 24 2x2; gelu\n" + "".join(
    f"conv {width} 3x3 pad=1 bias=no; pool max 2; batchnorm; gelu\n"
    f"conv {width} 3x3 pad=1 bias=no; batchnorm; gelu\n"
    for width in (64, 256, 256)
)
AIRBENCH += "pool max 3\nflatten\nfc 10 bias=no\nsoftmax\n"
# Each with its batch; a path below examples/ or a text.
STEPS = (
    ("LeNet", "lenet.cnn", 64, {}),
    ("CIFAR net", CIFAR, 256, {}),
    ("airbench", AIRBENCH, 1024, {}),
    ("ResNet-20", "zoo/resnet20_cifar.cnn", 256, {}),
    ("VGG-16 at 32", VGG16_32, 256, {}),
    ("VGG-16 at 224", "zoo/vgg16.cnn", 32, {"H": 224, "W": 224}),
    ("ResNet-18", "zoo/resnet18.cnn", 128, {"H": 224, "W": 224}),
    ("ResNet-50", "zoo/resnet50.cnn", 64, {"H": 224, "W": 224}),
    ("MobileNet-V2", "zoo/mobilenet_v2.cnn", 64, {"H": 224, "W": 224}),
)

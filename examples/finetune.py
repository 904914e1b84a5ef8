"""Fine-tunes torchvision's ResNet-18 on other classes: its trunk is frozen, a new head learns.

    python examples/finetune.py [WEIGHTS.safetensors]

Where torchvision is installed and reaches the network, it fetches ImageNet's weights; or give them
as a file. With neither, the trunk is random, which shows the steps but not the accuracy.
"""

import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from sklearn.datasets import load_digits

import cnndsl

torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"


def pretrained() -> dict[str, torch.Tensor] | None:
    """ImageNet's weights by torchvision's names, which are those of `resnet18.cnn`; or None."""
    if len(sys.argv) > 1:
        return load_file(sys.argv[1])
    try:
        from torchvision.models import ResNet18_Weights  # noqa: PLC0415 (it may be absent)

        return ResNet18_Weights.DEFAULT.get_state_dict(check_hash=True)
    except (ImportError, OSError, RuntimeError) as error:  # not installed, or no network
        print(f"no weights ({str(error).splitlines()[0]}): the trunk is random")
        return None


# The same network with ten classes instead of a thousand, so the last layer is another one.
model = cnndsl.compile(Path(__file__).parent / "zoo" / "resnet18.cnn", classes=10)
state = pretrained()
if state is not None:
    trunk = {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
    unfilled = model.load_state_dict(trunk, strict=False)
    assert unfilled.missing_keys == ["fc.weight", "fc.bias"], unfilled

# Grey 8x8 digits as the trunk knows images: RGB, larger, scaled as ImageNet was.
digits = load_digits()
images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
images = F.interpolate(images, size=(32, 32), mode="bilinear").expand(-1, 3, -1, -1)
mean, deviation = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
images = (images - mean) / deviation
labels = torch.tensor(digits.target)
order = torch.randperm(len(labels))
test, train = order[:359], order[359:]

# Frozen: no kernel computes these gradients. In evaluation mode batchnorm keeps its statistics.
model.to(device).eval().requires_grad_(False)
model.fc.requires_grad_(True)
optimizer = torch.optim.AdamW(model.fc.parameters(), lr=0.01)

for epoch in range(2):
    for chosen in train[torch.randperm(len(train))].split(64):
        optimizer.zero_grad()
        loss = model.loss(images[chosen].to(device), labels[chosen].to(device))
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        found = torch.cat(
            [model(images[part].to(device)).argmax(1).cpu() for part in test.split(64)]
        )
    accuracy = (found == labels[test]).float().mean()
    print(f"epoch {epoch + 1}  loss {loss:.4f}  test accuracy {accuracy:.2%}")

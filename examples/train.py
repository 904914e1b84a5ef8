"""Trains `digits.cnn` with PyTorch alone: what `compile` gives is an ordinary `nn.Module`."""

from pathlib import Path

import torch
from sklearn.datasets import load_digits

import cnndsl

torch.manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"

digits = load_digits()
images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1).to(device) / 16
labels = torch.tensor(digits.target).to(device)
order = torch.randperm(len(labels), device=device)
test, train = order[:359], order[359:]

model = cnndsl.compile(Path(__file__).with_name("digits.cnn")).to(device)
epochs, batch = 12, 64
optimizer = torch.optim.AdamW(model.parameters(), lr=0.003)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)

for epoch in range(epochs):
    model.train()
    for chosen in train[torch.randperm(len(train), device=device)].split(batch):
        optimizer.zero_grad()
        loss = model.loss(images[chosen], labels[chosen])
        loss.backward()
        optimizer.step()
    schedule.step()

    model.eval()
    with torch.no_grad():
        accuracy = (model(images[test]).argmax(1) == labels[test]).float().mean()
    print(f"epoch {epoch + 1:2}  loss {loss:.4f}  test accuracy {accuracy:.2%}")

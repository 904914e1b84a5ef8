"""What PyTorch's own transforms, tracers and counters find of a network: rows of the table, too."""

import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jacfwd, jacrev, jvp, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.flop_counter import FlopCounterMode

from tests.clients.libraries import use
from tests.clients.sides import X, Y


def weights(model):
    return {name: p.detach() for name, p in model.eval().named_parameters()}


def loss_of(model, own, x=X, y=Y):
    return F.cross_entropy(functional_call(model, own, (x,)), y)


def along(tensors):
    generator = torch.Generator().manual_seed(2)
    return {n: torch.randn(t.shape, generator=generator) for n, t in tensors.items()}


def named(values):
    return {str(index): value for index, value in enumerate(values)}


@use("torch.func", "torch")
def gradient(model):
    """`grad` of the loss in all weights"""
    return grad(lambda own: loss_of(model, own))(weights(model))


@use("torch.func", "torch")
def mapped(model):
    """`vmap` over images; over several sets of weights"""
    own = weights(model)
    several = {name: torch.stack([w, 2 * w]) for name, w in own.items()}
    return {
        "images": vmap(lambda image: model(image[None])[0])(X),
        "weights": vmap(lambda w: functional_call(model, w, (X,)))(several),
    }


@use("torch.func", "torch")
def samples(model):
    """gradients of each sample: `vmap` over `grad`"""
    run = grad(lambda own, x, y: loss_of(model, own, x[None], y[None]))
    return vmap(run, (None, 0, 0))(weights(model), X, Y)


@use("torch.func", "torch")
def pushed(model):
    """`jvp` along weights and along images"""
    own = weights(model)
    by_weights = jvp(lambda w: functional_call(model, w, (X,)), (own,), (along(own),))
    by_images = jvp(model, (X,), (along({"x": X})["x"],))
    return named([*by_weights, *by_images])


@use("torch.func", "torch")
def jacobians(model):
    """`jacrev` of all weights, `jacfwd` of the vectors among them"""
    own = weights(model)
    vectors = {name: w for name, w in own.items() if w.dim() == 1}
    back = jacrev(lambda w: functional_call(model, w, (X,)))(own)
    ahead = jacfwd(lambda w: functional_call(model, w, (X,)))(vectors)
    return back | {f"ahead {name}": value for name, value in ahead.items()}


@use("gradients of gradients", "torch")
def penalty(model):
    """a penalty on the gradient of the images (`create_graph=True`), and its gradients"""
    x = X.clone().requires_grad_()
    (found,) = torch.autograd.grad(F.cross_entropy(model.eval()(x), Y), x, create_graph=True)
    found.square().sum().backward()
    return {"found": found.detach(), "x": x.grad} | {
        name: p.grad for name, p in model.named_parameters() if p.grad is not None
    }


@use("gradients of gradients", "torch")
def hessian_product(model):
    """the Hessian of the weights times a vector"""
    own = dict(model.eval().named_parameters())
    first = torch.autograd.grad(F.cross_entropy(model(X), Y), list(own.values()), create_graph=True)
    vector = list(along(own).values())
    return named(torch.autograd.grad(first, list(own.values()), vector))


@use("`torch.autograd.forward_ad`", "torch")
def dual(model):
    """dual numbers of images, and of weights"""
    own, model = weights(model), model.eval()
    with torch.no_grad(), forward_ad.dual_level():
        of_images = model(forward_ad.make_dual(X, along({"x": X})["x"]))
        duals = {n: forward_ad.make_dual(own[n], d) for n, d in along(own).items()}
        of_weights = functional_call(model, duals, (X,))
        return named([*forward_ad.unpack_dual(of_images), *forward_ad.unpack_dual(of_weights)])


@use("`torch.fx`", "torch")
def traced(model):
    """`symbolic_trace` and `make_fx`, each called with other images"""
    model, other = model.eval(), X.flip(0)
    return named([torch.fx.symbolic_trace(model)(other), make_fx(model)(X)(other)])


LOADER = """\
import sys, torch
assert not any(name.startswith(("cnndsl", "triton.language")) for name in sys.modules)
x = torch.load("x.pt")
found = [torch.jit.load("traced.pt")(x), torch.jit.load("scripted.pt")(x)]
found.append(torch.export.load("exported.pt2").module()(x))
torch.save([t.detach() for t in found], "found.pt")
"""


@use("`torch.jit`, `torch.export`", "torch")
def saved(model):
    """a trace, a script and an export, saved and loaded in a process without cnndsl"""
    model = model.eval()
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch.jit, and that sizes are looked at
        folder = Path(name)
        torch.save(X, folder / "x.pt")
        torch.jit.trace(model, X).save(folder / "traced.pt")
        torch.jit.script(model).save(folder / "scripted.pt")
        torch.export.save(torch.export.export(model, (X,)), folder / "exported.pt2")
        command = [sys.executable, "-W", "ignore", "-c", LOADER]
        subprocess.run(command, cwd=folder, check=True)
        return named(torch.load(folder / "found.pt"))


@use("`FlopCounterMode`", "torch")
def counted(model):
    """forward and backward; on `meta` tensors"""
    counts = []
    for device in ("cpu", "meta"):
        with FlopCounterMode(display=False) as counter:
            model.to(device).eval()(X.to(device)).sum().backward()
        counts.append(counter.get_total_flops())
    assert min(counts) > 0
    return {"counts": torch.tensor(counts)}


@use("`torch.autocast`", "torch", rounding=2**-6)
def cast(model):
    """a step in bfloat16 (Triton's interpreter has no autocast: there the operators run)"""
    with torch.autocast("cpu", torch.bfloat16):
        y = model.train()(X)
        F.cross_entropy(y.float(), Y).backward()
    return {"y": y.detach().float()} | {name: p.grad for name, p in model.named_parameters()}

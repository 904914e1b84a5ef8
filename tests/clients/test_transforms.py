"""torch.func, forward-mode gradients and gradients of gradients: what a hand-written module gives.

Each client is given the plain module and ours, with PyTorch's operators and with kernels, and the
results are compared.
"""

import os

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vmap
from triton.runtime import interpreter

from tests.clients.kinds import KINDS, PATHS, batch, pair

MANY = os.environ.get("CNNDSL_MANY") == "1"
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch, in jvp
torch.set_num_threads(1)
interpreter.interpreter_builder.options = interpreter.InterpreterOptions(sanitize_overflow=False)


class Loss(nn.Module):
    """A module whose `forward` is the loss of another."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x, y):
        return self.model.loss(x, y)


def weights(model):
    return {name: p.detach() for name, p in model.named_parameters()}


def random_like(tensors):
    torch.manual_seed(2)
    return [torch.randn(t.shape, dtype=t.dtype) for t in tensors]


# ── torch.func ───────────────────────────────────────────────────────────────────────────────────


def by_grad(model, x, y):
    return grad(lambda w: functional_call(Loss(model), w, (x, y)))(weights(Loss(model)))


def by_vmap(model, x, y):
    return vmap(lambda image: model(image[None])[0])(x)


def by_samples(model, x, y):
    """Gradients of each sample by itself."""
    run = grad(lambda w, a, b: functional_call(Loss(model), w, (a[None], b[None])))
    return vmap(run, (None, 0, 0))(weights(Loss(model)), x, y)


def by_ensemble(model, x, y):
    """Several sets of weights at once."""
    stacked = {n: torch.stack([w, 2 * w]) for n, w in weights(model).items()}
    return vmap(lambda w: functional_call(model, w, (x,)))(stacked)


def by_jvp(model, x, y):
    own = weights(model)
    along = dict(zip(own, random_like(own.values()), strict=True))
    return jvp(lambda w: functional_call(model, w, (x,)), (own,), (along,))


def by_jvp_of_images(model, x, y):
    return jvp(model, (x,), tuple(random_like([x])))


def by_jacrev(model, x, y):
    return jacrev(lambda w: functional_call(model, w, (x,)))(weights(model))


def by_jacfwd(model, x, y):
    return jacfwd(lambda w: functional_call(model, w, (x,)))(
        {n: w for n, w in weights(model).items() if w.dim() == 1}
    )


def by_hessian(model, x, y):
    return hessian(lambda image: model.loss(image, y))(x)


# ── autograd ─────────────────────────────────────────────────────────────────────────────────────


def by_penalty(model, x, y):
    """Penalise the gradient of the loss in the images."""
    x = x.clone().requires_grad_()
    (found,) = torch.autograd.grad(model.loss(x, y), x, create_graph=True)
    (found.square().sum() + model(x).sum()).backward()
    return [found, x.grad, *(p.grad for p in model.parameters())]


def by_hessian_product(model, x, y):
    own = list(model.parameters())
    found = torch.autograd.grad(model.loss(x, y), own, create_graph=True)
    return torch.autograd.grad(found, own, random_like(own))


def by_third(model, x, y):
    """A derivative more; PyTorch's own of a batchnorm in training is wrong, as gradcheck shows."""
    own, x = list(model.parameters()), x.clone().requires_grad_()
    (found,) = torch.autograd.grad(model(x).square().sum(), x, create_graph=True)
    (found,) = torch.autograd.grad(found.square().sum(), x, create_graph=True)
    return torch.autograd.grad(found.square().sum(), [x, *own], allow_unused=True)


def by_frozen(model, x, y):
    """The Hessian of images times a vector, of weights that do not learn."""
    model.requires_grad_(False)
    x = x.clone().requires_grad_()
    (found,) = torch.autograd.grad(model.loss(x, y), x, create_graph=True)
    return [found, *torch.autograd.grad(found, x, random_like([x]))]


def by_batches(model, x, y):
    """Several gradients of the output at once, which is vmap over backward."""
    out = model(x)
    own = [p for p in model.parameters() if p.requires_grad]
    several = torch.eye(out.numel()).view(-1, *out.shape)
    return torch.autograd.grad(out, own, several, is_grads_batched=True)


def by_functional(model, x, y):
    return torch.autograd.functional.hvp(lambda image: model.loss(image, y), x, random_like([x])[0])


# ── forward mode ─────────────────────────────────────────────────────────────────────────────────


def by_dual(model, x, y):
    with torch.no_grad(), forward_ad.dual_level():
        out = model(forward_ad.make_dual(x, random_like([x])[0]))
        return tuple(forward_ad.unpack_dual(out))


def by_dual_weights(model, x, y):
    own = weights(Loss(model))
    with forward_ad.dual_level():
        duals = zip(own, own.values(), random_like(own.values()), strict=True)
        found = functional_call(
            Loss(model), {n: forward_ad.make_dual(w, d) for n, w, d in duals}, (x, y)
        )
        return tuple(forward_ad.unpack_dual(found))


def by_forward_over_backward(model, x, y):
    """Backward of what was computed before the dual level began."""
    x = x.clone().requires_grad_()
    out = model(x)
    with forward_ad.dual_level():
        along = forward_ad.make_dual(*random_like([out, out]))
        (found,) = torch.autograd.grad(out, x, along)
        return [t for t in forward_ad.unpack_dual(found) if t is not None]


OF_WEIGHTS = (by_grad, by_ensemble, by_jvp, by_jacrev, by_jacfwd, by_dual_weights)
OF_WEIGHTS += (by_hessian_product, by_batches)
OF_IMAGES = (by_jvp_of_images, by_hessian, by_penalty, by_frozen, by_functional)
OF_IMAGES += (by_dual, by_forward_over_backward)
ALONE = (by_vmap, by_samples)  # an image by itself has no statistics


def flat(found):
    return [t for t in torch.utils._pytree.tree_leaves(found) if isinstance(t, Tensor)]


def outcome(client, model, x, y):
    try:
        return flat(client(model, x, y))
    except RuntimeError as error:
        return type(error)


def clients_of(name):
    kind = KINDS[name]
    clients = list(OF_WEIGHTS)
    if kind.dtype.is_floating_point:
        clients += OF_IMAGES
    if not kind.training:
        clients += [*ALONE, *[by_third] * kind.dtype.is_floating_point]
    return clients


def cases():
    """Each client with one of a few networks; with CNNDSL_MANY=1 all with all."""
    found = [
        (name, client, path) for name in KINDS for client in clients_of(name) for path in PATHS
    ]
    if MANY:
        return found
    names = ("sums", "relu and max", "norm and sum in training")
    clients = (*OF_WEIGHTS, *OF_IMAGES, *ALONE, by_third)
    turn = {client: names[number % len(names)] for number, client in enumerate(clients)}
    return [
        (name, client, path)
        for name, client, path in found
        if path == "kernels" and turn[client] == name
    ]


@pytest.mark.parametrize(
    ("name", "client", "path"), cases(), ids=lambda value: getattr(value, "__name__", value)
)
def test_it_gives_what_the_plain_module_gives(name, client, path, monkeypatch):
    plain, ours = pair(name, path, monkeypatch)
    wanted, found = (outcome(client, model, *batch(name)) for model in (plain, ours))
    if isinstance(wanted, type):  # PyTorch's own batchnorm cannot do it in training either
        assert found == wanted
        return
    assert len(wanted) > 0
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)
    running = [b for name, b in ours.named_buffers() if not name.startswith("input_")]
    for a, b in zip(running, plain.buffers(), strict=True):
        torch.testing.assert_close(a, b)

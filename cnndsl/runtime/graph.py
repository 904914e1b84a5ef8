"""A step of training as one CUDA graph, on PyTorch's own machinery; elsewhere a plain step.

A GPU replays a graph without waiting for Python, which launches the kernels of small networks more
slowly than they run. Knows nothing of epochs, data sets and checkpoints.
"""

from collections.abc import Callable, Hashable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from cnndsl.runtime import settings

# So many steps are plain before the capture: kernels are compiled, moments and buffers allocated.
WARM_UP = 3

Run = Callable[..., tuple[Tensor, ...]]


class CaptureError(RuntimeError):
    """A step that cannot be a CUDA graph; what it was given, and all weights, are as before."""


class Captured:
    """A function of tensors that changes a network: after `WARM_UP` calls, a CUDA graph of it.

    `run` gives tensors that share no memory with what it is given. The graph is of the shapes that
    came first; for others, such as those of a smaller last batch, `run` is called. Where `watched`
    gives another value than at the capture, or the settings of the model or of PyTorch are others,
    the graph is captured again. So a layer that changes its own settings in each call, such as one
    that counts them, is never captured: what it counts may decide what it computes.
    """

    def __init__(self, run: Run, model: nn.Module, watched: Callable[[], object]) -> None:
        self._run = run
        self._model = model
        self._watched = watched
        self._shapes: Hashable = None
        self._seen: settings.Setting | None = None
        self._warm = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._given: tuple[Tensor, ...] = ()
        self._found: tuple[Tensor, ...] = ()
        self._gradients: list[Tensor | None] = []

    def __call__(self, *given: Tensor) -> tuple[Tensor, ...]:
        """Do what `run` does."""
        shapes = tuple((t.shape, t.stride(), t.dtype, t.device) for t in given)
        seen = self._setting()
        if seen != self._seen:
            self.forget()
            self._seen, self._shapes = seen, shapes
        if shapes != self._shapes:
            return self._run(*given)
        with torch.cuda.device(given[0].device):
            if self._graph is None and self._warm < WARM_UP:
                self._warm += 1
                return self._beside(*given)
            if self._graph is None:
                self._capture(given)
            return self._replay(given)

    def _setting(self) -> settings.Setting:
        """All that a graph keeps, and that may change between two calls."""
        return self._watched(), settings.of_process(), settings.of_model(self._model)

    def forget(self) -> None:
        """Let the graph go: what it works on has been replaced."""
        self._graph, self._seen, self._warm = None, None, 0
        self._given, self._found, self._gradients = (), (), []

    def _beside(self, *given: Tensor) -> tuple[Tensor, ...]:
        """Run on another stream than the usual one, on which nothing can be captured later."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            found = self._run(*given)
        torch.cuda.current_stream().wait_stream(stream)
        return found

    def _capture(self, given: tuple[Tensor, ...]) -> None:
        """Note what a call launches, and do none of it."""
        self._given = tuple(tensor.clone() for tensor in given)
        for parameter in self._model.parameters():
            parameter.grad = None  # the graph allocates its own
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self._found = self._run(*self._given)
        except Exception as error:  # PyTorch raises many kinds; all are raised again, with why
            self.forget()
            raise CaptureError(
                "this step cannot be captured as a CUDA graph: something in it waits for the GPU, "
                "or copies between it and the CPU. Take that out of the loss, or take the step "
                f"plainly. PyTorch says: {error}"
            ) from error
        self._gradients = [parameter.grad for parameter in self._model.parameters()]
        self._graph = graph

    def _replay(self, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Fill the graph's inputs and let it run."""
        assert self._graph is not None
        for place, tensor in zip(self._given, given, strict=True):
            place.copy_(tensor, non_blocking=True)
        self._graph.replay()
        for parameter, gradient in zip(self._model.parameters(), self._gradients, strict=True):
            parameter.grad = gradient  # a plain step between may have put its own there
        # The next replay writes over these.
        return tuple(tensor.clone() for tensor in self._found)


class GraphStep:
    """A step of training: forward, loss, backward and optimizer; see `graph_step`."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        loss: Callable[[Tensor, Tensor], Tensor],
        clip: float,
    ) -> None:
        self._model = model
        self._optimizer = optimizer
        self._loss = loss
        self._clip = clip
        self._captured: Captured | None = None
        self._rates: list[Tensor] = []
        self._device = gpu_of(model)
        if self._device is not None:
            Capturable(optimizer)
            self._captured = Captured(self._step, model, self._settings)
            # A state that is loaded lies elsewhere in memory.
            optimizer.register_load_state_dict_post_hook(self._forget)

    def __call__(self, images: Tensor, targets: Tensor) -> Tensor:
        """Learn from a batch; gives its loss, before the step."""
        if self._captured is None:
            return self._step(images, targets)[0]
        groups = self._optimizer.param_groups
        if len(self._rates) != len(groups):
            self._rates = [torch.zeros((), device=self._device) for _ in groups]
        for group, rate in zip(groups, self._rates, strict=True):
            rate.fill_(float(group["lr"]))
        given = (t.to(self._device, non_blocking=True) for t in (images, targets))
        return self._captured(*given)[0]

    def _step(self, images: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        self._optimizer.zero_grad()
        loss = self._loss(images, targets)
        torch.autograd.backward(loss)
        if self._clip:
            nn.utils.clip_grad_norm_(self._model.parameters(), self._clip)
        if self._captured is not None and torch.cuda.is_current_stream_capturing():
            self._note_update()
        else:
            self._optimizer.step()
        return (loss.detach(),)

    def _note_update(self) -> None:
        """Let the optimizer step in a capture, with learning rates that can change later."""
        groups = self._optimizer.param_groups
        kept = [dict(group) for group in groups]
        try:
            for group, rate in zip(groups, self._rates, strict=True):
                group["lr"] = rate
                if "capturable" not in group:  # sgd: only its fused kernel reads it on the device
                    group["fused"], group["foreach"] = True, False
            self._optimizer.step()
        finally:
            for group, before in zip(groups, kept, strict=True):
                group.update(before)

    def _settings(self) -> settings.Setting:
        """What a graph keeps of the optimizer and of a loss."""
        return settings.of_optimizer(self._optimizer), settings.of_loss(self._loss)

    def _forget(self, optimizer: Optimizer) -> None:
        del optimizer
        if self._captured is not None:
            self._captured.forget()


class Capturable:
    """Lets an optimizer keep all that it counts on the device; `ValueError` if it cannot.

    Its `state_dict` stays what it was: counts on the CPU and `capturable` as given.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        for group in optimizer.param_groups:
            _refuse(optimizer, group)
        self._given = [group.get("capturable") for group in optimizer.param_groups]
        self._switch_on(optimizer)
        optimizer.register_load_state_dict_post_hook(self._switch_on)
        optimizer.register_state_dict_post_hook(self._as_given)

    def _switch_on(self, optimizer: Optimizer) -> None:
        for group in optimizer.param_groups:
            if "capturable" not in group:
                continue
            group["capturable"] = True
            for parameter in group["params"]:
                state = cast("dict[str, object]", optimizer.state.get(parameter, {}))
                count = state.get("step")
                if isinstance(count, Tensor):
                    state["step"] = count.to(parameter.device)

    def _as_given(self, optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        groups = [dict(group) for group in state["param_groups"]]
        moments = {number: dict(each) for number, each in state["state"].items()}
        for group, given in zip(groups, self._given, strict=False):
            if given is None:
                continue
            group["capturable"] = given
            for number in group["params"]:
                count = moments.get(number, {}).get("step")
                if isinstance(count, Tensor) and not (given or group.get("fused")):
                    moments[number]["step"] = count.cpu()
        return {**state, "state": moments, "param_groups": groups}


def _refuse(optimizer: Optimizer, group: dict[str, Any]) -> None:
    name = type(optimizer).__name__
    if "capturable" not in group and not isinstance(optimizer, torch.optim.SGD):
        raise ValueError(
            f"{name} cannot be captured in a CUDA graph: take SGD, or an optimizer that has "
            "`capturable`, such as Adam, AdamW or RMSprop"
        )
    if group.get("differentiable"):
        raise ValueError(f"{name} with `differentiable` cannot be captured in a CUDA graph")
    if isinstance(group["lr"], Tensor):
        raise ValueError("give the learning rate as a number: a schedule changes it all the same")


def graph_step(
    model: nn.Module,
    optimizer: Optimizer,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    *,
    clip: float = 0.0,
) -> Callable[[Tensor, Tensor], Tensor]:
    """Give `step(images, targets) -> loss`, which on a CUDA device replays one CUDA graph.

    A step clears the gradients, computes `loss(images, targets)` (a number; default `model.loss`)
    and the gradients, cuts their norm to `clip` (0: as it is), and lets the optimizer step.

    On CUDA the first `WARM_UP` steps are plain ones, and so are those of batches of another shape
    than the first, such as the last of an epoch. A schedule may change the learning rate at any
    time. Any other change makes a new graph: of the optimizer's settings, of a layer's (momentum,
    the rate of a dropout, `train()` and `eval()`), of hooks, of what is frozen or where weights
    lie, and of PyTorch's own (TF32, autocast, deterministic algorithms). The optimizer is SGD, or
    one that has `capturable`, which is switched on; `ValueError` for others. On other devices, each
    step is the plain one: to the bit what the usual five lines compute.
    """
    given = loss if loss is not None else getattr(model, "loss", None)
    if not callable(given):
        raise TypeError("the model has no `loss`: give one, graph_step(model, optimizer, loss)")
    if isinstance(model, DistributedDataParallel):
        raise ValueError("a step of several processes is not captured: take it plainly")
    return GraphStep(model, optimizer, cast("Callable[[Tensor, Tensor], Tensor]", given), clip)


def gpu_of(model: nn.Module) -> torch.device | None:
    """The CUDA device on which all of a network lies; None for any other place."""
    devices = {tensor.device for tensor in (*model.parameters(), *model.buffers())}
    is_one = len(devices) == 1 and next(iter(devices)).type == "cuda"
    return devices.pop() if is_one else None

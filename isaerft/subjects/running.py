"""Running a part of a Hugging Face model: leaving its forward pass early, or letting modules give something else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from isaerft.subjects.blocks import decoder_of

_N_OUTPUTS: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()


class _Reached(Exception):
    """Raised inside the forward pass to leave it."""


@contextmanager
def leaving(
    *, inputs: Mapping[str, nn.Module], outputs: Mapping[str, nn.Module], last: str
) -> Iterator[dict[str, torch.Tensor]]:
    """Note the hidden states that enter `inputs` and come out of `outputs`, and leave the forward pass with `last`."""
    seen: dict[str, torch.Tensor] = {}

    def note(name: str, value: torch.Tensor) -> None:
        seen[name] = value
        if name == last:
            raise _Reached

    def at_input(name: str) -> Callable[..., None]:
        return lambda _, args, kwargs: note(name, args[0] if args else kwargs["hidden_states"])

    def at_output(name: str) -> Callable[..., None]:
        return lambda _, args, output: note(name, output[0] if isinstance(output, tuple) else output)

    with ExitStack() as handles:
        for name, module in inputs.items():
            handles.callback(module.register_forward_pre_hook(at_input(name), with_kwargs=True).remove)
        for name, module in outputs.items():
            handles.callback(module.register_forward_hook(at_output(name)).remove)
        with suppress(_Reached):
            yield seen


@contextmanager
def entering(module: nn.Module, hidden: torch.Tensor) -> Iterator[None]:
    """Let `module` read `hidden` in place of the hidden states it is given."""
    handle = module.register_forward_pre_hook(
        lambda _, args, kwargs: ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden}),
        with_kwargs=True,
    )
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def giving(
    model: nn.Module, modules: Mapping[nn.Module, Callable[[torch.Tensor], torch.Tensor]], like: nn.Module
) -> Iterator[None]:
    """Let each module give what a function makes of the hidden states it reads, in the form that `like` returns."""
    n = _n_outputs(model, like)

    def forward(make: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., Any]:
        def give(*args: Any, **kwargs: Any) -> Any:
            made = make(args[0] if args else kwargs["hidden_states"])
            return (made, *[None] * (n - 1)) if n else made

        return give

    with ExitStack() as undo:
        for module, make in modules.items():
            module.forward = forward(make)
            undo.callback(delattr, module, "forward")
        yield


def _n_outputs(model: nn.Module, module: nn.Module) -> int:
    """Tell, by running the model, how long the tuple is that a module returns; 0 for a tensor alone."""
    if module not in _N_OUTPUTS:
        outputs: list[Any] = []
        handle = module.register_forward_hook(lambda _, args, output: outputs.append(output))
        try:
            with torch.no_grad():
                decoder_of(model)(input_ids=torch.zeros(1, 1, dtype=torch.int64, device=model.device), use_cache=False)
        finally:
            handle.remove()
        _N_OUTPUTS[module] = len(outputs[0]) if isinstance(outputs[0], tuple) else 0
    return _N_OUTPUTS[module]

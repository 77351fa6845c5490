"""Coverage of src/ alone: what libraries do by themselves runs untraced.

Until Python 3.12 a tracer slows down all Python, measured or not: drawing a figure takes twice as long. So it rests while
a library draws, parses, compiles a template, is imported, or a network runs. Of src/ two lines are run in there alone, which
then count as missed: an axis's formatter and the forward of the quality head. On 3.12 and later coverage needs no tracer, and nothing is done here.
"""

from __future__ import annotations

import functools
import importlib.machinery
import sys
import sysconfig
from collections.abc import Callable
from types import ModuleType
from typing import Any

# Of these modules the methods, in which coverage rests from when the module is first imported.
RESTS = {
    "diffusers.loaders.peft": ("PeftAdapterMixin.add_adapter",),
    "jinja2.environment": ("Environment.compile", "Template.render"),
    "matplotlib.axis": ("Axis._update_ticks",),
    "matplotlib.figure": ("Figure.draw", "Figure.savefig", "Figure.subplots"),
    "scipy.stats._distn_infrastructure": tuple(f"rv_continuous.{name}" for name in ("cdf", "isf", "pdf", "ppf", "sf")),
    "torch._tensor": ("Tensor.backward",),
    "torch.nn.modules.module": ("Module.__call__",),
    "yaml.composer": ("Composer.get_single_node",),
}
LIBRARIES = tuple(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib"))


def untraced(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same, with this thread's tracer away meanwhile."""

    @functools.wraps(function)
    def rests(*args: Any, **kwargs: Any) -> Any:
        tracer = sys.gettrace()
        if tracer is None:
            return function(*args, **kwargs)
        sys.settrace(None)
        try:
            return function(*args, **kwargs)
        finally:
            sys.settrace(tracer)

    return rests


def _prepare(module: ModuleType) -> None:
    for name in RESTS.get(module.__name__, ()):
        owner, method = name.split(".")
        setattr(getattr(module, owner), method, untraced(getattr(getattr(module, owner), method)))


def install() -> None:
    """Let a tracer rest, if there is one: call it before libraries are imported; those that are already here follow at once."""
    if sys.gettrace() is None:
        return
    loader: Any = importlib.machinery.SourceFileLoader
    run, resting = loader.exec_module, untraced(loader.exec_module)

    def exec_module(self: Any, module: ModuleType) -> None:
        (resting if self.path.startswith(LIBRARIES) else run)(self, module)
        _prepare(module)

    loader.exec_module = exec_module
    for name in RESTS:
        if name in sys.modules:
            _prepare(sys.modules[name])

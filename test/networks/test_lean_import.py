"""timm without PyTorch's compiler, in processes of their own."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
import torch
before = set(sys.modules)
import emu_perception.networks.encoder
assert "timm" in sys.modules
heavy = {"torch._dynamo", "torch._inductor", "sympy"} & (set(sys.modules) - before)
assert not heavy, heavy

# What was put off is there when it is needed.
import torchvision.ops
boxes = torch.tensor([[0.0, 0.0, 0.0, 4.0, 4.0]])
assert torchvision.ops.roi_align(torch.ones(1, 1, 8, 8), boxes, 2).eq(1).all()
module = torch.nn.Linear(2, 2)
compiled = torch.compile(module, backend="eager")
image = torch.ones(1, 2)
assert torch.equal(compiled(image), module(image))

from emu_perception.networks import lean_import
calls = []

@lean_import._disable(recursive=False)
def graph_break(x):
    calls.append(torch.compiler.is_compiling())
    return x + 1

assert graph_break.__name__ == "graph_break"
compiled = torch.compile(lambda x: graph_break(x * 2) * 3, backend="eager")
assert compiled(torch.ones(1)) == 9 and calls == [False]
print("all of it")
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=300
    )


def test_the_compiler_is_loaded_by_those_who_need_it() -> None:
    done = run(PROGRAM)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "all of it"


def test_a_timm_that_needs_more_of_the_compiler_is_imported_in_full() -> None:
    program = """
import importlib, sys
real = importlib.import_module
def strict(name, package=None):
    if name == "timm" and not hasattr(sys.modules["torch._dynamo"], "config"):
        raise ImportError("cannot import name 'config'")
    return real(name, package)
importlib.import_module = strict
import emu_perception.networks.encoder
importlib.import_module = real
assert "timm" in sys.modules
import torch._dynamo
assert torch._dynamo.config is not None
"""
    done = run(program)
    assert done.returncode == 0, done.stderr

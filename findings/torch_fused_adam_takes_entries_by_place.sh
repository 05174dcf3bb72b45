#!/usr/bin/env bash
# torch.optim.Adam(fused=True) on a CPU goes through memory in order: a gradient whose strides differ from its parameter's gives every
# entry another one's step, without a word. foreach=True and the plain loop take entries by their index.
# torch 2.13.0. Seen, a weight (4, 3, 2, 2), its gradient in channels-last (what torch.autograd.grad of a convolution of channels-last
# pictures gives), three steps of .1: the fused weights are off by .6, with a contiguous copy of the same gradient by 3e-8.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3.11}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import torch


def learned(fused, layout):
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(4, 3, 2, 2))
    gradient = torch.randn(4, 3, 2, 2).contiguous(memory_format=layout)
    adam = torch.optim.Adam([weight], lr=0.1, fused=fused, foreach=not fused)
    for _ in range(3):
        weight.grad = gradient
        adam.step()
    return weight.detach()


kept, last = torch.contiguous_format, torch.channels_last
off = {layout: float((learned(True, layout) - learned(False, layout)).abs().max()) for layout in (kept, last)}
plain = float((learned(False, last) - learned(False, kept)).abs().max())
pictures = torch.randn(2, 3, 5, 5).contiguous(memory_format=last)
weight = torch.nn.Parameter(torch.randn(4, 3, 2, 2))
(given,) = torch.autograd.grad(torch.nn.functional.conv2d(pictures, weight).square().sum(), weight)
print(f"fused beside foreach: {off[kept]:.0e} contiguous, {off[last]:.2f} channels-last; foreach itself {plain:.0e}")
print(f"strides of a convolution's gradient {given.stride()}, of its weight {weight.stride()}")
assert off[kept] < 1e-6 and plain == 0 and off[last] > 0.1 and given.stride() != weight.stride(), "the behaviour has changed"
PY

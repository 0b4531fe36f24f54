import contextlib
import shutil

import pytest
import torch
import torch._inductor.config
from torch import nn

from runtime.compiling import compiled


def network():
    torch.manual_seed(0)
    torch._dynamo.reset()  # it remembers what it could not compile
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def test_what_cannot_be_compiled_trains_as_it_is_after_one_line():
    net, lines = network(), []
    with torch._inductor.config.patch("cpp.cxx", ("no-such-compiler",)):
        assert compiled(net, contextlib.nullcontext(), [torch.zeros(2, 3, 9, 11)], lines.append) is net
    assert len(lines) == 1 and "no-such-compiler" in lines[0] and "\n" not in lines[0], lines


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="there is no C++ compiler")
def test_compiling_changes_no_weight_statistic_gradient_or_name():
    net, same, lines = network(), network(), []
    fast = compiled(net, contextlib.nullcontext(), [torch.zeros(2, 3, 8, 8)], lines.append)
    assert not lines and fast is not net
    assert net.state_dict().keys() == same.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), same.state_dict().values(), strict=True))
    assert all(p.grad is None for p in net.parameters())
    x = torch.randn(2, 3, 8, 8)
    assert torch.allclose(fast(x), same(x), atol=1e-5)
    assert torch.allclose(net[1].running_mean, same[1].running_mean, atol=1e-6)  # the compiled one shares its tensors

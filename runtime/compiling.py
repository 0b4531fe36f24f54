"""torch.compile where it works."""

import torch


def compiled(network, autocast, inputs, say):
    """The network to train with: compiled by torch.compile, or itself, with one line, where that fails.

    What fails (no compiler, a platform or a Python that torch.compile does not know) fails at the first forward or
    backward pass, so one of each is run here; weights and batch norm's statistics stay as they are. The network's own
    names, and so its checkpoints, do not change: the compiled one shares its tensors.

    inputs: tensors of a micro-batch's shapes, types and memory format
    say:    takes the line
    """
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    try:
        fast = torch.compile(network.train())
        with autocast:
            outputs = fast(*inputs)
        (outputs[0] if isinstance(outputs, tuple) else outputs).sum().backward()
    except Exception as error:  # dynamo, inductor, the C++ compiler and Triton raise what they like
        lines = [line for line in str(error).splitlines() if line.strip() and not line.endswith("raised:")]
        reason = (lines or [type(error).__name__])[0].strip()[:150]
        say(f"train.compile: going on without it, since torch.compile fails here: {reason}")
        fast = network
    network.load_state_dict(before)
    network.zero_grad(set_to_none=True)
    return fast

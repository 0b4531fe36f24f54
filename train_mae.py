"""Pretrain the segmenter's ResNet-18 as the patch embedding of a masked autoencoder (Sec. 4.5).

    python train_mae.py configs/demo/mae.yaml                       # CPU, minutes
    torchrun --nproc_per_node=8 train_mae.py configs/low2high/mae_usa.yaml data.root=usa run.dir=runs/mae_usa

The run's resnet18.pt starts a segmenter: train_seg.py ... model.init=runs/mae_usa/resnet18.pt
To resume a stopped run, give the same command again. SIGTERM and Ctrl-C finish the current step, save last.pt and exit.
"""

import math
from dataclasses import asdict

import torch

from config import PretrainConfig
from data.loading import scoring_batches, to_device, training_batches
from data.unlabelled import PretrainingCrops, ValidationCrops, common_facts, read_unlabelled
from models import MaskedAutoencoder
from models.mae import blank, reconstruct, token_grid
from reports.curves import save_run_curves
from reports.figures import color_image, contact_sheet
from runtime import checkpoint, command, distributed
from runtime.errors import require
from runtime.run import Run
from runtime.schedule import learning_rate
from runtime.settings import from_command_line

FIGURE_IMAGES = 6


def main(config):
    # Processes, device. Weights come from the seed; every draw from (seed, step, position in the global batch).
    ranks = distributed.start(config.run.device)
    device = ranks.device
    per_rank, micro_batch = config.train.split(ranks.world)
    cells, masked = config.patches(32)  # pixels of a crop in layer4, where batch norm needs two values a channel
    seen = cells - masked if config.mae.mask_where == "layers" else cells
    require(micro_batch * seen > 1, "train.batch_size: a forward pass needs more crops, or larger ones, for batch norm")
    torch.manual_seed(config.run.seed)
    run = Run(config, ranks)

    # Data. Training crops go on to the run's end; validation shares do not overlap, so nothing is scored twice.
    data = config.data
    chosen = data.regions, data.exclude_regions, data.heldout
    roots = data.root, *data.more_roots
    sets = [read_unlabelled(root, data.images, data.bands, *chosen) for root in roots]
    training_sets, validation_sets = zip(*sets, strict=True)
    facts = common_facts(training_sets)
    tokens = math.prod(token_grid(data.crop_px, data.crop_px))  # a draw of the mask needs a number for each
    draws = {"min_area": data.min_area, "batch_size": config.train.batch_size, "seed": config.run.seed}
    samples = PretrainingCrops(training_sets, data.crop_px, tokens, **draws)
    validation_samples = ValidationCrops(validation_sets, data.crop_px, tokens)

    # Network, optimiser, precision.
    memory_format = distributed.memory_format(config.train.channels_last, device, config.model.width)
    mae = MaskedAutoencoder(facts["bands"], config.model.width, **asdict(config.mae))
    mae = mae.to(device, memory_format=memory_format)
    decayed = [p for p in mae.parameters() if p.ndim > 1]
    rest = [p for p in mae.parameters() if p.ndim <= 1]  # biases, norms and the mask token [ours: ref. 10]
    # Weight decay would pull a norm's scale to 0, where it has nothing to regularise.
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": config.train.weight_decay}, {"params": rest, "weight_decay": 0.0}],
        betas=(0.9, 0.95),  # [paper silent; ours: ref. 10]
        fused=device.type != "mps",
    )
    precision, autocast, scaler = distributed.mixed_precision(config.train.precision, device)

    # Resume. These are the parts of last.pt by name. No generator's state is among them: draws are functions of the
    # step, so a run goes on bit for bit (on a CPU).
    parts = {"mae": mae, "optimizer": optimizer, "scaler": scaler}
    run.begin(parts, {"data": facts}, items=facts["images"], best={"step": 0, "loss": math.inf})
    run.introduce(
        f"{facts['images']} training and {len(validation_samples)} validation images of {facts['name']}",
        f"{sum(p.numel() for p in mae.parameters()):,} weights",
        precision,
    )
    # Wrapped for DDP after loading: last.pt keeps the network's own names, whatever the number of processes.
    mae_ddp = ranks.wrap(mae)
    loading = {"workers": data.workers, "pin_memory": device.type == "cuda"}  # pinned where a GPU copies from it
    batches = training_batches(samples, run.done, run.steps, per_rank, micro_batch, ranks.rank, **loading)

    for step in run.each_step("images"):
        # Learning rate of this step, scaled by the global batch: a batch of 256 has the rate of the config.
        rate = learning_rate(step, run.steps, config.train) * config.train.batch_size / 256
        for group in optimizer.param_groups:
            group["lr"] = rate

        # Accumulate micro-batches: every image has as many masked patches, so equal shares make the batch's mean.
        mae.train()  # validation left it in eval mode
        share = micro_batch / config.train.batch_size
        count = per_rank // micro_batch
        for i in range(count):
            batch = to_device(next(batches), device)
            with ranks.synchronise(mae_ddp, i == count - 1):  # gradients travel once a step
                crops = batch["image"].contiguous(memory_format=memory_format)
                with autocast:
                    loss, _, _ = mae_ddp(crops, batch["noise"])
                loss = share * loss
                scaler.scale(loss * ranks.world).backward()  # DDP averages over ranks; the loss is already a share
            run.add(loss=loss)
        scaler.step(optimizer)  # passes over a step whose float16 gradients are not finite
        scaler.update()
        optimizer.zero_grad()

        # Every log_every steps and before every save: read the losses from the device once; stop if one is not finite.
        run.end_step(step, [mae], learning_rate=rate)
        if run.save_now:
            ranks.average_buffers(mae)  # batch norm's statistics were each rank's own until here

        # Every eval_every steps: all ranks validate; rank 0 saves best.pt if it is one, and resnet18.pt.
        if run.evaluate_now:
            shares = scoring_batches(validation_samples, micro_batch, ranks.rank, ranks.world, **loading)
            # A loss of 1 means that it only predicts each patch's mean, with mae.targets=band each band's.
            loss = validate(mae, shares, autocast, ranks)
            improved = loss < run.best["loss"]
            if improved:
                run.best = {"step": run.done, "loss": loss}
            run.validated({"loss": loss}, f"validation loss {loss:.4f}")
            run.draw(save_run_curves)
            if improved:
                run.save("best.pt", {"mae": mae})
            if ranks.first:
                # The embedding of the last step, as is usual: pretraining does not overfit its validation images.
                checkpoint.save(run.dir / "resnet18.pt", mae.resnet.state_dict())

        # Then, or when a signal asks to stop: rank 0 saves last.pt.
        if run.save_now:
            run.save_last()

    if ranks.first:
        save_figure(run.dir / "figures" / "reconstruction.png", mae, validation_samples, device)
    run.complete()


@torch.no_grad()
def validate(mae, batches, autocast, ranks):
    """Mean loss over the middle crops of all validation images, each under its own fixed mask."""
    mae.eval()  # batch norm by its running statistics
    total = torch.zeros(2, device=ranks.device)  # the loss times images, and images: both add up over ranks
    for batch in batches:
        batch = to_device(batch, ranks.device)
        with autocast:
            loss, _, _ = mae(batch["image"], batch["noise"])
        images = len(batch["noise"])
        total += torch.stack([loss * images, torch.full_like(loss, images)])
    loss, count = ranks.sum(total).tolist()
    return loss / count


@torch.no_grad()
def save_figure(path, mae, samples, device):
    """A picture a row: image, what is left of it, and the reconstruction, put back on the image's scale."""
    mae.eval()
    # From all over the split: images of one place lie together.
    chosen = sorted({round(i * (len(samples) - 1) / (FIGURE_IMAGES - 1)) for i in range(FIGURE_IMAGES)})
    batch = to_device(samples.collate([samples[i] for i in chosen]), device)
    crops = batch["image"]
    _, predicted, mask = mae(crops, batch["noise"])
    pictures = []
    restored = reconstruct(crops, predicted, mask, mae.targets)
    for which, *maps in zip(batch["set"], crops, blank(crops, mask), restored, strict=True):
        # Back to stored units, and stretched as the image is: three pictures that can be compared.
        facts = samples.sets[which].facts
        stored = [m.permute(1, 2, 0).cpu().numpy() * facts["band_std"] + facts["band_mean"] for m in maps]
        pictures.append([color_image(image, like=stored[0]) for image in stored])
    contact_sheet(path, ["image", "masked", "reconstruction"], pictures)


if __name__ == "__main__":
    command.run(lambda: main(from_command_line(PretrainConfig, __doc__)), distributed.stop)

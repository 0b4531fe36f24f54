"""Pretrain the segmenter's ResNet-18 as the patch embedding of a masked autoencoder (Sec. 4.5).

    python train_mae.py configs/demo/mae.yaml                       # CPU, minutes
    torchrun --nproc_per_node=8 train_mae.py configs/low2high/mae_usa.yaml data.root=usa run.dir=runs/mae_usa

The run's resnet18.pt starts a segmenter: train_seg.py ... model.init=runs/mae_usa/resnet18.pt
The same command goes on with a run that was stopped. SIGTERM and Ctrl-C save last.pt after the running step and leave.
"""

import json
import math
from pathlib import Path

import torch
from tqdm import tqdm

from config import PretrainConfig
from data.loading import scoring_batches, to_device, training_batches
from data.transforms import normalize
from data.unlabelled import PretrainingCrops, ValidationCrops, read_unlabelled
from figures import color_image, contact_sheet
from models import build_mae
from models.mae import blank, reconstruct, token_grid
from runtime import checkpoint, command, distributed
from runtime.compiling import compiled
from runtime.files import write_text
from runtime.logbook import Logbook, Recent
from runtime.schedule import learning_rate
from runtime.settings import check_resumable, check_same_data, flatten, from_command_line
from runtime.signals import Stopped, StopRequest

FIGURE_IMAGES = 6


def main(config):
    # Processes, device. Weights come from the seed; every draw from (seed, step, position in the global batch).
    ranks = distributed.start(config.run.device)
    device, run_dir = ranks.device, Path(config.run.dir)
    per_rank, micro_batch = config.train.split(ranks.world)
    torch.manual_seed(config.run.seed)

    # Data: training crops are endless; validation shares do not overlap.
    data = config.data
    images, validation_images = read_unlabelled(
        data.root, data.images, data.validation_share, data.regions, data.exclude_regions, data.heldout
    )
    facts, tokens = {**images.facts, "images": len(images)}, math.prod(token_grid(data.crop_px, data.crop_px))
    samples = PretrainingCrops(
        images,
        data.crop_px,
        tokens,
        min_area=data.min_area,
        batch_size=config.train.batch_size,
        seed=config.run.seed,
    )
    validation_samples = ValidationCrops(validation_images, data.crop_px, tokens)
    epoch_steps = max(1, math.ceil(len(images) / config.train.batch_size))
    steps = config.train.epochs * epoch_steps
    eval_every = config.train.eval_every or epoch_steps

    # Network, optimiser, precision.
    memory_format = torch.channels_last if config.train.channels_last else torch.contiguous_format
    mae = build_mae(config, facts["bands"]).to(device, memory_format=memory_format)
    decayed = [p for p in mae.parameters() if p.ndim > 1]
    rest = [p for p in mae.parameters() if p.ndim <= 1]  # biases, norms and the mask token [ours: ref. 10]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": config.train.weight_decay}, {"params": rest, "weight_decay": 0.0}],
        betas=(0.9, 0.95),  # [paper silent; ours: ref. 10]
        fused=device.type != "mps",
    )
    precision, autocast, scaler = distributed.mixed_precision(config.train.precision, device)

    # Resume: network, optimiser, scaler, step, best loss.
    first_step, best = 0, {"step": 0, "loss": math.inf}
    if (run_dir / "last.pt").exists():
        state = checkpoint.load(run_dir / "last.pt")
        with checkpoint.refusing(run_dir / "last.pt"):
            check_resumable(state.get("config"), config, run_dir)
            check_same_data(state["data"], facts, data.root, run_dir)
            mae.load_state_dict(state["mae"])
            optimizer.load_state_dict(state["optimizer"])
            scaler.load_state_dict(state["scaler"])
            first_step, best, facts = state["step"], state["best"], state["data"]
    mean, std = (torch.tensor(facts[key], device=device) for key in ("band_mean", "band_std"))
    ranks.barrier()
    log = Logbook(run_dir, config, first_step, enabled=ranks.first)
    log.say(
        f"{run_dir}: {len(images)} training and {len(validation_images)} validation images of {facts['name']}, "
        f"{steps} steps of {config.train.batch_size}; {sum(p.numel() for p in mae.parameters()):,} weights; "
        f"{device.type}, precision {precision}, {ranks.world} process(es)"
        + (f"; going on from step {first_step}" if first_step else "")
    )
    fast = mae
    if config.train.compile:
        crops = torch.zeros(micro_batch, facts["bands"], data.crop_px, data.crop_px, device=device)
        noise = torch.zeros(micro_batch, tokens, device=device)
        fast = compiled(mae, autocast, [crops.contiguous(memory_format=memory_format), noise], log.say)
    mae_ddp = ranks.wrap(fast)
    pin = device.type == "cuda"
    batches = training_batches(samples, first_step, steps, per_rank, micro_batch, ranks.rank, data.workers, pin)
    recent, stop = Recent(ranks), StopRequest()
    progress = tqdm(total=steps, initial=first_step, unit="step", disable=None if ranks.first else True)

    for step in range(first_step, steps):
        # Learning rate for this step, scaled by the global batch.
        rate = learning_rate(step, steps, config.train) * config.train.batch_size / 256
        for group in optimizer.param_groups:
            group["lr"] = rate

        # Accumulate micro-batches: every image has as many masked patches, so equal shares make the batch's mean.
        mae.train()
        share = micro_batch / config.train.batch_size
        for i in range(per_rank // micro_batch):
            batch = to_device(next(batches), device)
            with ranks.synchronise(mae_ddp, i == per_rank // micro_batch - 1):
                crops = normalize(batch["image"], mean, std).contiguous(memory_format=memory_format)
                with autocast:
                    loss, _, _ = mae_ddp(crops, batch["noise"])
                loss = share * loss
                scaler.scale(loss * ranks.world).backward()  # DDP averages over ranks; the loss is already a share
            recent.add(loss=loss)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        recent.end_step()
        progress.update()

        # Every log_every steps and before every save: read the losses from the device once; stop if one is not finite.
        done = step + 1
        evaluate_now = done % eval_every == 0 or done == steps
        stop_now = stop.agreed(ranks)  # the signal that asked, or 0
        save_now = evaluate_now or stop_now
        if done % config.run.log_every == 0 or save_now:
            record = recent.read(config.train.batch_size)
            checkpoint.require_finite(record, [mae] if save_now else [], run_dir, done)
            log.write({"step": done, "kind": "train", "learning_rate": rate, **record})

        # Every eval_every steps: all ranks validate; rank 0 saves best.pt if it is one, and resnet18.pt.
        if save_now:
            ranks.average_buffers(mae)
            state = {"step": done, "config": flatten(config), "data": facts, "mae": mae.state_dict()}
        if evaluate_now:
            validation_batches = scoring_batches(
                validation_samples, micro_batch, ranks.rank, ranks.world, data.workers, pin
            )
            validation_loss = validate(mae, validation_batches, mean, std, autocast, ranks)
            log.write({"step": done, "kind": "validation", "loss": validation_loss})
            if validation_loss < best["loss"]:
                best = {"step": done, "loss": validation_loss}
            log.say(
                f"step {done}/{steps}  loss {record['loss']:.4f}  validation loss {validation_loss:.4f}"
                f"{'  best' if best['step'] == done else ''}  {record['tiles_per_second']:.1f} images/s"
            )
            log.expect(done, steps, epoch_steps)
            if ranks.first:
                if best["step"] == done:
                    checkpoint.save(run_dir / "best.pt", {**state, "best": best})
                # The embedding of the last step, as is usual: pretraining does not overfit its validation images.
                checkpoint.save(run_dir / "resnet18.pt", mae.resnet.state_dict())

        # Then, or when a signal asks to stop: rank 0 saves last.pt.
        if save_now:
            if ranks.first:
                state.update(best=best, optimizer=optimizer.state_dict(), scaler=scaler.state_dict())
                checkpoint.save(run_dir / "last.pt", state)
            ranks.barrier()
            recent.restart_clock()
        if stop_now and done < steps:
            progress.close()
            raise Stopped(run_dir, done, steps, stop_now)

    progress.close()
    if ranks.first:
        save_figure(run_dir / "figures" / "reconstruction.png", mae, validation_samples, mean, std)
        summary = {"name": config.run.name or run_dir.name, "steps": steps, "best": best}
        write_text(run_dir / "metrics.json", json.dumps(summary, indent=1))


@torch.no_grad()
def validate(mae, batches, mean, std, autocast, ranks):
    """Mean loss over the middle crops of all validation images, each under its own fixed mask."""
    mae.eval()
    total = torch.zeros(2, device=ranks.device)
    for batch in batches:
        batch = to_device(batch, ranks.device)
        with autocast:
            loss, _, _ = mae(normalize(batch["image"], mean, std), batch["noise"])
        images = len(batch["noise"])
        total += torch.stack([loss * images, torch.full_like(loss, images)])
    loss, count = ranks.sum(total).tolist()
    return loss / count


@torch.no_grad()
def save_figure(path, mae, samples, mean, std):
    """A picture a row: image, what is left of it, and the reconstruction, put back on the image's scale."""
    mae.eval()
    chosen = sorted({round(i * (len(samples) - 1) / (FIGURE_IMAGES - 1)) for i in range(FIGURE_IMAGES)})
    batch = to_device(samples.collate([samples[i] for i in chosen]), mean.device)
    crops = normalize(batch["image"], mean, std)
    _, predicted, mask = mae(crops, batch["noise"])
    pictures = []
    for maps in zip(crops, blank(crops, mask), reconstruct(crops, predicted, mask), strict=True):
        stored = [(m * std.view(-1, 1, 1) + mean.view(-1, 1, 1)).permute(1, 2, 0).cpu().numpy() for m in maps]
        pictures.append([color_image(image, like=stored[0]) for image in stored])
    contact_sheet(path, ["image", "masked", "reconstruction"], pictures)


if __name__ == "__main__":
    command.run(lambda: main(from_command_line(PretrainConfig, __doc__)), distributed.stop)

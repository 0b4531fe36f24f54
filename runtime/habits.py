"""The setting that a wrong name means. config.py declares the settings."""

from runtime.errors import nearest

# What people type by habit of other code, where no letters lead to the setting.
MEANT = {
    "data.root": "data path dataset data_dir data_path data_root input",
    "data.workers": "num_workers nproc jobs threads",
    "data.dihedral": "augment augmentation aug flip hflip",
    "data.crop_px": "crop crop_size patch_size tile_size img_size image_size",
    "model.init": "pretrained weights backbone checkpoint init_from",
    "model.width": "channels base_channels",
    "supervision.labels": "supervision target mode",
    "adversarial.weight": "gan gan_weight adv adv_weight lambda_adv adv_lambda",
    "adversarial.learning_rate": "lr_d d_lr gan_lr adv_lr disc_lr discriminator_lr",
    "adversarial.temperature": "tau",
    "mae.mask_ratio": "mask masking",
    "train.epochs": "num_epochs n_epochs max_epochs iterations iters max_steps",
    "train.batch_size": "bs batch batchsize",
    "train.micro_batch": "accumulate accum grad_accum per_gpu_batch",
    "train.learning_rate": "lr rate base_lr",
    "train.schedule": "scheduler lr_schedule lr_scheduler",
    "train.warmup_steps": "warmup",
    "train.weight_decay": "wd decay",
    "train.average": "ema ema_decay",
    "train.precision": "amp fp16 bf16 half mixed_precision",
    "train.eval_every": "val_every eval_interval save_every",
    "run.dir": "out output out_dir output_dir outdir save_dir log_dir logdir work_dir",
    "run.device": "gpu gpus cuda cpu",
    "run.seed": "random_seed manual_seed",
}


def nearest_setting(key, known, elsewhere=()):
    """The setting that a wrong name most likely means: by habit, by its last part, by its letters.

    known:     the settings of this script, as section.key
    elsewhere: those of others, which are meant only where the name, or habit, says so
    """
    typed = str(key)[:80].lower().replace("-", "_")
    section, _, name = typed.rpartition(".")
    habits = {word: setting for setting, words in MEANT.items() for word in words.split()}
    meant = habits.get(typed.replace(".", "_")) or habits.get(name) or typed
    for candidate in (f"{section}.{meant.partition('.')[2]}", meant):  # adversarial.lr is its own section's
        if candidate in known or candidate in elsewhere:
            return candidate
    same = [setting for setting in known if setting.partition(".")[2] == name]
    return nearest(typed, same or known)

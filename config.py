"""Every setting of a run, declared once: type, default, unit, meaning, source, and the bounds of a number.

A YAML file fills it, `section.key=value` on the command line overrides it, `--help` prints it, and the run directory
keeps it. Tags: [paper, Sec. n], [paper silent; ours], [differs: why]. A __post_init__ holds rules between settings.
"""

from dataclasses import dataclass

from runtime.errors import require
from runtime.settings import opt


@dataclass(frozen=True)
class DataConfig:
    root: str = opt("", "the tile set's folder, as data.prepare or data.synthetic writes it; required")
    regions: tuple[str, ...] = opt((), "use only the tiles of these regions, for example [a, b]; empty: all regions")
    exclude_regions: tuple[str, ...] = opt((), "leave out the tiles of these regions")
    workers: int = opt(2, "processes that read and augment tiles; 0: the training process itself", least=0)
    dihedral: bool = opt(True, "rotate and flip training tiles, eight ways [paper silent; ours]")
    gain: float = opt(0.2, "contrast: a random factor within 1 +- this about the band mean, one draw for all bands "
        "[paper silent; ours]", least=0, below=1)
    offset: float = opt(0.2, "brightness: shift by up to this many standard deviations [paper silent; ours]", least=0)


@dataclass(frozen=True)
class ModelConfig:
    width: int = opt(64, "channels of the stem; 64 is ResNet-18 [paper, Sec. 4.2]", least=2, multiple_of=2)
    head: str = opt("zeros", "start of the last layer: zeros, or random, as torch draws it [paper silent; ours: "
        "models/unet.py]", ("zeros", "random"))
    init: str = opt("none", "start of the ResNet-18: none, imagenet, or the path of a resnet18.pt [paper silent; ours]")

    def __post_init__(self):
        needs = f"model.init=imagenet needs model.width=64; model.width is {self.width}"
        require(self.init != "imagenet" or self.width == 64, needs)


@dataclass(frozen=True)
class SupervisionConfig:
    labels: str = opt("low_regions", "high: fine labels (High); low_upsampled: coarse labels upsampled (Low); "
        "low_regions: coarse labels over regions (Agg, Ours) [paper, Sec. 4.3, 5]",
        ("high", "low_upsampled", "low_regions"))
    aggregate: str = opt("sum", "region prediction from its pixels: sum of logits x = u / n² [differs: models/"
        "regions.py]; literal_sum, x = u [paper, Sec. 4.3]; mean_probs or log_sum_exp (the same file). Three "
        "more predict shares of classes: statistics and prior score them by p(class | code) (beyond/region_losses.py), "
        "observation by p(code | shares) (beyond/observation.py) [these five beyond the paper: docs/paper.md]",
        ("sum", "literal_sum", "mean_probs", "log_sum_exp", "statistics", "prior", "observation"))
    codes: str = opt("native", "labels of statistics, prior and observation: native codes where exemplar places have "
        "them, or merged classes; the rows of an observation table decide it [ours]", ("native", "merged"))
    observation: str = opt("", "YAML table of these three: a run's own observation.yaml, or for statistics and prior "
        "configs/tables/nlcd_low2high.yaml; empty: count or fit it on the fine and coarse maps of the heldout split "
        "(that of adversarial.exemplar_root, if set) [ours]")
    min_coverage: float = opt(1.0, "supervise with cells that have at least this share of their pixels in the tile "
        "[paper silent; ours]", above=0, most=1)

    def __post_init__(self):
        by_table = self.aggregate in ("statistics", "prior", "observation")
        regions = f"supervision.labels={self.labels} must be low_regions for supervision.aggregate={self.aggregate}"
        require(not by_table or self.labels == "low_regions", regions)
        table = f"supervision.observation={self.observation} needs supervision.aggregate=observation, statistics, prior"
        require(by_table or not self.observation, table)


@dataclass(frozen=True)
class AdversarialConfig:
    weight: float = opt(0.0, "of the segmenter's hinge loss; 0: no adversary [paper, Sec. 4.4; value ours]", least=0)
    warmup_steps: int = opt(0, "steps over which the weight rises from 0 [paper silent; ours]", least=0)
    temperature: float = opt(1.11, "sargmax's tau / n²: the paper's tau is 1000 at n = 30 [paper, Sec. 4.4; at "
        "other n ours]", above=0, most=100)
    maps: str = opt("straight_through", "predictions that the discriminator sees: soft, the sargmax [paper, Sec. "
        "4.4], or straight_through, the argmax with sargmax's gradient [differs: soft maps give themselves away by "
        "values between classes]", ("straight_through", "soft"))
    blur_sigma: float = opt(0.6, "sigma in pixels of the 3x3 Gaussian on both kinds of maps [paper, Sec. 4.6]", above=0)
    exemplars: int = opt(0, "number of exemplar label maps, K of Fig. 5; 0: all of the heldout split", least=0)
    exemplar_root: str = opt("", "tile set that the label maps come from; empty: data.root [paper, Sec. 4.4]")
    width: int = opt(16, "channels of the discriminator's first layer [paper silent; ours]", least=1)
    layers: int = opt(3, "discriminator layers of stride 2; a score sees 46 px with 3, 22 with 2 [paper silent; ours]",
        least=1, most=5)
    learning_rate: float = opt(1e-3, "of the discriminator's Adam, constant [ours; the paper's, Sec. 4.6, is 1e-4, as "
        "in configs/low2high]", above=0)
    beta1: float = opt(0.0, "of the discriminator's Adam: decay of its mean gradient [paper silent; ours]",
        least=0, below=1)
    beta2: float = opt(0.99, "of the discriminator's Adam: decay of its mean square [paper silent; ours]",
        least=0, below=1)
    control: str = opt("none", "a control experiment that should lose the adversary's gain: frozen keeps the initial "
        "discriminator; shuffled shuffles each exemplar's pixels within each cell [ours]",
        ("none", "frozen", "shuffled"))

    def __post_init__(self):
        needs = f"adversarial.control={self.control} needs an adversary: adversarial.weight must be above 0, like 0.1"
        require(self.weight > 0 or self.control == "none", needs)


@dataclass(frozen=True)
class LoopConfig:
    """What both training scripts ask of their loop."""

    epochs: int = opt(100, "epochs of max(1, ceil(tiles / batch)) steps [paper, Sec. 4.6, 5.4]", least=1)
    batch_size: int = opt(24, "tiles of one step, over all processes [paper silent; ours]", least=1)
    micro_batch: int = opt(0, "tiles of one forward pass, which batch norm sees together; 0: a process's whole share",
        least=0)
    eval_every: int = opt(0, "steps between validations and saves; 0: once an epoch [paper silent; ours]", least=0)
    precision: str = opt("auto", "of the networks: bf16, fp16 (with loss scaling) or off (float32; on GPUs TF32 where "
        "cuDNN uses it); auto: bf16 on GPUs that support it and on CPUs where it is faster (with AMX, or AMD with "
        "AVX-512 bf16), else off", ("auto", "bf16", "fp16", "off"))
    channels_last: str = opt("auto", "memory format channels_last; auto: where it is faster, on CUDA and CPUs, "
        "but not on a CPU without AVX-512 if model.width is 64 or more",
        ("auto", "true", "false"))
    warmup_steps: int = opt(0, "steps over which the learning rate rises from 0 [paper silent; ours]", least=0)

    def split(self, world):
        """The global batch over `world` processes -> (tiles of a step on one, tiles of one forward pass)."""
        per_rank, rest = divmod(self.batch_size, world)
        nearest = max(1, round(self.batch_size / world)) * world
        require(not rest, f"train.batch_size={self.batch_size} does not divide among {world} processes; {nearest} does")
        micro_batch = self.micro_batch or per_rank
        divides = per_rank % micro_batch == 0
        require(divides, f"train.micro_batch={micro_batch} does not divide the {per_rank} tiles of a process")
        return per_rank, micro_batch


@dataclass(frozen=True)
class TrainConfig(LoopConfig):
    learning_rate: float = opt(1e-4, "of Adam [paper, Sec. 4.6]", above=0)
    schedule: str = opt("constant", "constant [paper, Sec. 4.6, names an initial rate and no schedule] or cosine, "
        "towards 0 at the last step [ours]", ("constant", "cosine"))
    encoder_rate: float = opt(1.0, "learning rate of the ResNet-18 relative to the other layers, for a pretrained one; "
        "0 keeps its weights, though batch norm's statistics still follow the images [ours]", least=0)
    frozen_share: float = opt(0.0, "share of the steps, at the start of a run, in which the ResNet-18's learning rate "
        "is 0, because a random decoder would teach it noise [ours]", least=0, most=1)
    head_rate: float = opt(1.0, "learning rate of the last layer, relative to the other layers: with 1 / n², literal "
        "sums train like sums of u / n² [ours: docs/paper.md]", above=0)
    average: float = opt(0.0, "decay per step of an exponential moving average of the weights, like 0.99 (lower in the "
        "first steps); the average is validated and kept; 0: no average [paper silent; ours]", least=0, below=1)


@dataclass(frozen=True)
class RunConfig:
    dir: str = opt("", "the run's folder: config.yaml, log.jsonl, last.pt, best.pt, metrics.json, figures/; required")
    name: str = opt("", "the row's name in tables; empty: the name of the run's folder")
    seed: int = opt(0, "of the weights and of every draw", least=0, below=2**63)
    device: str = opt("auto", "where the networks are", ("auto", "cpu", "cuda", "mps"))
    log_every: int = opt(20, "steps between records in log.jsonl", least=1)


@dataclass(frozen=True)
class SegmenterConfig:
    # What may differ when a run is taken up again: where data lies, workers, device, layout and logging; train.epochs
    # may grow.
    FREE_ON_RESUME = {
        "data.root", "adversarial.exemplar_root", "data.workers", "train.channels_last", "run.dir", "run.name",
        "run.device", "run.log_every",
    }

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    supervision: SupervisionConfig = SupervisionConfig()
    adversarial: AdversarialConfig = AdversarialConfig()
    train: TrainConfig = TrainConfig()
    run: RunConfig = RunConfig()


@dataclass(frozen=True)
class PretrainDataConfig:
    root: str = opt("", "a tile set, or a bare folder of .tif, .png and .jpg images; required")
    more_roots: tuple[str, ...] = opt((), "more sets or folders, like [a, b], that take turns with data.root; each is "
        "normalised by its own statistics [ours]")
    images: str = opt("**/*", "bare folder: glob that selects the images, for example **/images/* to leave out masks")
    bands: int = opt(0, "bare folder: bands to use; 0: all. Needed where a band is tagged as alpha: one fewer than the "
        "images have uses it as the mask of valid pixels, all of them as an ordinary band", least=0)
    regions: tuple[str, ...] = opt((), "tile set: use only the tiles of these regions, for example [a, b]; empty: all")
    exclude_regions: tuple[str, ...] = opt((), "tile set: leave out the tiles of these regions")
    workers: int = opt(2, "processes that read and crop images; 0: the training process itself", least=0)
    crop_px: int = opt(512, "side of the square crop [paper silent; ours: the tile size]", least=32, multiple_of=32)
    heldout: bool = opt(False, "tile set: also train on the images of the heldout split, the exemplars' places [ours]")
    min_area: float = opt(0.2, "smallest share of the image in a random crop before it is resized to crop_px [paper "
        "silent; ours: ref. 10]; 0: crops of crop_px at the image's own scale, like the segmenter's", least=0, most=1)


@dataclass(frozen=True)
class EncoderConfig:
    width: int = opt(64, "channels of the ResNet-18's stem; the segmenter's model.width [paper, Sec. 4.2]",
        least=2, multiple_of=2)


@dataclass(frozen=True)
class MaskedAutoencoderConfig:
    size: str = opt("base", "of encoder and decoder: base (ViT-B) or tiny [paper silent; ours]", ("base", "tiny"))
    mask_ratio: float = opt(0.75, "share of the tokens that are masked [paper, Sec. 4.5]", above=0, below=1)
    mask_where: str = opt("tokens", "what is hidden: tokens [paper, as we read it]; pixels, the tokens' pixels too; or "
        "layers, 32 px cells in every ResNet-18 layer [differs: models/mae.py]", ("tokens", "pixels", "layers"))
    stages: str = opt("last", "ResNet-18 stages that make the tokens: last [paper, as we read it], or all, because "
        "the segmenter reads all [differs: models/mae.py]", ("last", "all"))
    targets: str = opt("patch", "how target pixels are normalised: by patch [ours: ref. 10], or by band, as the "
        "images are [ours: models/mae.py]", ("patch", "band"))


@dataclass(frozen=True)
class PretrainLoopConfig(LoopConfig):
    learning_rate: float = opt(1.5e-4, "of AdamW, times batch_size / 256 [paper silent; ours: ref. 10]", above=0)
    schedule: str = opt("cosine", "cosine, towards 0 [ours: ref. 10], or constant", ("constant", "cosine"))
    weight_decay: float = opt(0.05, "of AdamW, on weights and not on biases and norms [ours: ref. 10]", least=0)


@dataclass(frozen=True)
class PretrainConfig:
    FREE_ON_RESUME = SegmenterConfig.FREE_ON_RESUME | {"data.more_roots"}

    data: PretrainDataConfig = PretrainDataConfig()
    model: EncoderConfig = EncoderConfig()
    mae: MaskedAutoencoderConfig = MaskedAutoencoderConfig()
    train: PretrainLoopConfig = PretrainLoopConfig()
    run: RunConfig = RunConfig()

    def __post_init__(self):
        side = 32 if self.mae.mask_where == "layers" else 16
        patches, masked = self.patches(side)
        masks = f"mae.mask_ratio={self.mae.mask_ratio} masks {masked} of {patches} patches of {side} px"
        require(0 < masked < patches, f"{masks} of data.crop_px={self.data.crop_px}; mask at least one, but not all")

    def patches(self, side):
        """Patches of `side` px in a crop, and how many of them a mask of such patches hides."""
        patches = (self.data.crop_px // side) ** 2
        return patches, round(self.mae.mask_ratio * patches)

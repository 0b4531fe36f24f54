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
    regions: tuple[str, ...] = opt((), "use the tiles of these regions only, as [a, b]; empty: of all")
    exclude_regions: tuple[str, ...] = opt((), "leave the tiles of these regions out")
    workers: int = opt(2, "processes that read and change tiles; 0: the training process itself", least=0)
    dihedral: bool = opt(True, "turn and mirror training tiles, eight ways [paper silent; ours]")
    gain: float = opt(0.2, "contrast about the band mean times 1 +- this, one draw for all bands [paper silent; ours]",
        least=0, below=1)
    offset: float = opt(0.2, "brightness plus +- this many standard deviations, one draw [paper silent; ours]", least=0)


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
    aggregate: str = opt("sum", "what a region's pixels become: sum, of logits x = u / n² [paper, Sec. 4.3; scale "
        "ours: models/regions.py], literal_sum, x = u [paper, Sec. 4.3], mean_probs or log_sum_exp (the same file); or "
        "shares of classes, compared by p(class | code) with statistics or a prior (beyond/region_losses.py), or "
        "read by p(code | shares), observation (beyond/observation.py) [ours]",
        ("sum", "literal_sum", "mean_probs", "log_sum_exp", "statistics", "prior", "observation"))
    codes: str = opt("native", "what the last three tell apart: native, the source's codes, where exemplar places have "
        "them, or merged classes; a table of observation says it by its rows [ours]", ("native", "merged"))
    observation: str = opt("", "table of the last three: a YAML, as a run's own observation.yaml, or of statistics and "
        "prior configs/tables/nlcd_low2high.yaml; empty: it is made from the fine and coarse maps of the split "
        "heldout, of adversarial.exemplar_root where that is set [ours]")
    min_coverage: float = opt(1.0, "supervise cells of which the tile shows at least this share, counted in pixels "
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
    temperature: float = opt(1.11, "of sargmax, as tau / n²: the paper's tau is 1000 at n = 30 [paper, Sec. 4.4; at "
        "other n ours]", above=0, most=100)
    maps: str = opt("straight_through", "predictions as the discriminator reads them: soft, the sargmax [paper, Sec. "
        "4.4], or straight_through, the argmax with sargmax's gradient [differs: soft maps give themselves away by "
        "values between classes]", ("straight_through", "soft"))
    blur_sigma: float = opt(0.6, "of the 3x3 Gaussian on both kinds of maps, pixels [paper, Sec. 4.6]", above=0)
    exemplars: int = opt(0, "high-resolution label maps to show, K of Fig. 5; 0: all of the split heldout", least=0)
    exemplar_root: str = opt("", "tile set that the label maps come from; empty: data.root [paper, Sec. 4.4]")
    width: int = opt(16, "channels of the discriminator's first layer [paper silent; ours]", least=1)
    layers: int = opt(3, "its layers of stride 2; a score sees 46 px with 3, 22 with 2 [paper silent; ours]",
        least=1, most=5)
    learning_rate: float = opt(1e-3, "of the discriminator's Adam, constant [ours; the paper's, Sec. 4.6, is 1e-4, as "
        "in configs/low2high]", above=0)
    beta1: float = opt(0.0, "of the discriminator's Adam: decay of its mean gradient [paper silent; ours]",
        least=0, below=1)
    beta2: float = opt(0.99, "of the discriminator's Adam: decay of its mean square [paper silent; ours]",
        least=0, below=1)
    control: str = opt("none", "an experiment without a teacher, which must lose what the adversary gains: frozen, the "
        "discriminator stays as it starts; shuffled, each exemplar's pixels are shuffled inside each cell [ours]",
        ("none", "frozen", "shuffled"))

    def __post_init__(self):
        needs = f"adversarial.control={self.control}: is of an adversary; adversarial.weight must be above 0, as 0.1"
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
        "cuDNN takes it); auto: bf16 on GPUs that have it and on CPUs that are faster by it (AMX; AMD's with AVX-512 "
        "bf16), else off", ("auto", "bf16", "fp16", "off"))
    channels_last: str = opt("auto", "whether the channels of a pixel lie side by side in memory; auto: where steps "
        "are faster so, on CUDA and CPUs, though not from model.width=64 on where a CPU lacks AVX-512",
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
    encoder_rate: float = opt(1.0, "learning rate of the ResNet-18 as a share of the others', for one that starts from "
        "weights; 0 keeps them, though batch norm's statistics follow the images [ours]", least=0)
    frozen_share: float = opt(0.0, "share of the steps, from the first on, in which that rate is 0, for a random "
        "decoder would teach the ResNet-18 noise [ours]", least=0, most=1)
    head_rate: float = opt(1.0, "learning rate of the last layer as a share of the others': 1 / n² makes literal sums "
        "the same training as sums of u / n² [ours: docs/paper.md]", above=0)
    average: float = opt(0.0, "validate and keep an exponential moving average of the weights with this decay per "
        "step, as 0.99, less in the first steps; 0: the weights themselves [paper silent; ours]", least=0, below=1)


@dataclass(frozen=True)
class RunConfig:
    dir: str = opt("", "the run's folder: config.yaml, log.jsonl, last.pt, best.pt, metrics.json, figures/; required")
    name: str = opt("", "the row's name in tables; empty: the name of the run's folder")
    seed: int = opt(0, "of the weights and of every draw", least=0, below=2**63)
    device: str = opt("auto", "where the networks are", ("auto", "cpu", "cuda", "mps"))
    log_every: int = opt(20, "steps between records in log.jsonl", least=1)


@dataclass(frozen=True)
class SegmenterConfig:
    # What may differ when a run is taken up again: where data lies, workers, device, layout and logging, and what it
    # started from, for its weights are in last.pt; train.epochs may grow.
    FREE_ON_RESUME = {
        "data.root", "adversarial.exemplar_root", "data.workers", "train.channels_last", "model.init", "run.dir",
        "run.name", "run.device", "run.log_every",
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
    more_roots: tuple[str, ...] = opt((), "further sets or folders, as [a, b], that take turns with data.root; each is "
        "normalised by its own statistics [ours]")
    images: str = opt("**/*", "of a bare folder: the images that this glob admits, as **/images/*; keeps masks out")
    bands: int = opt(0, "of a bare folder's images; needed where one is tagged as alpha: one less than they have takes "
        "it for where there are data, as many for a band like the others; 0: all", least=0)
    regions: tuple[str, ...] = opt((), "of a tile set: use the tiles of these regions only, as [a, b]; empty: of all")
    exclude_regions: tuple[str, ...] = opt((), "of a tile set: leave the tiles of these regions out")
    workers: int = opt(2, "processes that read and crop images; 0: the training process itself", least=0)
    crop_px: int = opt(512, "side of the square crop [paper silent; ours: the tile size]", least=32, multiple_of=32)
    heldout: bool = opt(False, "of a tile set: the split heldout trains too, images of the exemplars' places [ours]")
    min_area: float = opt(0.2, "least share of the image that a random crop, resized to crop_px, takes [paper silent; "
        "ours: ref. 10]; 0: crops of crop_px at the image's own scale, which the segmenter will see", least=0, most=1)


@dataclass(frozen=True)
class EncoderConfig:
    width: int = opt(64, "channels of the ResNet-18's stem; the segmenter's model.width [paper, Sec. 4.2]",
        least=2, multiple_of=2)


@dataclass(frozen=True)
class MaskedAutoencoderConfig:
    size: str = opt("base", "of encoder and decoder: base (ViT-B) or tiny [paper silent; ours]", ("base", "tiny"))
    mask_ratio: float = opt(0.75, "share of the tokens that are masked [paper, Sec. 4.5]", above=0, below=1)
    mask_where: str = opt("tokens", "what is hidden: tokens [paper, as we read it], their pixels too, or cells of 32 "
        "px in all layers of the ResNet-18 [differs: models/mae.py]", ("tokens", "pixels", "layers"))
    stages: str = opt("last", "of the ResNet-18 that make tokens: last [paper, as we read it], or all, for the "
        "segmenter reads all [differs: models/mae.py]", ("last", "all"))
    targets: str = opt("patch", "pixels to restore, normalised by patch [ours: ref. 10], or by band, as the images "
        "are [ours: models/mae.py]", ("patch", "band"))


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
        require(0 < masked < patches, f"{masks} of data.crop_px={self.data.crop_px}; some must stay, and some go")

    def patches(self, side):
        """Patches of `side` px in a crop, and how many of them a mask of such patches hides."""
        patches = (self.data.crop_px // side) ** 2
        return patches, round(self.mae.mask_ratio * patches)

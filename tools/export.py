"""Write a trained segmenter as an ONNX model, as the QGIS plug-in Deepness and other runtimes read it.

    python -m tools.export runs/agg_app --out model.onnx               # tiles of 512 px, any batch: for Deepness
    python -m tools.export runs/agg_app --out model.onnx --dynamic     # any height and width from 32 px up

In: image, (B, K, H, W) float32, stored pixels / 255 (of uint16 too). Out: probs, (B, C, H, W), class probabilities.
Normalisation and softmax are inside. Rows and columns at the sides that are 0 in all bands count as padding: there the
network sees the outermost pixels repeated, as it does beyond a scene's edge in predict.py. The metadata describe the
model.
"""

import io
import json
import warnings
from pathlib import Path

import torch
from torch import nn

from data.transforms import normalize
from runtime import command
from runtime.errors import Refused
from runtime.files import open_whole
from trained import checkpoint_path, load_trained

OPSET = 17  # of ONNX 1.12: what runtimes since 2022 read
OVERLAP = 25  # percent of tiles, in Deepness


class Exported(nn.Module):
    """image (B, K, H, W) in stored pixels / 255 -> class probabilities (B, C, H, W)."""

    def __init__(self, trained):
        super().__init__()
        self.segmenter = trained.segmenter
        self.register_buffer("mean", trained.mean)
        self.register_buffer("std", trained.std)

    def forward(self, image):
        for axis in (2, 3):
            seen = image.amax((1, 5 - axis), keepdim=True) > 0
            places = torch.arange(image.shape[axis]).view([-1 if a == axis else 1 for a in range(4)]).expand(seen.shape)
            first = torch.where(seen, places, image.shape[axis] - 1).amin(axis, keepdim=True)
            last = torch.where(seen, places, 0).amax(axis, keepdim=True)
            image = image.gather(axis, torch.minimum(torch.maximum(places, first), last).expand(image.shape))
        return self.segmenter(normalize(image * 255, self.mean, self.std)).softmax(dim=1)


def main(arguments):
    try:
        import onnx
    except ImportError:
        raise Refused("onnx is needed to export: pip install -r requirements-export.txt") from None
    trained = load_trained(checkpoint_path(arguments.checkpoint), torch.device("cpu"))
    model = onnx.load_from_string(to_onnx(trained, arguments.tile_px, arguments.dynamic))
    for axis in () if arguments.dynamic else (2, 3):  # the exporter loses them, and Deepness takes square tiles alone
        model.graph.output[0].type.tensor_type.shape.dim[axis].dim_value = arguments.tile_px
    known = metadata(trained.facts, arguments.tile_px)
    onnx.helper.set_model_props(model, {key: json.dumps(value) for key, value in known.items()})
    with open_whole(arguments.out) as file:
        file.write(model.SerializeToString())
    size = "any height and width from 32 px" if arguments.dynamic else f"{arguments.tile_px} x {arguments.tile_px} px"
    print(f"{arguments.out}: takes {size}")


def metadata(facts, tile_px):
    """What Deepness asks of a model, by its keys, and bands and dtype."""
    return {
        "model_type": "Segmentor",
        "class_names": {str(index): c["name"] for index, c in enumerate(facts["classes"])},
        **({"resolution": 100 * facts["image_gsd"]} if "image_gsd" in facts else {}),  # cm per pixel
        "tiles_size": tile_px,  # as its documentation has it
        "tile_size": tile_px,  # as its code reads it
        "tiles_overlap": OVERLAP,
        # Deepness subtracts and divides by these before the model, which does so itself.
        "standardization_mean": [0.0] * facts["bands"],
        "standardization_std": [1.0] * facts["bands"],
        # Below its threshold Deepness gives a pixel to class 0, and it blurs small areas away: as predict.py, neither.
        "seg_thresh": 0.0,
        "seg_small_segment": 0,
        "bands": facts["bands"],
        "dtype": facts["dtype"],
        "range": facts.get("range"),  # values that are stored as 1 and 65535, where they were not whole numbers
    }


def to_onnx(trained, tile_px, dynamic):
    """The model as ONNX, in bytes."""
    axes, buffer = {0: "batch", **({2: "height", 3: "width"} if dynamic else {})}, io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        # The tracing exporter, which torch 2.9 calls legacy: it gives one file in a second, of the same opset in all
        # versions from 2.6 on; the other takes half a minute, onnxscript, and a second file for the weights.
        warnings.simplefilter("ignore")
        example = torch.rand(2, trained.facts["bands"], tile_px, tile_px)
        names = {"input_names": ["image"], "output_names": ["probs"], "dynamic_axes": {"image": axes, "probs": axes}}
        torch.onnx.export(Exported(trained).eval(), (example,), buffer, **names, opset_version=OPSET, dynamo=False)
    return buffer.getvalue()


def parse(argv=None):
    parser = command.parser(__doc__, "python -m tools.export")
    add = parser.add_argument
    add("checkpoint", metavar="RUN", help="best.pt, last.pt or a run's folder")
    add("--out", type=Path, required=True, metavar="MODEL.onnx")
    add("--tile-px", type=int, default=512, metavar="PX", help="side of a tile (default: 512)")
    add("--dynamic", action="store_true", help="take any size; --tile-px is then what Deepness is told")
    arguments = parser.parse_args(argv)
    command.require_options(vars(arguments), tile_px=(32, 4096))
    return arguments


if __name__ == "__main__":
    command.run(lambda: main(parse()))

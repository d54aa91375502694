"""Memory and time of a training step of Perceiver AR against inputs T and latents N, as a picture.

    python -m benchmarks.perceiver_ar_scaling docs/images/perceiver_ar_scaling.png

A small network on one thread of a CPU, float32, one row: the gradient of the loss, with attention
block by block and to all keys at once. Memory is what the compiled program allocates beside
parameters, batch and gradient; time is a multiple of that of a product of 1024 x 1024 matrices in
the same process. Figures go to a JSON file as well.
"""

import argparse
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from benchmarks import perceiver_ar
from benchmarks.harness import MATRIX, product_of_matrices, run_pinned, time_ratio

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NETWORK = {
    **perceiver_ar.NETWORK,
    "input_embed_dim": 128,
    "num_z_channels": 128,
    "num_transformers_per_block": 2,
}
LENGTHS, LATENTS_OF_LENGTHS = (512, 2048, 8192, 32_768, 131_072), 512
LATENTS, LENGTH_OF_LATENTS = (64, 256, 1024, 4096), 8192
WAYS = {"block by block": perceiver_ar.BLOCK, "all keys at once": None}

Point = dict[str, Any]


def curves(tiny: bool = False) -> dict[str, list[Point]]:
    """Return points along T and N: T, N, and bytes and time of each kind of attention."""
    if tiny:
        along = {"T": [(8, 8), (32, 8)], "N": [(32, 4), (32, 16)]}
    else:
        along = {
            "T": [(length, LATENTS_OF_LENGTHS) for length in LENGTHS],
            "N": [(LENGTH_OF_LATENTS, latents) for latents in LATENTS],
        }
    network = perceiver_ar.TINY if tiny else NETWORK
    return {name: [_point(network, *p) for p in points] for name, points in along.items()}


def _point(network: dict[str, Any], length: int, latents: int) -> Point:
    import jax

    from perceiver_ar.flops import train_step_flops

    product, gflop = product_of_matrices(MATRIX)
    memory, times = {}, {}
    for name, block in WAYS.items():
        config = perceiver_ar.make_config(network, length, latents, attention_block=block)
        compiled, given = perceiver_ar.compiled_gradient(config)
        memory[name] = perceiver_ar.temporary_bytes(compiled)
        run = functools.partial(compiled, *given)
        times[name] = time_ratio(
            lambda run=run: jax.block_until_ready(run()), product, repeats=1, min_seconds=0.1
        )
    memory["the logits of cross-attention"] = 4 * config.num_cross_attend_heads * latents * length
    cost = train_step_flops(given[0], config, 1, length)
    times["its FLOPs as such products"] = cost / 1e9 / gflop
    return {"T": length, "N": latents, "bytes": memory, "products": times}


def plot(found: dict[str, list[Point]]) -> "Figure":
    """Return four panels: bytes and time, along T and along N."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 7), layout="constrained")
    panels = figure.subplots(2, 2, sharey="row")
    for column, (along, points) in zip(panels.T, found.items()):
        fixed = "N" if along == "T" else "T"
        column[0].set_title(f"{fixed} = {points[0][fixed]:,}", loc="left", fontsize="medium")
        for axes, quantity, unit in zip(column, ("bytes", "products"), (1e6, 1)):
            for name, style in zip(points[0][quantity], ("-o", "-s", "--")):
                values = [point[quantity][name] / unit for point in points]
                axes.plot([point[along] for point in points], values, style, label=name)
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            axes.grid(color="#dddddd")
            axes.spines[["top", "right"]].set_visible(False)
        sizes = [point[along] for point in points]
        column[1].set_xlabel("inputs T" if along == "T" else "latents N")
        for axes in column:
            axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    panels[0, 0].set_ylabel("temporary memory (MB)")
    panels[1, 0].set_ylabel("time of a gradient\n(products of 1024 × 1024 matrices)")
    for axes in panels[:, 0]:
        axes.legend(frameon=False, fontsize="small")
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write the figures and draw them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.perceiver_ar_scaling")
    parser.add_argument("picture", help="where to; the suffix says what")
    parser.add_argument("--json", default="out/perceiver_ar_scaling.json", metavar="PATH")
    parser.add_argument("--tiny", action="store_true", help="small sizes: the figures mean nothing")
    args = parser.parse_args(arguments)
    from musax.plots import save_figure
    from t5x.files import write_json

    found = run_pinned("benchmarks.perceiver_ar_scaling:curves", tiny=args.tiny)
    write_json(args.json, found)
    save_figure(plot(found), args.picture)


if __name__ == "__main__":
    main()

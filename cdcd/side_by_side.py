"""Train models of cdcd side by side, with equal numbers of floating-point operations.

The number of steps is given for continuous diffusion; the other models, with the same trunk and
about as many parameters, take as many operations. Each is a run of `t5x.train` in its own folder.
A second call continues where the first one stopped. Other options are those of `t5x.train`.

Examples:
  # an hour on two cores: continuous diffusion, masked diffusion, the autoregressive model
  python -m cdcd.side_by_side runs/melody --config configs/cdcd/melody.gin --data data/lakh64

  # the judge of their samples, and two ablations
  python -m cdcd.side_by_side runs/melody --config configs/cdcd/melody.gin --data data/lakh64 \\
      --models judge unwarped unconditioned --steps 1500

  # on a GPU, 28 million parameters and half of text8
  python -m cdcd.side_by_side runs/text8 --config configs/cdcd/text8_gpu.gin --data data/text8 \\
      --models cdcd mdlm ar judge --steps 50000
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax

from t5x.run_config import read_configuration

CONFIGS = Path("configs/cdcd")  # on gin's search path, see `t5x.gin_utils`


class Variant(NamedTuple):
    """Gin files and macros of a model, in addition to the configuration of the task."""

    files: tuple[str, ...] = ()
    macros: tuple[tuple[str, object], ...] = ()


VARIANTS = {
    "cdcd": Variant(),
    "ar": Variant(("ar.gin",)),
    "mdlm": Variant(("mdlm.gin",)),
    "judge": Variant(("ar.gin", "{task}_judge.gin")),
    "unwarped": Variant((), (("WARP", False),)),
    "unconditioned": Variant((), (("SELF_CONDITIONING", False),)),
}


def gin_files(config: Path, variant: Variant) -> list[str]:
    """Return a variant's gin files, that of the task first; `<task>_gpu.gin` has the same judge."""
    task = config.stem.removesuffix("_gpu")
    return [str(config), *(str(CONFIGS / f.format(task=task)) for f in variant.files)]


def macros_of(variant: Variant, data: str, others: Sequence[str] = ()) -> list[str]:
    """Return `NAME=value` macros of a variant, which take precedence over `others`."""
    own = {name for name, _ in variant.macros}
    place = "DATA_FILE" if Path(data).is_file() else "DATA_DIR"
    given = [text for text in others if text.split("=")[0].strip() not in own]
    return [f"{place}={data!r}", *given, *(f"{k}={v!r}" for k, v in variant.macros)]


def step_flops(files: Sequence[str], macros: Sequence[str]) -> float:
    """Return the floating-point operations of a training step of a configuration."""
    bindings = [*macros, "MODEL_DIR='unused'"]
    model, rows, lengths = read_configuration(
        files, bindings, "MODEL", "BATCH_SIZE", "TASK_FEATURE_LENGTHS"
    )
    shape = (rows, lengths["targets"])
    tokens = jax.ShapeDtypeStruct(shape, "int32")
    names = ("decoder_target_tokens", "decoder_input_tokens")
    params = jax.eval_shape(
        lambda rng: model.get_initial_variables(
            rng, dict.fromkeys(names, shape), dict.fromkeys(names, "int32")
        )["params"],
        jax.random.PRNGKey(0),
    )
    return model.train_step_flops(params, dict.fromkeys(names, tokens))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all variants; return the exit status of the first that fails, or 0."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("folder", type=Path, help="where the runs go")
    add("--config", type=Path, required=True, help="of the task, such as configs/cdcd/melody.gin")
    add("--data", required=True, help="its DATA_DIR, or the file DATA_FILE")
    add("--models", nargs="+", choices=VARIANTS, default=["cdcd", "mdlm", "ar"])
    add("--steps", type=int, default=3000, help="of continuous diffusion (3000)")
    args, others = parser.parse_known_args(arguments)
    macros = [text.removeprefix("--gin.") for text in others if text.startswith("--gin.")]

    def configured(name: str) -> tuple[list[str], list[str], float]:
        files = gin_files(args.config, VARIANTS[name])
        own = macros_of(VARIANTS[name], args.data, macros)
        return files, own, step_flops(files, own)

    try:
        reference = configured("cdcd")[2]
        chosen = {name: configured(name) for name in args.models}
    except ValueError as error:
        raise SystemExit(f"side_by_side: {error}") from error
    for name, (files, own, flops) in chosen.items():
        steps = round(args.steps * reference / flops)
        own += [f"TRAIN_STEPS={steps}", f"MODEL_DIR={str(args.folder / name)!r}"]
        command = [sys.executable, "-m", "t5x.train", *(f"--gin_file={file}" for file in files)]
        command += [f"--gin.{text}" for text in own]
        command += [text for text in others if not text.startswith("--gin.")]
        print(f"{name}: {steps} steps", flush=True)
        status = subprocess.run(command, check=False).returncode
        if status:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main())

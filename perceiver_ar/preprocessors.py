"""From sequences of tokens to the inputs and targets of training and evaluation.

An example has `tokens` int32 [n + 1]: SOS, data, EOS. Each of the first n is an input and each of
the last n a target. All positions below are those of inputs, from 0 to n - 1; latent t predicts
token t + 1. Letters in shapes: T context, C coordinates, N latents.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from perceiver_ar.blocks import Block, LatentSchedule, strided_blocks

Example = dict[str, np.ndarray]

#: How a training example is cut out of a longer sequence, see `draw_block`.
CROPPING = ("none", "full_latents", "full_latents_with_prefix", "equal_position_likelihood")


def number_positions(example: Example, max_position: int | None = None) -> Example:
    """Add `positions` int32 [n + 1, 1], counted from 1, unless the example has some.

    Args:
      example: with `tokens`.
      max_position: the largest position of an input that a network knows, such as its maximum
        wavelength; None does not check.

    Raises:
      ValueError: an input is beyond it.
    """
    if "positions" not in example:
        counted = np.arange(1, len(example["tokens"]) + 1, dtype=np.int32)
        example = {**example, "positions": counted[:, None]}
    if max_position is not None and len(example["tokens"]) > 1:
        largest = int(np.max(example["positions"][:-1]))
        if largest > max_position:
            raise ValueError(
                f"positions up to {largest} are beyond {max_position}, the largest that the "
                "network knows: raise max_wavelength (rotary) or input_idx_size (absolute), or "
                "divide the sequence"
            )
    return example


def take_block(example: Example, block: Block) -> Example:
    """Return the inputs and targets of a block.

    Returns:
      `inputs`, `targets`, `loss_weights` int32 [L], `positions` int32 [L, C] (those of the whole
      sequence, not of the block), and `latent_counts` int32; L is end - first_input.
    """
    first, end = block.first_input, block.end
    return {
        "inputs": example["tokens"][first:end],
        "targets": example["tokens"][first + 1 : end + 1],
        "positions": example["positions"][first:end],
        "loss_weights": (np.arange(first, end) >= block.first_scored).astype(np.int32),
        "latent_counts": np.asarray(end - block.first_latent, np.int32),
    }


def restart_positions(example: Example) -> Example:
    """Return the example with `positions` int32 [L, 1] counted from 1 at its first input.

    A rotary network sees only differences of positions, so this loses nothing, and a sequence may
    exceed its maximum wavelength or the angles that float32 resolves.
    """
    counted = np.arange(1, len(example["inputs"]) + 1, dtype=np.int32)
    return {**example, "positions": counted[:, None]}


# ---------------------------------------------------------------------------------- training


def draw_block(
    method: str,
    length: int,
    context: int,
    num_latents: int,
    rng: np.random.Generator,
    prefix: int = 0,
    min_crop: int | None = None,
) -> Block:
    """Draw the end of a training example, which begins T inputs before or at the sequence's start.

    Let n be `length`, N `num_latents`, and the first p = max(prefix - 1, 0) targets be given (they
    have no loss). How often a target is trained on:

    * `none`: the end is n. The last N targets are trained on always, all others never.
    * `full_latents`: the end is uniform from p + N to n: every latent is used and has a loss.
      The first and last N - 1 targets are trained on less than those between them. With p = 0 this
      is the reference's.
    * `full_latents_with_prefix`: uniform from max(N, p + 1) to n: every latent is used, those in
      the prefix without a loss. The targets behind the prefix are trained on as often as later
      ones, the last N - 1 less.
    * `equal_position_likelihood`: uniform from p + 1 to n + N - 1: ends beyond n mean the end n
      with fewer latents. All targets are trained on equally often; some latents are not used.

    Args:
      method: one of `CROPPING`.
      length: n.
      context: T.
      num_latents: N.
      rng: draws the end.
      prefix: tokens that are given.
      min_crop: the smallest end, instead of the method's.

    Raises:
      ValueError: an unknown method.
    """
    given = max(prefix - 1, 0)
    smallest = {
        "none": length,
        "full_latents": given + num_latents,
        "full_latents_with_prefix": max(num_latents, given + 1),
        "equal_position_likelihood": given + 1,
    }
    if method not in smallest:
        raise ValueError(f"cropping={method!r}: expected one of {', '.join(CROPPING)}")
    low = smallest[method] if min_crop is None or method == "none" else min_crop
    high = length + num_latents - 1 if method == "equal_position_likelihood" else length
    drawn = int(rng.integers(min(low, high), high + 1))
    end = min(drawn, length)
    first_latent = min(max(drawn - num_latents, 0), end - 1)
    return Block(max(end - context, 0), first_latent, max(first_latent, given), end)


def crop(
    example: Example,
    rng: np.random.Generator,
    sequence_length: Mapping[str, int] | None,
    num_latents: int,
    method: str = "full_latents",
    min_crop: int | None = None,
) -> Example | None:
    """Return one random training example of a sequence; see `draw_block` and `take_block`.

    Args:
      example: `tokens`, `positions`, and optionally `prefix_lengths` int, tokens that are given.
      rng: draws the crop.
      sequence_length: its `targets` is T; None takes all.
      num_latents: N of the network.
      method, min_crop: see `draw_block`.

    Returns:
      The example; None for a sequence of fewer than two tokens.
    """
    length = len(example["tokens"]) - 1
    if length < 1:
        return None
    prefix = int(example.get("prefix_lengths", 0))
    context = _context(sequence_length, length)
    block = draw_block(method, length, context, num_latents, rng, prefix, min_crop)
    return take_block(example, block)


def _context(sequence_length: Mapping[str, int] | None, length: int) -> int:
    return (sequence_length or {}).get("targets") or length


# -------------------------------------------------------------------------------- evaluation


def evaluation_windows(
    example: Example,
    sequence_length: Mapping[str, int] | None,
    num_latents: int,
    stride: int | None = None,
    schedule: LatentSchedule | None = None,
) -> Iterator[Example]:
    """Yield all of a sequence in windows that score each target once, except given ones.

    Args:
      example, sequence_length, num_latents: see `crop`.
      stride: targets scored in a window; 1 gives each of them all the context, the default N the
        fewest windows.
      schedule: instead of a stride, the windows in which sampling with this schedule goes on after
        the given tokens (at least SOS): their targets have the probabilities that sampling gave
        them.

    Raises:
      ValueError: both a stride and a schedule.
    """
    if schedule is not None and stride is not None:
        raise ValueError(f"stride={stride} and a schedule: give one of them")
    # Real arrays for lazy ones, so that the windows are views of them.
    example = {name: np.asarray(value) for name, value in example.items()}
    length = len(example["tokens"]) - 1
    context = _context(sequence_length, length)
    prompt = max(int(example.get("prefix_lengths", 0)), 1)
    if schedule is not None:
        blocks = schedule.blocks(length, context, prompt)
    else:
        blocks = strided_blocks(length, context, num_latents, stride or num_latents)
    for block in blocks:
        if block.end > prompt - 1:
            scored = max(block.first_scored, prompt - 1)
            yield take_block(example, block._replace(first_scored=scored))


def prompt_and_rest(example: Example, prompt_length: int = 1) -> Example:
    """Return an example for prediction, whose given tokens are the prompt.

    Args:
      example: as for `crop`; `prefix_lengths` is the number of given tokens.
      prompt_length: the number of given tokens, SOS included, for an example without
        `prefix_lengths`; at least one token is left to predict.
    """
    length = len(example["tokens"]) - 1
    prompt = int(example.get("prefix_lengths", min(prompt_length, length)))
    block = Block(first_input=0, first_latent=0, first_scored=prompt - 1, end=length)
    taken = take_block(example, block)
    del taken["latent_counts"]
    return {**taken, "prompt_lengths": np.asarray(prompt, np.int32)}

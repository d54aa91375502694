"""Blocks of inputs and latents that are processed together in sampling and evaluation.

Latents see each other only inside a block. Sampling fills a block with latents one by one; when it
is full, a new block begins with the last few latents of the old one. Evaluation that goes through
the same blocks gives the likelihood under which a sequence was sampled.
"""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple


class Block(NamedTuple):
    """A part of a sequence of inputs, numbered from 0; the latent at t predicts token t + 1.

    Attributes:
      first_input: the first input; those before it are not seen.
      first_latent: the first latent.
      first_scored: the first latent whose target counts.
      end: after the last input and latent.
    """

    first_input: int
    first_latent: int
    first_scored: int
    end: int


def strided_blocks(length: int, context: int, num_latents: int, stride: int) -> Iterator[Block]:
    """Yield blocks that score each of `length` targets once, with as much context as possible.

    The first scores the remainder of length / stride, each other one `stride` targets, its last.

    Args:
      length: targets.
      context: inputs a block may have.
      num_latents: latents it may have.
      stride: see above.

    Raises:
      ValueError: the stride is not from 1 to `num_latents`.
    """
    if not 1 <= stride <= num_latents:
        raise ValueError(
            f"stride={stride}: expected 1 to num_latents={num_latents}, as only latents are scored"
        )
    scored = 0
    for end in range(length % stride or min(stride, length), length + 1, stride):
        yield Block(max(end - context, 0), max(end - num_latents, 0), scored, end)
        scored = end


@dataclasses.dataclass(frozen=True)
class LatentSchedule:
    """Numbers of latents a block begins with and holds when sampling.

    Attributes:
      num_latents: N, a block holds; a network may be asked for fewer than it was trained with.
      refill: latents of a new block, that of the newest token included; the default is N / 2, as
        in the reference. More cost more refills and make a prediction from fewer latents rarer.
      first_fill: latents of the first block, taken from the end of the prompt; the default is as
        many as the prompt has, up to N. The reference begins with 1.

    Raises:
      ValueError: names the field that is not from 1 to N.
    """

    num_latents: int
    refill: int = None  # type: ignore[assignment] - None until __post_init__
    first_fill: int = None  # type: ignore[assignment]

    def __post_init__(self):
        defaults = {"refill": max(self.num_latents // 2, 1), "first_fill": self.num_latents}
        for name, default in defaults.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, default)
            if not 1 <= getattr(self, name) <= self.num_latents:
                raise ValueError(
                    f"LatentSchedule: {name}={getattr(self, name)}, expected 1 to num_latents="
                    f"{self.num_latents}"
                )

    @classmethod
    def reference(cls, num_latents: int) -> "LatentSchedule":
        """Return the schedule of the reference: the first token after a prompt has one latent."""
        return cls(num_latents, first_fill=1)

    def blocks(
        self, length: int, context: int, prompt: int, limit: int | None = None
    ) -> Iterator[Block]:
        """Yield the blocks in which the continuation of a prompt is sampled.

        Args:
          length: targets of prompt and continuation together.
          context: inputs a block may have.
          prompt: tokens of the prompt, SOS included.
          limit: inputs there was room for when sampling; by default `length`, as for a sequence
            that did not end early. Up to `context` it makes no difference.
        """
        limit = length if limit is None else limit
        scored = prompt - 1
        first = prompt - min(prompt, self.first_fill)
        while scored < length:
            end = first + self.num_latents
            # A block sees the same inputs whether or not the sequence ends before it does.
            first_input = max(min(end, limit) - context, 0)
            yield Block(first_input, first, scored, min(end, length))
            scored, first = end, end - self.refill + 1

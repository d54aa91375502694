"""Profiles: instructions of compiled programs are traced back to lines of Python."""

import jax
import jax.numpy as jnp
import pytest

from benchmarks import __main__ as command
from benchmarks import profile


def test_time_inside_a_loop_is_not_the_loops_own():
    events = [(10.0, 5.0, "body"), (0.0, 30.0, "loop"), (16.0, 4.0, "body"), (30.0, 2.0, "after")]
    assert sorted(profile.own_times(events)) == [
        ("after", 2.0),
        ("body", 4.0),
        ("body", 5.0),
        ("loop", 21.0),
    ]


def _product(x):
    return x @ x  # this line is what the profile is to name


def _caller(x):
    return _product(x) + 1.0


def test_instructions_are_traced_to_the_line_and_its_caller():
    gradient = jax.jit(jax.grad(lambda x: jnp.square(_caller(x)).sum()))
    text = gradient.lower(jnp.ones((4, 4))).compile().as_text()
    assert text is not None
    lines = _product.__code__.co_firstlineno + 1, _caller.__code__.co_firstlineno + 1
    here = "tests/benchmarks/test_profile.py"
    source = f"{here}:{lines[0]} < {here}:{lines[1]}"
    made = {x.operation for x in profile.read_origins(text).values() if x.source == source}
    assert {"dot_general", "dot_general, gradient"} <= made


@pytest.mark.slow
@pytest.mark.parametrize("name", ["t5:beam", "training"])
def test_the_hot_program_is_printed_with_its_lines(name, capsys):
    command.main(["profile", name, "--tiny"])
    title, header, _, *lines = capsys.readouterr().out.splitlines()
    assert title.startswith(name)
    assert header.split() == ["Share", "Count", "Operation", "XLA", "Source"]
    assert len(lines) == profile.SHOWN + 1
    shares = [float(line.split("%")[0]) for line in lines]
    assert shares[:-1] == sorted(shares[:-1], reverse=True)
    assert sum(shares) == pytest.approx(100, abs=1)
    assert "t5x/layers/" in " ".join(lines)


def test_unknown_programs_are_named_with_those_there_are(capsys):
    with pytest.raises(SystemExit):
        command.main(["profile", "t5:sample"])
    assert "there are train, train-small, greedy, top-k, beam" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command.main(["profile", "imports"])
    assert "'imports' is no benchmark with a program" in capsys.readouterr().err
